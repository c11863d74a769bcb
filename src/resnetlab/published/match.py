"""Which published configuration a run repeats, from what its manifest says."""

import csv
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["matching_preset"]

FILE = Path(__file__).with_name("presets.csv")
SILENT = {"precision", "recalibrate_bn", "threads"}  # no post prints them, or they change nothing


def matching_preset(identity: Mapping[str, Any]) -> str | None:
    """The preset with exactly this configuration (a manifest's differs_from_defaults); None where there is none."""
    told = {key: value for key, value in identity.items() if key not in SILENT}
    return _presets().get(hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8])


@cache
def _presets() -> dict[str, str]:
    with FILE.open(newline="", encoding="utf-8") as file:
        found: dict[str, str] = {}
        for row in csv.DictReader(file):
            found.setdefault(row["whole"], row["preset"])
        return found
