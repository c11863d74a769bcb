"""Reads one run's folder, or says why it cannot be used."""

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.runs.files import read_rows
from resnetlab.runs.summary import Row

NEEDED = ("epoch", "lr", "train/loss", "train/ce", "train/acc", "val/loss", "val/ce", "val/acc")
COUNTS = ("seed", "epochs", "epochs_trained")
MOST = 2**63  # of a seed; JSON knows no largest number
GROUPS = ("model", "data", "optimizer", "schedule", "regularization")


class UnusableRun(Exception):
    """A run that cannot be in the statistics. kind: diverged | unfinished | unreadable | repeated."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass
class Run:
    """A finished run. figures: every finite number of its summary, and what derive.py adds; what is unknown is absent.

    remarks: what was left out of it, in words. manifest: {} where it cannot be read.
    """

    path: Path
    study: str
    configuration: str
    seed: int
    summary: dict[str, Any]
    rows: list[Row]
    manifest: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def read_run(path: Path) -> Run:
    """Raises Unusable with the reason for whatever is not a finished run of the lab."""
    summary = read_summary(path)
    rows, remarks = read_metrics(path, summary["epochs_trained"])
    broken = sorted(key for key, value in summary.items() if isinstance(value, float) and not math.isfinite(value))
    if broken:
        remarks.append(f"summary.json has NaN or infinity in {', '.join(broken)}: taken as unknown")
    manifest = read_manifest(path)
    if not manifest:
        remarks.append("no manifest.json that can be read: commit and machine unknown, not compared in pairs")
    name = str(manifest.get("configuration", path.name)) if not path.name.startswith("seed=") else path.parent.name
    numbers = {k: v for k, v in summary.items() if is_number(v) and math.isfinite(v)}
    return Run(path, summary["study"], name, summary["seed"], summary, rows, manifest, remarks, numbers)


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a finished run."""
    try:
        summary = json.loads((path / "summary.json").read_text())
    except FileNotFoundError:
        raise UnusableRun("unfinished", progress(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableRun("unreadable", f"summary.json cannot be read ({type(error).__name__})") from None
    for complaint in summary_problems(summary):
        raise UnusableRun("unreadable", f"summary.json is not a run's: {complaint}")
    if summary["status"] == "diverged":
        where = summary.get("diverged_quantity")
        reason = f"diverged in epoch {summary.get('diverged_epoch')}" + (f": {where} is not finite" if where else "")
        raise UnusableRun("diverged", reason)
    if summary["status"] != "finished":
        raise UnusableRun("unreadable", f"summary.json has the unknown status {summary['status']!r}")
    return dict(summary)


def summary_problems(summary: Any) -> Sequence[str]:
    """What a run's summary must have and this one has not."""
    if not isinstance(summary, dict):
        return ["it holds no object"]
    diverged = summary.get("status") == "diverged"  # which may have ended before its first epoch
    wanted: dict[str, type | tuple[type, ...]] = {"status": str, "study": str}
    if not diverged:
        wanted |= {**dict.fromkeys(COUNTS, int), **dict.fromkeys(GROUPS, str)}
        wanted |= dict.fromkeys(("best_val_acc", "final_val_acc", "best_epoch"), (int, float))
    wrong = [key for key, kind in wanted.items() if not is_a(summary.get(key), kind)]
    if not diverged:
        wrong += [key for key in ("best_val_acc", "final_val_acc") if key not in wrong and not is_share(summary[key])]
        wrong += [key for key in COUNTS if key not in wrong and not 0 <= summary[key] < MOST]
    return [f"{key} is {summary.get(key)!r:.40}" for key in wrong]


def is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def is_share(value: float) -> bool:
    return math.isnan(value) or 0 <= value <= 1


def progress(path: Path) -> str:
    """How far a run without a summary is, as far as its files tell."""
    try:
        epochs = re.search(r"^epochs: (\d+)", (path / "config.yaml").read_text(), re.MULTILINE)
        done = (path / "metrics.csv").read_text().count("\n") - 1
    except (OSError, UnicodeDecodeError):
        return "not finished: no epoch is written yet"
    return f"not finished: {done} of {epochs[1] if epochs else 'an unknown number of'} epochs are written"


def read_metrics(path: Path, epochs: int) -> tuple[list[Row], list[str]]:
    """The rows, and remarks on what is missing in them. Raises Unusable unless all epochs are there."""
    file = path / "metrics.csv"
    try:
        rows = read_rows(file)
        whole = file.read_bytes().endswith(b"\n")
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise UnusableRun("unreadable", f"metrics.csv cannot be read ({type(error).__name__})") from None
    numbered = [row.get("epoch") for row in rows] == list(range(1, len(rows) + 1)) and len(rows) == epochs
    if not (whole and rows and numbered and all(key in row for row in rows for key in NEEDED)):
        raise UnusableRun("unreadable", f"metrics.csv is cut off or damaged: {len(rows)} rows for {epochs} epochs")
    broken = [(int(row["epoch"]), key) for row in rows for key, value in row.items() if not math.isfinite(value)]
    if not broken:
        return rows, []
    numbers = sorted({epoch for epoch, _ in broken})
    shown = ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
    remark = f"NaN or infinity in {', '.join(sorted({key for _, key in broken}))} of epochs {shown}: left out of curves"
    return [{key: value for key, value in row.items() if math.isfinite(value)} for row in rows], [remark]


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest; {} where there is none that can be read."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    usable = isinstance(manifest, dict) and isinstance(manifest.get("model", {}), dict)
    return manifest if usable and is_valid_row(manifest.get("differs_from_defaults")) else {}


def is_valid_row(identity: Any) -> bool:
    """Whether it can be what folders.identity makes: its keys that are worked with have their types."""
    if not isinstance(identity, dict) or not all(isinstance(identity.get(group), str) for group in GROUPS):
        return False
    whole = [identity.get(key, 1) for key in ("epochs", "model.depth")]
    milestones = identity.get("schedule.milestones", [[0, 1]])
    return (
        all(is_a(value, int) and 0 < value < MOST for value in whole)
        and isinstance(milestones, list)
        and len(milestones) > 0
        and all(isinstance(point, list) and len(point) == 2 and all(map(is_number, point)) for point in milestones)
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def run_paths(folders: Iterable[Path]) -> list[Path]:
    """Folders named seed=*, and any other with a config.yaml beside a run's files; each once."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for folder in folders:
        for root, below, files in os.walk(folder, followlinks=True):
            place = os.path.realpath(root)
            if place in seen:  # a link to what was read, or to a folder above
                below.clear()
                continue
            seen.add(place)
            kept = "config.yaml" in files and {"summary.json", "metrics.csv", "manifest.json"} & set(files)
            if kept or os.path.basename(root).startswith("seed="):
                found.setdefault(place, Path(root))
                below.clear()
            below[:] = sorted(name for name in below if not name.startswith("."))
    return list(found.values())
