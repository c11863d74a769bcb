"""Run folders as the lab writes them, without training: for the tests of what reads them."""

import json
import math
import random
from pathlib import Path
from typing import Any

from resnetlab.runs.files import write_json, write_rows, write_text
from resnetlab.runs.summary import summarize

DEFAULTS: dict[str, Any] = {
    "model": "resnet56v2",
    "data": "cifar10",
    "optimizer": "adamw",
    "schedule": "piecewise_linear",
    "regularization": "weight_decay",
}


def synthetic_rows(epochs: int, best: float, seed: int = 0, **settings: Any) -> list[dict[str, float]]:
    """Curves that rise to about `best`; with strong decay the validation loss swings between epochs 10 and 36."""
    chance = random.Random(f"{seed} {sorted(settings.items())}")
    lift, rows = chance.gauss(0, 0.0012), []
    wd, penalty = settings.get("wd") or 0.0, 1000 * (settings.get("l2") or 0.0)
    for epoch in range(1, epochs + 1):
        t = epoch / epochs
        acc = best + lift - 0.55 * math.exp(-6 * t) + chance.gauss(0, 0.02) * (1 - t)
        ce = 1.9 * math.exp(-5 * t) + 0.02
        swing = abs(chance.gauss(0, 8 * wd)) if 10 <= epoch <= 36 else 0.0
        train = {"train/loss": ce + penalty, "train/ce": ce, "train/acc": min(0.999, 1 - 0.5 * ce / 2)}
        val = {"val/loss": ce + 0.25 + swing + penalty, "val/ce": ce + 0.25 + swing, "val/acc": acc - 0.02 * swing}
        times = {"time/epoch": 31.0 + seed, "time/train": 28.0, "time/images_per_second": 50_000 / 28.0}
        rate = settings.get("lr", 8e-4) * min(1.0, 2 * (1 - t) + 0.01)
        rows.append({"epoch": epoch, "lr": rate, "momentum": 0.9, **train, **val, **times})
    return rows


def write_run(
    root: Path, *, study: str = "one", seed: int = 0, epochs: int = 6, best: float = 0.93, **settings: Any
) -> Path:
    """Writes one finished run, and returns its folder. settings: keys of the summary that are not at their defaults."""
    from resnetlab import compose

    values = {"batch_size": 64, "lr": 8e-4, "wd": 0.2, "momentum": 0.9, "shift": 0.07, **settings}
    rows = synthetic_rows(epochs, best, seed, **values)
    config = SUMMARY_OF.setdefault("config", compose())
    summary = summarize(config, rows, status="finished") | DEFAULTS | {"epochs": epochs, "study": study, "seed": seed}
    summary |= values
    identity = DEFAULTS | {"epochs": epochs} | settings
    name = "-".join(["resnet56v2", *(f"{key}{value}" for key, value in settings.items()), "0" * 8])
    folder = root / study / name / f"seed={seed}"
    write_rows(folder / "metrics.csv", rows)
    write_json(folder / "summary.json", summary)
    write_json(folder / "manifest.json", manifest(name, identity))
    write_text(folder / "config.yaml", f"study: {study}\nseed: {seed}\nepochs: {epochs}\n")
    return folder


SUMMARY_OF: dict[str, Any] = {}


def manifest(name: str, identity: dict[str, Any]) -> dict[str, Any]:
    return {
        "configuration": name,
        "differs_from_defaults": identity,
        "git": {"sha": "f8cd56f5b8e471dd770068ba531d38add10cbcc4", "dirty": False},
        "versions": {"torch": "2.15.0"},
        "device": "a processor",
        "threads": 1,
        "precision": "32-true",
    }


def change_summary(folder: Path, **changes: Any) -> None:
    """Puts other values into a run's summary, NaN among them if need be."""
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
