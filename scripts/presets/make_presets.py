"""Write conf/experiment/<id>.yaml and published/preset_digests.csv from the published data.

    python scripts/presets/make_presets.py

The fastai notebook's presets, nb-*, are written by hand. Composing all presets for the digests takes half a minute.
"""

from pathlib import Path
from typing import Any

from header import header
from resnetlab.config.compose import compose
from resnetlab.published.configuration import configuration, preset_of
from resnetlab.published.preset_matching import FILE, digests
from resnetlab.published.results import Published, rows
from resnetlab.runs.files import write_text
from resnetlab.runs.summary import CHOICES

EXPERIMENTS = Path(__file__).parents[2] / "conf" / "experiment"
ALWAYS = {0.92, 0.93}  # the thresholds of every preset


def main() -> None:
    write_presets(EXPERIMENTS)
    write_digests(FILE)


def write_presets(folder: Path) -> None:
    """Write every preset that is made from the data."""
    for row in rows():
        if row.post != "fastai" and preset_of(row.id) == row.id:
            write_text(folder / f"{row.id}.yaml", preset(row))


def write_digests(path: Path) -> None:
    """Write one line a preset, in the order of the published rows, by which a run's folder is known as a preset's."""
    presets = dict.fromkeys(preset_of(row.id) for row in rows())
    write_text(path, "name,whole,core,model,epochs\n" + "".join(f"{digest_line(preset)}\n" for preset in presets))


def digest_line(preset: str) -> str:
    """A line such as "post4-table1-05,0a1b2c3d,4e5f6a7b,resnet56v2,60"."""
    config = compose(f"experiment={preset}")
    return ",".join([preset, *digests(config.identity), config.model.name, str(config.epochs)])


def preset(row: Published) -> str:
    """The text of the preset of that row's configuration."""
    keys = configuration(row)
    groups = {key: value for key, value in keys.items() if key in CHOICES}
    top = {key: value for key, value in keys.items() if key not in CHOICES and "." not in key}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        group, dot, name = key.partition(".")
        if dot:
            nested.setdefault(group, {})[name] = value
    lines = ["# @package _global_", *header(row), "defaults:"]
    lines += [f"  - override /{group}: {name}" for group, name in groups.items()]
    lines += ["study: published"]
    lines += [f"{key}: {to_yaml(value)}" for key, value in (top | {"thresholds": thresholds(row)} | nested).items()]
    return "\n".join(lines) + "\n"


def thresholds(row: Published) -> list[float]:
    """0.92, 0.93, and those that the rows of this preset tell of."""
    told = {other.threshold for other in rows() if preset_of(other.id) == row.id and other.threshold is not None}
    return sorted(ALWAYS | told)


def to_yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {to_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
