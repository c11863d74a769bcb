"""Error messages in one line, and exit statuses; the only place that reads the texts of Hydra's and OmegaConf's errors.

Hydra 1.3.8 and OmegaConf 2.3.1: their messages have several lines, with types and advice that does not apply here.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from resnetlab.config.option_files import options, suggestion
from resnetlab.config.schema import GROUPS

USAGE_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ConfigError is a ValueError, as some of Hydra's
PRESETS = "`resnetlab options experiment` lists them"

# beginnings of the lines that are left out: types, search paths and advice of Hydra and OmegaConf
LEFT_OUT = (
    *("full_key", "reference_type", "object_type", "provider"),
    *("Config search", "set HYDRA_FULL_ERROR", "To append", "See https://hydra.cc"),
)


def print_error(error: Exception) -> int:
    """Prints one line on stderr. Returns the exit status: 2 for a usage error, 1 for any other."""
    print(f"error: {error_message(error)}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, USAGE_ERRORS) else 1


def interrupted(stop: KeyboardInterrupt) -> int:
    """Prints one line on stderr, the interrupt's own if it has one. Returns the shell's status for Ctrl-C, 130."""
    print(str(stop) or "interrupted; nothing was written", file=sys.stderr, flush=True)
    return 130


def error_message(error: BaseException) -> str:
    """One line: the error and its first cause, or the valid names of a key, option or preset that is not there."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "experiment":
            presets = [preset.name for preset in options("experiment")]
            return f"{group} (={option}) is not there; {suggestion(option, presets, PRESETS)}"
        return f"{group} (={option}) must be one of {', '.join(sorted(error.options))}"
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, ConfigKeyError | ConfigAttributeError) and isinstance(link.parent_node, DictConfig):
            path, dot, key = str(link.full_key).rpartition(".")
            return unknown_key_message(key, path + dot, [str(valid) for valid in link.parent_node])
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(LEFT_OUT))
    first = next((str(link).splitlines()[0] for link in reversed(chain) if str(link)), "")
    return text if first in text else f"{text}: {first}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what led to it, what led to that, and so on; not past a `raise ... from None`."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def unknown_key_message(key: str, path: str, valid: Sequence[str]) -> str:
    """One line about a key that is not there. path: of its group, "schedule.", or "" at the top level."""
    keys_of = {group: {f.name for option in GROUPS[group].values() for f in fields(option)} for group in GROUPS}
    owners = [f"{group}.{key}" for group, keys in keys_of.items() if key in keys - {"name"}]
    if owners and not path:
        return f"unknown key {key}; did you mean {' or '.join(owners)}?"
    settable = [name for name in valid if name not in ("name", "hydra")]
    close = get_close_matches(key, settable, n=1)
    meant = f"did you mean {path}{close[0]}? " if close else ""
    return f"unknown key {path}{key}; {meant}valid: {', '.join(settable)}"
