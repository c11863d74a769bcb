"""Run folders as the lab writes them, without training: for the tests of what reads them."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab import Config, compose
from resnetlab.config.compose import to_plain, to_yaml
from resnetlab.runs.files import read_rows, write_json, write_rows, write_text
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.load import is_finite
from resnetlab.runs.summary import FINAL, best_and_final, summarize

DEFAULTS: dict[str, Any] = {
    **{"model": "resnet56v2", "data": "cifar10", "optimizer": "adamw"},
    **{"schedule": "piecewise_linear", "regularization": "weight_decay"},
}


def synthetic_rows(epochs: int, best: float, seed: int = 0, **settings: Any) -> list[dict[str, float]]:
    """Curves that rise to about `best`; with strong decay the validation loss fluctuates in epochs 10 to 36."""
    chance = random.Random(f"{seed} {sorted(settings.items())}")
    lift, rows = chance.gauss(0, 0.0012), []
    wd, penalty = settings.get("wd") or 0.0, 1000 * (settings.get("l2") or 0.0)
    for epoch in range(1, epochs + 1):
        t = epoch / epochs
        acc = best + lift - 0.55 * math.exp(-6 * t) + chance.gauss(0, 0.02) * (1 - t)
        ce = 1.9 * math.exp(-5 * t) + 0.02
        extra = abs(chance.gauss(0, 8 * wd)) if 10 <= epoch <= 36 else 0.0
        train = {"train/loss": ce + penalty, "train/ce": ce, "train/acc": min(0.999, 1 - 0.5 * ce / 2)}
        val = {"val/loss": ce + 0.25 + extra + penalty, "val/ce": ce + 0.25 + extra, "val/acc": acc - 0.02 * extra}
        times = {"time/epoch": 31.0 + seed, "time/train": 28.0, "time/images_per_second": 50_000 / 28.0}
        rate = settings.get("lr", 8e-4) * min(1.0, 2 * (1 - t) + 0.01)
        rows.append({"epoch": epoch, "lr": rate, "momentum": 0.9, **train, **val, **times})
    return rows


def write_run(root: Path, *, study="one", seed=0, epochs=6, best=0.93, rows=None, **settings: Any) -> Path:
    """Writes one finished run, and returns its folder. settings: what differs from the defaults, as in a manifest.

    The files are written plainly: the lab's own way waits for the disk.
    """
    values = {"batch_size": 64, "lr": 8e-4, "wd": 0.2, "momentum": 0.9, "shift": 0.07, **settings}
    rows = rows or synthetic_rows(epochs, best, seed, **values)
    summary = summarize(defaults(), rows, status="finished") | {"epochs": epochs, "study": study, "seed": seed}
    summary |= {"subset": settings.get("data.limit")} | DEFAULTS | {k: v for k, v in values.items() if "." not in k}
    name = "-".join(["resnet56v2", *(f"{key}{value}" for key, value in settings.items()), "0" * 8])
    folder = root / study / name / f"seed={seed}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(rows[0]), *(",".join(map(repr, row.values())) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    differs = DEFAULTS | ({} if epochs == 60 else {"epochs": epochs}) | settings
    (folder / "manifest.json").write_text(json.dumps(manifest(name, differs)))
    (folder / "config.yaml").write_text(f"study: {study}\nseed: {seed}\nepochs: {epochs}\n")
    return folder


@cache
def defaults() -> Config:
    return compose()


def manifest(name: str, differs: dict[str, Any]) -> dict[str, Any]:
    git = {"sha": "f8cd56f5b8e471dd770068ba531d38add10cbcc4", "dirty": False}
    machine = {"versions": {"torch": "2.15.0"}, "device": "a processor", "threads": 1, "precision": "32-true"}
    return {"configuration": name, "differs_from_defaults": differs, "git": git, **machine}


def change_summary(folder: Path, **changes: Any) -> None:
    """Puts other values into a run's summary, NaN among them if need be, and the numbers into the rows they are of."""
    path, rows = folder / "summary.json", read_rows(folder / "metrics.csv")
    summary = json.loads(path.read_text()) | changes
    numbers = {key: value for key, value in changes.items() if is_finite(value)}
    if {"best_val_acc", "best_epoch"} & {*numbers} and 1 <= summary["best_epoch"] <= len(rows):
        rows = [row | {"val/acc": min(row["val/acc"], summary["best_val_acc"] - 1e-9)} for row in rows]
        rows[int(summary["best_epoch"]) - 1]["val/acc"] = summary["best_val_acc"]
    rows[-1] |= {column: numbers[key] for column in FINAL if (key := f"final_{column.replace('/', '_')}") in numbers}
    write_rows(folder / "metrics.csv", rows)
    path.write_text(
        json.dumps(summary | {k: v for k, v in best_and_final(rows).items() if k not in changes and is_finite(v)})
    )


HOLD = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"


@cache
def ten_epochs() -> Config:
    return compose("data=digits", "epochs=10", "study=some")


def begin_run(done: int, ended: str = "", **settings: Any) -> RunFolder:
    """Write a run's folder as the lab leaves it after `done` of 10 epochs of half a minute each."""
    config = replace(ten_epochs(), **settings)
    folder = config.folder
    rows = synthetic_rows(config.epochs, 0.9, config.seed)[:done]
    rows = [{**row, "time/epoch": 30.0} for row in rows]
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, {"differs_from_defaults": config.identity, "config": to_plain(config)})
    folder.lock.touch()
    if rows:
        write_rows(folder.metrics, rows)
    if ended:
        write_json(folder.summary, summarize(config, rows, status=ended))
    return folder


@contextmanager
def trained(folder: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    """Another process holds the run's lock."""
    command, pipe = [sys.executable, "-c", HOLD, str(folder.lock)], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()
