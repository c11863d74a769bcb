"""What somebody may have meant who wrote a name that does not exist."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

__all__ = ["group_hint", "preset_hint"]


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
