"""What can be set, from the files of conf/: `resnetlab options`, `python train.py --help`, completion in a shell."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from resnetlab.config.option_files import TOP_LEVEL, Key, conf_dir, default_options, options, suggestion
from resnetlab.errors import ConfigError

HELP = Path(__file__).with_name("help.txt")  # its beginning
OTHERS = {  # keys that are in no option file, for completion
    "hydra/launcher": ["joblib", "processes", "one_process", "ray", "submitit_local", "submitit_slurm"],
    "hydra/sweeper": ["optuna"],
    "seeds": ["5", "auto"],
}


def help_text() -> str:
    """The text of `python train.py --help`."""
    lines = [HELP.read_text(), "Options, the default first (resnetlab options GROUP explains them and their keys):"]
    for group, first in default_options().items():
        names = [first, *(option.name for option in options(group) if option.name != first)]
        lines += _wrapped(f"    {group}=", names, 20)
    lines += ["", "Top-level keys (resnetlab options KEY):"]
    lines += _wrapped("", [f"{key.name}={key.default}" for key in TOP_LEVEL.keys], 4)
    listed = "resnetlab options experiment lists them; resnetlab published has their results"
    return "\n".join([*lines, "", f"{len(options('experiment'))} presets: {listed}."])


def options_text(names: Sequence[str]) -> str:
    """The text of `resnetlab options NAMES`: of a group, an option, a key, or all groups. Raises ConfigError."""
    if not any(names):
        keys = f"Top-level keys:\n{_key_lines(TOP_LEVEL.keys)}"
        more = "resnetlab options GROUP, GROUP=OPTION or KEY says more."
        return "\n\n".join([*map(group_summary, default_options()), keys, more])
    return "\n".join(_text_of(*name.partition("=")[::2]) for name in names if name)


def _text_of(word: str, option: str) -> str:
    if word not in (*default_options(), "experiment"):
        return key_text(word)
    return option_text(word, option) if option else group_text(word)


def group_summary(group: str) -> str:
    """A line for each option of a group."""
    default, found = default_options().get(group), options(group)
    width = max(len(option.name) for option in found)
    return "\n".join(
        f"{group}={option.name:{width}}  {option.summary}{' (default)' if option.name == default else ''}"
        for option in found
    )


def group_text(group: str) -> str:
    """A line for each option, the keys that all of them have, and those of each that are its own."""
    found = {option.name: option.keys for option in options(group) if option.keys}
    shared = [key for key in next(iter(found.values()), []) if all(key in keys for keys in found.values())]
    own = {name: [key for key in keys if key not in shared] for name, keys in found.items()}
    blocks = {"all": shared, **{f"{group}={name}": keys for name, keys in own.items()}}
    parts = [f"Keys of {owner}:\n{_key_lines(keys)}" for owner, keys in blocks.items() if keys]
    return "\n\n".join([group_summary(group), *parts])


def option_text(group: str, name: str) -> str:
    """What the option is, and its keys; of a preset, its file."""
    found = {option.name: option for option in options(group)}
    if name not in found:
        meant = suggestion(name, found, f"resnetlab options {group} lists them")
        raise ConfigError(f"{group} (={name}) is not there; {meant}")
    if group == "experiment":
        return found[name].text.rstrip()
    return "\n".join([f"{group}={name}", *found[name].description, *filter(None, [_key_lines(found[name].keys)])])


def key_text(name: str) -> str:
    """The line of a top-level key, or of a group's key with or without its group, for each meaning that it has."""
    owners = key_owners()
    lines = []
    for key, names in owners.items():
        if name in (key.name, key.name.partition(".")[2] or key.name):
            lines += [_key_lines([key]), *(_wrapped("    of ", names, 7) if names else [])]
    if not lines:
        known = {word for key in owners for word in (key.name, key.name.rpartition(".")[2])} | set(default_options())
        meant = suggestion(name, sorted(known), "resnetlab options lists the groups")
        raise ConfigError(f"{name} is no group and no key; {meant}")
    return "\n".join(lines)


def key_owners() -> dict[Key, list[str]]:
    """{key: the options that have it with this default and meaning, or none for a top-level key}."""
    owners: dict[Key, list[str]] = {key: [] for key in TOP_LEVEL.keys}
    for group in default_options():
        for option in options(group):
            for key in option.keys:
                own = [f"{group}={option.name}"] if key.name.startswith(f"{group}.") else []
                owners.setdefault(key, []).extend(own)
    return owners


def script(shell: str) -> str:
    """What a shell reads to complete words."""
    return (conf_dir() / "completion" / shell).read_text()


def candidates(words: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What the last word may become; none where a file's name is wanted. words: those behind `resnetlab`."""
    *before, word = words or [""]
    if not before:
        found = [*commands, "--version", "--help", "--config-dir"]
    elif before[0] == "completion":
        found = ["bash", "zsh", "fish"]
    else:
        found = override_words(word) if before[0] in ("train", "schedule", "lr-range", "options") else []
    return sorted(name for name in found if name.startswith(word))


def override_words(word: str) -> list[str]:
    """The keys with a "=" behind them; or the word with each value that its key, in front of a "=", may have."""
    key, equals, value = word.partition("=")
    known: dict[str, list[str]] = {group: [] for group in (*default_options(), "experiment")} | OTHERS
    for owned in key_owners():
        listed = re.findall(r"[\w-]+(?= \|)|(?<=\| )[\w-]+", owned.meaning)
        switch = ["true", "false"] if owned.default in ("true", "false") else []
        known[owned.name] = [*known.get(owned.name, []), owned.default, *switch, *listed]
    if not equals:
        return [f"{name}=" for name in known]
    start = word[: len(word) - len(value.rpartition(",")[2])]  # a sweep's values before the last comma
    return [f"{start}{found}" for found in {*known.get(key, []), *(option.name for option in options(key))}]


def _key_lines(keys: Iterable[Key]) -> str:
    return "\n".join(f"    {f'{key.name}={key.default}':34} {key.meaning}" for key in keys)


def _wrapped(start: str, words: Iterable[str], indent: int) -> list[str]:
    """`start`, then the words, all lines from column `indent` on."""
    wrap = textwrap.TextWrapper(109, start.ljust(indent), " " * indent, break_long_words=False, break_on_hyphens=False)
    return wrap.wrap(" ".join(words))
