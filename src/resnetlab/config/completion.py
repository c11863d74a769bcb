"""Shell completion: the words that the scripts in conf/completion ask for; without torch."""

import re
from collections.abc import Sequence

from resnetlab.config.help import key_owners
from resnetlab.config.option_files import conf_dir, default_options, options

OTHERS = {  # keys that are in no option file
    "hydra/launcher": ["joblib", "processes", "ray", "submitit_local", "submitit_slurm"],
    "hydra/sweeper": ["optuna"],
    "seeds": ["5", "auto"],
}


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
