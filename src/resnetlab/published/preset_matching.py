"""Matches a run's manifest to the published configuration that it repeats, or of which it is a reduction."""

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab.runs.files import digest

FILE = Path(__file__).with_name("preset_digests.csv")

# what leaves accuracies and losses as they are, or about so: posts I and IV saw no effect of 16-mixed
SILENT = ("precision", "recalibrate_bn", "flip_tta", "threads")
UNSEEN = {*SILENT} - {"precision"}  # change no metric but costs; claims name the precision
# what makes a run smaller without changing its recipe
REDUCING = ("model", "model.depth", "data.limit", "data.resolution", "epochs", "schedule.stretch", "schedule.length")
EPOCHS = 60  # the lab's default, which an identity leaves out


def matching_presets(identity: Mapping[str, Any]) -> list[str]:
    """The presets with exactly this configuration (a manifest's differs_from_defaults), but for what is SILENT.

    Several where the sources' runs differ in what Keras ignores, such as ema_momentum.
    """
    whole, _ = digests(identity)
    return [preset["name"] for preset in _presets() if preset["whole"] == whole]


def reduction(identity: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first preset of which this is a reduction, and what is reduced: "model resnet20v2, epochs 15".

    A reduction has a smaller network of the family, fewer or smaller images, or fewer epochs, and nothing larger.
    """
    whole, core = digests(identity)
    related = [preset for preset in _presets() if preset["core"] == core]
    if any(preset["whole"] == whole for preset in related):
        return None
    values = {"epochs": EPOCHS, **identity}
    family, depth = _size(str(values["model"]))
    for preset in related:
        same_family, most = _size(preset["model"])
        smaller = family == same_family and int(values.get("model.depth", depth)) <= most
        if smaller and int(values["epochs"]) <= (epochs := int(preset["epochs"])):
            same = {"model": preset["model"], "epochs": epochs}
            found = [(key, values[key]) for key in REDUCING if key in values and values[key] != same.get(key)]
            return preset["name"], ", ".join(f"{key} {str(value).lower()}" for key, value in found)
    return None


def digests(identity: Mapping[str, Any]) -> tuple[str, str]:
    """Of the configuration as a whole, and of what a reduction leaves alone."""
    whole = {key: value for key, value in identity.items() if key not in SILENT}
    return digest(whole), digest({key: value for key, value in whole.items() if key not in REDUCING})


def _size(model: str) -> tuple[str, int]:
    """("resnetv2", 56) of resnet56v2; torchvision's differ in their blocks, so each is a family of its own."""
    found = re.fullmatch(r"(resnet)(\d+)(v\d.*)", model)
    return (found[1] + found[3], int(found[2])) if found else (model, 0)


@cache
def _presets() -> list[dict[str, str]]:
    """Lines of preset_digests.csv. whole, core: digests of the configuration, and of what a reduction leaves alone."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
