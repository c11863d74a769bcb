"""Where a run lives: a readable folder name, made unique by a hash of what changes the result."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from resnetlab.config import GROUPS, Config

__all__ = ["OUTPUTS", "RunFolder", "configuration_name", "identity", "run_folder"]

OUTPUTS = Path("outputs")

# what does not change a run's figures: where things are, what is shown, what is read off them afterwards
NOT_IDENTITY = {"study", "seed", "force", "thresholds", "objective", "data.root", "trainer", "trainer.progress"}

# top-level keys that stand in the folder's name when they are not at their defaults
READABLE = {
    "epochs": "e",
    "batch_size": "b",
    "lr": "lr",
    "wd": "wd",
    "l2": "l2",
    "momentum": "m",
    "shift": "shift",
    "data.limit": "limit",
}


def identity(config: Config) -> dict[str, Any]:
    """What a run is: its choices, and every other value that differs from its default.

    A key that is added later leaves the identity of old runs alone, because they have its default.
    """
    defaults = {
        "wd": config.regularization.default_wd,
        "l2": config.regularization.default_l2,
        "momentum": config.optimizer.default_momentum,
    }
    values: dict[str, Any] = {}
    for field in fields(config):
        part: Any = getattr(config, field.name)
        if field.name in GROUPS:
            blank = type(part)()
            values[field.name] = part.name
            for key in fields(part):
                value = getattr(part, key.name)
                if key.name != "name" and value != getattr(blank, key.name):
                    values[f"{field.name}.{key.name}"] = value
        elif part is not None and part != defaults.get(field.name, field.default):
            values[field.name] = part
    return {key: value for key, value in values.items() if key not in NOT_IDENTITY}


def configuration_name(config: Config) -> str:
    """For example resnet56v2-cifar10-adamw-piecewise_linear-weight_decay-wd0.1-3f9a2c71."""
    values = identity(config)
    parts = [config.model.name, config.data.name, config.optimizer.name, config.schedule.name]
    parts += [config.regularization.name]
    parts += [f"{short}{values[key]:g}" for key, short in READABLE.items() if key in values]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*parts, digest])


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.summary = path / "summary.json"
        self.manifest = path / "manifest.json"
        self.curves = path / "curves.png"
        self.lock = path / ".lock"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "last.prev.ckpt"


def run_folder(config: Config) -> RunFolder:
    """outputs/<study>/<choices>-<hash>/seed=<n>, below the current folder."""
    return RunFolder(OUTPUTS / config.study / configuration_name(config) / f"seed={config.seed}")
