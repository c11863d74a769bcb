"""Which published configuration a run repeats, or is a reduction of, from what its manifest says."""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab.files import digest

__all__ = ["FILE", "REDUCING", "digests", "matching_preset", "reduced_from"]

FILE = Path(__file__).with_name("presets.csv")

# what does not tell a repetition from another run: no post prints the precision of its tables, and validating a second
# time changes nothing
SILENT = {"precision", "recalibrate_bn", "threads"}
# what makes a run smaller without changing its recipe
REDUCING = (
    *("model", "model.depth", "data.limit", "data.resolution"),
    *("epochs", "schedule.stretch", "schedule.length"),
)


def matching_preset(identity: Mapping[str, Any]) -> str | None:
    """The preset with exactly this configuration (a manifest's differs_from_defaults); None where there is none.

    Where two published configurations are the same in all that a run knows, the first.
    """
    return _presets(0).get(digests(identity)[0])


def reduced_from(identity: Mapping[str, Any]) -> str | None:
    """The preset that this is with a smaller network, fewer or smaller images, or fewer epochs; None otherwise."""
    whole, core = digests(identity)
    return None if whole in _presets(0) else _presets(1).get(core)


def digests(identity: Mapping[str, Any]) -> tuple[str, str]:
    """Of the configuration as a whole, and of what a reduction leaves alone."""
    whole = {key: value for key, value in identity.items() if key not in SILENT}
    return digest(whole), digest({key: value for key, value in whole.items() if key not in REDUCING})


@cache
def _presets(column: int) -> dict[str, str]:
    """{digest: the first preset that has it}."""
    with FILE.open(newline="", encoding="utf-8") as file:
        found: dict[str, str] = {}
        for row in csv.DictReader(file):
            found.setdefault(row["whole" if column == 0 else "core"], row["preset"])
        return found
