"""What the files of one run say, read again only when they have changed."""

import csv
import json
import math
import os
import re
import stat
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.files import read_rows
from resnetlab.report.asked import run_key
from resnetlab.report.runs import Row, Run, Unusable, is_number, read_manifest, read_summary

__all__ = ["Facts", "Reader", "settings"]

FILES = ("config.yaml", "manifest.json", "metrics.csv", "summary.json")
Stamps = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Facts:
    """key: the run's folder as sweeps name it. ended: finished | diverged | "". reason: what is damaged. touched: when
    a file was last written, changed: when the last row was; seconds since 1970. Unknown is None."""

    run: Run
    key: str
    ended: str = ""
    reason: str = ""
    epochs: int | None = None
    done: int = 0
    last: float | None = None
    best: float | None = None
    seconds: float | None = None
    touched: float = 0.0
    changed: float | None = None


@dataclass
class Reader:
    """Reads runs; remembers them by the times and sizes of their files."""

    known: dict[Path, tuple[Stamps, Facts]] = field(default_factory=dict)

    def __call__(self, path: Path) -> Facts | None:
        """None where the folder has vanished."""
        found = stamps(path)
        if not found and not path.is_dir():
            self.known.pop(path, None)
            return None
        if path not in self.known or self.known[path][0] != found:
            self.known[path] = found, read(path, found)
        return self.known[path][1]


def stamps(path: Path) -> Stamps:
    """Of the run's files that are files: to read from a pipe or a device would not end."""
    found = {}
    for name in FILES:
        try:
            file = os.stat(path / name)
        except OSError:
            continue
        if stat.S_ISREG(file.st_mode):
            found[name] = file.st_mtime_ns, file.st_size
    return found


def read(path: Path, found: Stamps) -> Facts:
    """Never raises for what is in the files."""
    summary: dict[str, Any] = {}
    rows: list[Row] = []
    ended, reason = "", ""
    try:
        if "summary.json" in found:
            summary = read_summary(path)
            ended = "finished"
    except Unusable as error:
        ended = "diverged" if error.kind == "diverged" else ""
        reason = error.reason if error.kind == "unreadable" else ""  # or the summary has just vanished
    try:
        if "metrics.csv" in found and ended != "finished":
            rows = read_rows(path / "metrics.csv")
            rows = [row for row in rows if isinstance(row.get("epoch"), int)]
    except (OSError, ValueError, AttributeError, TypeError, csv.Error) as error:
        reason = reason or f"metrics.csv cannot be read ({type(error).__name__})"
    run = as_run(path, found, summary)
    times = {name: time / 1e9 for name, (time, _) in found.items()}
    return Facts(
        run,
        run_key(path.absolute()),
        ended,
        reason,
        touched=max(times.values(), default=0.0),
        changed=times.get("metrics.csv"),
        **figures(run.summary, summary, rows),
    )


def figures(chosen: Mapping[str, Any], summary: Mapping[str, Any], rows: list[Row]) -> dict[str, Any]:
    """From the summary of a finished run, else from the rows."""
    epochs = number(chosen.get("epochs"))
    found: dict[str, Any] = {"epochs": None if epochs is None else int(epochs)}
    if summary:
        names = {"last": "final_val_acc", "best": "best_val_acc", "seconds": "seconds_per_epoch"}
        values = {name: number(summary.get(key)) for name, key in names.items()}
        return {**found, **values, "done": int(summary["epochs_trained"])}
    accuracies = [value for row in rows if (value := number(row.get("val/acc"))) is not None]
    times = [value for row in rows if (value := number(row.get("time/epoch"))) is not None]
    found |= {"last": accuracies[-1] if accuracies else None, "best": max(accuracies, default=None)}
    return {**found, "done": len(rows), "seconds": statistics.median(times) if times else None}


def number(value: Any) -> float | None:
    try:
        return float(value) if is_number(value) and math.isfinite(value) else None
    except OverflowError:  # JSON knows no largest number
        return None


def as_run(path: Path, found: Stamps, summary: Mapping[str, Any]) -> Run:
    """What the report's labels need; its summary holds the settings, which stand in config.yaml from the start."""
    chosen: dict[str, Any] = {}
    if "config.yaml" in found:
        with suppress(OSError, ValueError):
            chosen = settings((path / "config.yaml").read_text())
    whole = path.absolute()
    manifest = read_manifest(path) if "manifest.json" in found else {}
    seed = whole.name.removeprefix("seed=") if whole.name.startswith("seed=") else str(chosen.get("seed", ""))
    name = whole.parent.name if whole.name.startswith("seed=") else str(manifest.get("configuration", whole.name))
    study = summary.get("study") or chosen.get("study") or whole.parent.parent.name
    number_ = int(seed) if re.fullmatch(r"\d{1,18}", seed) else -1
    return Run(path, str(study), name, number_, {**chosen, **summary}, [], manifest)


def settings(text: str) -> dict[str, Any]:
    """The top-level values of a config.yaml, each group's option, and the subset. A YAML parser takes 30 times as long,
    and here are hundreds of files that OmegaConf wrote."""
    found: dict[str, Any] = {}
    group = ""
    for indent, key, value in re.findall(r"^(  )?(\w+):(?: (.*))?$", text, re.MULTILINE):
        if not indent:
            group = key
        if indent and key == "name":
            found[group] = scalar(value)
        elif indent and (group, key) == ("data", "limit"):
            found["subset"] = scalar(value)
        elif not indent and value:
            found[key] = scalar(value)
    return found


def scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")
