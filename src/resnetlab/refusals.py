"""What is wrong, in one line and an exit status."""

import re
import sys
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from resnetlab.config import GROUPS, conf_dir
from resnetlab.hints import group_hint, preset_hint

__all__ = ["REFUSALS", "complain", "interrupted", "refusal"]

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)  # ConfigError is a ValueError, as are some of Hydra's
NOISE = ("full_key", "reference_type", "object_type", "provider", "Config search", "set HYDRA_FULL_ERROR", "To append")


def complain(error: Exception) -> int:
    """One line on stderr, and exit status 2 for what is wrong with the command, 1 for what is wrong with the world."""
    print(f"error: {refusal(error)}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, REFUSALS) else 1


def interrupted(stop: KeyboardInterrupt) -> int:
    """One line on stderr: the interrupt's own about what is kept, if it has one; and the shell's status for it."""
    print(str(stop) or "interrupted; nothing was written", file=sys.stderr, flush=True)
    return 130


def refusal(error: BaseException) -> str:
    """What is wrong, in one line, with the valid names where OmegaConf knows them, or those that may be meant."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(NOISE))
    if missing := re.search(r"Could not find 'experiment/([^']*)'", text):
        folder = conf_dir() / "experiment"
        near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        return preset_hint(missing[1], (path.stem for path in folder.glob("*.yaml")), str(near))
    chain = [error]
    while (following := reason(chain[-1])) is not None and following not in chain:
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


def reason(error: BaseException) -> BaseException | None:
    """What led to the error, unless it was raised `from None`."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
