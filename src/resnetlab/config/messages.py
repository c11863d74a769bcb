"""Error messages in one line, and exit statuses; the only place that reads the texts of Hydra's and OmegaConf's errors.

Hydra 1.3.8 and OmegaConf 2.3.1: their messages have several lines, with types and advice that does not apply here.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from difflib import get_close_matches

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from resnetlab.config.option_files import options, suggestion
from resnetlab.config.schema import GROUPS, Config
from resnetlab.console import print_stderr, unexpected
from resnetlab.runs.files import data_beside

USAGE_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ConfigError is a ValueError, as some of Hydra's
TOP_LEVEL_NAMES = {key.name for key in fields(Config)} - {*GROUPS}
DATA = data_beside(__file__, "translations.toml")
OURS: dict[str, str] = DATA["names"]
FOREIGN = {name: ours for ours, names in OURS.items() for name in names.split()}
PRESETS = "`resnetlab options experiment` lists them"

AMBIGUOUS = "Ambiguous value for argument '"  # and about several values
MERGING = "Error merging override "  # begins Hydra's message about a value of another type


def print_error(error: Exception) -> int:
    """Prints one line on stderr. Returns the exit status: 2 for a usage error, 1 for any other."""
    if isinstance(error, OSError) and error.filename is None and error.errno is not None:
        return unexpected(error)  # its traceback is all that tells of which file it is
    print_stderr(f"error: {error_message(error)}")
    return 2 if isinstance(error, USAGE_ERRORS) else 1


def error_message(error: BaseException) -> str:
    """One line: the error and its first cause, or the valid names of a key, option or preset that is not there."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        return missing_option_message(str(error.missing_cfg_file), error.options)
    chain = list(causes(error))
    for link in chain:
        if isinstance(link, ConfigKeyError | ConfigAttributeError) and isinstance(link.parent_node, DictConfig):
            path, dot, key = str(link.full_key).rpartition(".")
            return unknown_key_message(key, path + dot, [str(valid) for valid in link.parent_node])
        if isinstance(link, OverrideParseException):
            return override_message(str(link.override))
        if isinstance(link, MissingMandatoryValue):
            return f"{link.full_key} must be given"
    for link in chain[1:]:
        if str(error).startswith(MERGING) and isinstance(link, OmegaConfBaseException):
            return type_message(str(error).splitlines()[0].removeprefix(MERGING), link)
    if str(error).startswith(AMBIGUOUS):
        key, _, values = str(error).splitlines()[0].removeprefix(AMBIGUOUS).removesuffix("'").partition("=")
        return f"{key} (={values}) has several values; add -m for a sweep of them, or brackets for a list: [{values}]"
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(tuple(DATA["left_out"])))
    first = next((str(link).splitlines()[0] for link in reversed(chain) if str(link)), "")
    place = getattr(error, "full_key", None)
    return f"{f'{place}: ' if place else ''}{text if first in text else f'{text}: {first}'}"


def missing_option_message(name: str, valid: Iterable[str]) -> str:
    """One line about an option or preset that is not there. name: with its group, "schedule/onecycle"."""
    group, _, option = name.rpartition("/")
    if group == "experiment":
        presets = [preset.name for preset in options("experiment")]
        return f"{group} (={option}) is not there; {suggestion(option, presets, PRESETS)}"
    if ours := FOREIGN.get(f"{group}={option}"):
        return f"{group} (={option}) is not there; here: {ours}"
    letters = {name: re.sub("[^a-z0-9]", "", name.lower()) for name in (option, *valid)}
    alike = [name for name in sorted(valid) if letters[name] and letters[option].startswith(letters[name])]
    alike += [name for name in sorted(valid) if letters[name] in get_close_matches(letters[option], letters.values())]
    meant = [name for name in dict.fromkeys(alike) if name != option][:3]
    must = f"{group} (={option}) must be one of {', '.join(sorted(valid))}"
    return f"{must}; did you mean {' or '.join(meant)}?" if meant else must


def override_message(line: str) -> str:
    """One line about an argument that Hydra's grammar cannot read, and how to write it."""
    key, equals, value = line.partition("=")
    if not equals:
        return f"{line} is not of the form KEY=VALUE, without spaces around ="
    if line != f"{key.strip()}={value.strip()}":
        return f"{line!r} has spaces around =; write {shlex.quote(f'{key.strip()}={value.strip()}')}"
    if value.endswith(","):
        return f"{line} ends in a comma; a value is missing behind it"
    if not re.fullmatch(r"\+{0,2}[\w./@-]+", key):
        return f"{key} (={value}) is no key; `resnetlab options` lists them"
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + (r"\"" if found[2] else ""), value)
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"{key} (={value}) cannot be read; a text with such characters is quoted twice: {quoted}"


def type_message(line: str, error: OmegaConfBaseException) -> str:
    """One line about an override whose value is of another type."""
    key, _, value = line.partition("=")
    place = str(error.full_key) if error.full_key else key
    said = str(error).splitlines()[0]
    must = next((must for words, must in DATA["types"].items() if words in said), None)
    return f"{place} (={value}) must {must}" if must else f"{key} (={value}): {said}"


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
    owners = {
        group: [name for name, option in choices.items() if key in {f.name for f in fields(option)} - {"name"}]
        for group, choices in GROUPS.items()
    }
    if ours := FOREIGN.get(key.lower()):
        return f"unknown key {path}{key}; here: {ours}"
    if not path and (found := [f"{group}.{key}" for group, names in owners.items() if names]):
        return f"unknown key {key}; did you mean {' or '.join(found)}?"
    if path and key in TOP_LEVEL_NAMES:
        return f"unknown key {path}{key}; did you mean {key}?"
    if names := owners.get(path.removesuffix(".")):
        group = path.removesuffix(".")
        return f"{path}{key} is a key of {group}={' or '.join(names)}; choose one, such as {group}={names[0]}"
    settable = [name for name in valid if name not in ("name", "hydra")]
    close = get_close_matches(key, settable, n=1)
    meant = f"did you mean {path}{close[0]}? " if close else ""
    return f"unknown key {path}{key}; {meant}valid: {', '.join(settable)}"
