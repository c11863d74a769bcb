"""Writes conf/experiment/<id>.yaml from the published data: python -m resnetlab.published.presets DIR.

The fastai notebook's presets, nb-*, are written by hand.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnetlab.published.configuration import GROUPS, configuration, preset_of
from resnetlab.published.header import header
from resnetlab.published.results import Published, rows
from resnetlab.runs.files import write_text

__all__ = ["main", "preset", "presets", "thresholds"]

ALWAYS = {0.92, 0.93}  # the thresholds of every preset


def main(arguments: Sequence[str]) -> int:
    """Writes every preset into the folder that is the one argument; returns the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m resnetlab.published.presets conf/experiment", file=sys.stderr)
        return 2
    for name, text in presets().items():
        write_text(Path(arguments[0]) / f"{name}.yaml", text)
    return 0


def presets() -> dict[str, str]:
    """{name: the file's text} of all presets that are made from the data."""
    return {row.id: preset(row) for row in rows() if row.post != "fastai" and preset_of(row.id) == row.id}


def preset(row: Published) -> str:
    """The text of the preset of that row's configuration."""
    keys = configuration(row)
    groups = {key: value for key, value in keys.items() if key in GROUPS}
    top = {key: value for key, value in keys.items() if key not in GROUPS and "." not in key}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        group, dot, name = key.partition(".")
        if dot:
            nested.setdefault(group, {})[name] = value
    lines = ["# @package _global_", *header(row), "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in groups.items()]
    lines += ["study: published"]
    lines += [f"{key}: {_yaml(value)}" for key, value in (top | {"thresholds": thresholds(row)} | nested).items()]
    return "\n".join(lines) + "\n"


def thresholds(row: Published) -> list[float]:
    """0.92, 0.93, and those that the rows of this preset tell of."""
    told = {other.threshold for other in rows() if preset_of(other.id) == row.id and other.threshold is not None}
    return sorted(ALWAYS | told)


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
