"""What is wrong, in one line and an exit status."""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from resnetlab.config.schema import GROUPS, conf_dir

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)  # ConfigError is a ValueError, as are some of Hydra's
NOISE = ("full_key", "reference_type", "object_type", "provider", "Config search", "set HYDRA_FULL_ERROR", "To append")


def print_error(error: Exception) -> int:
    """One line on stderr, and exit status 2 for what is wrong with the command, 1 for what is wrong with the world."""
    print(f"error: {error_message(error)}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, REFUSALS) else 1


def interrupted(stop: KeyboardInterrupt) -> int:
    """One line on stderr: the interrupt's own about what is kept, if it has one; and the shell's status for it."""
    print(str(stop) or "interrupted; nothing was written", file=sys.stderr, flush=True)
    return 130


def error_message(error: BaseException) -> str:
    """What is wrong, in one line, with the valid names where OmegaConf knows them, or those that may be meant."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(NOISE))
    if missing := re.search(r"Could not find 'experiment/([^']*)'", text):
        folder = conf_dir() / "experiment"
        near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        return preset_hint(missing[1], (path.stem for path in folder.glob("*.yaml")), str(near))
    chain = [error]
    while (following := cause_of(chain[-1])) is not None and following not in chain:
        chain.append(following)
    causes = [str(link).splitlines()[0] for link in reversed(chain) if str(link)]
    if causes and causes[0] not in text:
        text += f": {causes[0]}"
    for link in chain:
        parent = getattr(link, "parent_node", None)
        if isinstance(parent, DictConfig) and "not in" in str(link):
            key = str(getattr(link, "full_key", ""))  # with a dot, if it is below a group
            if hint := group_hint(key, GROUPS):
                return f"unknown key {key}; {hint}"
            return f"{text} (valid: {', '.join(map(str, parent))})"
    return text


def cause_of(error: BaseException) -> BaseException | None:
    """What led to the error, unless it was raised `from None`."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def group_hint(key: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """ "did you mean trainer.patience?" for a top-level key that is one of a group's; "" for any other.

    groups: {group: {option: dataclass or instance of one}}.
    """
    owners = [
        f"{group}.{key}"
        for group, options in groups.items()
        if any(key == field.name != "name" for option in options.values() for field in fields(option))
    ]
    return f"did you mean {' or '.join(owners)}?" if owners else ""


def preset_hint(name: str, names: Iterable[str], folder: str) -> str:
    """One line about a preset that is not in `names`: the closest few of them, and where all of them are."""
    close = get_close_matches(name, sorted(names), n=4)
    meant = f"did you mean {', '.join(close)}? " if close else ""
    return f"experiment (={name}) is not there; {meant}`ls {folder}` or `resnetlab published` lists them"
