"""Read and validate the files of finished runs; the reason where a run cannot be used."""

import csv
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.errors import ConfigError
from resnetlab.runs.files import read_json, read_rows, read_text
from resnetlab.runs.layout import CONFIG, MANIFEST, METRICS, RUN_FILES, SEED, SUMMARY
from resnetlab.runs.summary import CHOICES, SETTINGS, Row, Summary, best_and_final

NEEDED = ("epoch", "lr", "train/loss", "train/ce", "train/acc", "val/loss", "val/ce", "val/acc")
COUNTS = ("seed", "epochs", "epochs_trained")
TOO_LARGE = 2**63  # for a seed or a number of epochs; JSON knows no largest number
GROUPS = ("model", "data", "optimizer", "schedule", "regularization")


class UnusableRun(Exception):
    """A run that cannot be in the statistics. kind: diverged | unfinished | unreadable | repeated."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass
class Run:
    """A run as the report takes it.

    metrics: every finite number of its summary, and what report/derive.py adds; what is unknown is absent.
    remarks: sentences on what was left out of it. manifest: {} where it cannot be read.
    """

    path: Path
    study: str
    configuration: str
    seed: int
    summary: Summary
    rows: list[Row]
    manifest: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def read_run(path: Path) -> Run:
    """A finished run. Raises UnusableRun with the reason for anything else."""
    summary = read_summary(path)
    if summary["status"] == "diverged":
        where = summary.get("diverged_quantity")
        reason = f"diverged in epoch {summary.get('diverged_epoch')}" + (f": {where} is not finite" if where else "")
        raise UnusableRun("diverged", reason)
    try:
        rows, remarks = read_metrics(path, summary)
    except OverflowError:
        raise UnusableRun("unreadable", "a number in it is too large for any computer") from None
    broken = sorted(key for key, value in summary.items() if isinstance(value, float) and not math.isfinite(value))
    if broken:
        remarks.append(f"{SUMMARY} has NaN or infinity in {', '.join(broken)}: taken as unknown")
    manifest = read_manifest(path)
    if not manifest:
        remarks.append(f"no {MANIFEST} that can be read: commit and machine unknown, not compared in pairs")
    numbers = {k: v for k, v in summary.items() if is_finite(v)}
    configuration = configuration_of(path, manifest)
    return Run(path, summary["study"], configuration, summary["seed"], summary, rows, manifest, remarks, numbers)


def configuration_of(path: Path, manifest: dict[str, Any]) -> str:
    """The configuration's name: that of the folder above, or the manifest's for a run that was moved elsewhere."""
    return path.parent.name if path.name.startswith(SEED) else str(manifest.get("configuration", path.name))


def read_summary(path: Path, manifest: Mapping[str, Any] | None = None) -> Summary:
    """The summary of a run that has ended: finished or diverged.

    Raises UnusableRun: unfinished where there is none, unreadable where it is damaged or not a run's.
    """
    try:
        summary = read_json(path / SUMMARY)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableRun("unfinished", progress(path)) from None
    except (OSError, ValueError) as error:
        raise UnusableRun("unreadable", f"{SUMMARY} cannot be read ({type(error).__name__})") from None
    for problem in summary_problems(summary):
        raise UnusableRun("unreadable", f"{SUMMARY} is not a run's: {problem}")
    if summary["status"] not in ("finished", "diverged"):
        raise UnusableRun("unreadable", f"{SUMMARY} has the unknown status {summary['status']!r}")
    manifest = read_manifest(path) if manifest is None else manifest
    recorded = manifest.get("differs_from_defaults", {}) | settings_of(manifest.get("config", {}))
    for key in sorted({*recorded} & {*summary} - {"study"}):  # a study's folder may be copied
        if recorded[key] != summary[key]:
            reason = f"{key} is {summary[key]!r:.40}, in {MANIFEST} {recorded[key]!r:.40}"
            raise UnusableRun("unreadable", f"{SUMMARY} is another run's: {reason}")
    return dict(summary)


def summary_problems(summary: Any) -> Sequence[str]:
    """Keys of a run's summary that are missing or have impossible values, as "key is value"."""
    if not isinstance(summary, dict):
        return ["it holds no object"]
    valid: dict[str, Callable[[Any], bool]] = dict.fromkeys(("status", "study"), lambda value: isinstance(value, str))
    if summary.get("status") != "diverged":  # which may have ended before its first epoch
        valid |= {**dict.fromkeys(COUNTS, is_count), **dict.fromkeys(GROUPS, valid["study"])}
        valid |= {"best_val_acc": is_accuracy, "final_val_acc": is_accuracy, "best_epoch": is_number}
    return [f"{key} is {summary.get(key)!r:.40}" for key, is_valid in valid.items() if not is_valid(summary.get(key))]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    return is_number(value) and abs(value) <= sys.float_info.max  # JSON knows no largest number


def is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and is_number(value) and least <= value < TOO_LARGE


def is_accuracy(value: Any) -> bool:
    """Whether it is NaN or in 0 to 1."""
    return is_number(value) and (value != value or 0 <= value <= 1)


def progress(path: Path) -> str:
    """A sentence on how far a run without a summary is."""
    try:
        done = read_text(path / METRICS).count("\n") - 1
    except (OSError, UnicodeDecodeError):
        return "not finished: no epoch is written yet"
    epochs = planned_epochs(path, read_manifest(path))
    return f"not finished: {done} of {epochs or 'an unknown number of'} epochs are written"


def planned_epochs(path: Path, manifest: dict[str, Any]) -> int | None:
    """The epochs that the run is to have: from its manifest, for runs of before it held them from config.yaml."""
    epochs = manifest.get("config", {}).get("epochs")
    if is_count(epochs, 1):
        return int(epochs)
    try:
        found = re.search(r"^epochs: (\d{1,18})$", read_text(path / CONFIG), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) if found else None


def read_metrics(path: Path, summary: Summary) -> tuple[list[Row], list[str]]:
    """(rows, remarks on what is left out of them). Raises UnusableRun unless all of the summary's epochs are there."""
    file, epochs = path / METRICS, summary["epochs_trained"]
    try:
        rows = read_rows(file)
        whole = file.read_bytes().endswith(b"\n")
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise UnusableRun("unreadable", f"{METRICS} cannot be read ({type(error).__name__})") from None
    numbered = [row.get("epoch") for row in rows] == list(range(1, len(rows) + 1)) and len(rows) == epochs
    if not (whole and rows and numbered and all(key in row for row in rows for key in NEEDED)):
        raise UnusableRun("unreadable", f"{METRICS} is cut off or damaged: {len(rows)} rows for {epochs} epochs")
    for key, value in best_and_final(rows).items():
        if is_finite(value) and is_finite(summary.get(key)) and value != summary[key]:
            reason = f"{key} is {value}, in {SUMMARY} {summary[key]}"
            raise UnusableRun("unreadable", f"{METRICS} is another run's: {reason}")
    broken = [(int(row["epoch"]), key) for row in rows for key, value in row.items() if not math.isfinite(value)]
    if not broken:
        return rows, []
    numbers = sorted({epoch for epoch, _ in broken})
    shown = ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")
    remark = f"NaN or infinity in {', '.join(sorted({key for _, key in broken}))} of epochs {shown}: left out of curves"
    return [{key: value for key, value in row.items() if math.isfinite(value)} for row in rows], [remark]


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest; {} where there is none that can be read, or its parts are not what the lab writes."""
    try:
        manifest = read_json(path / MANIFEST)
    except (OSError, ValueError):
        return {}
    parts = ("model", "config", "digests")
    usable = isinstance(manifest, dict) and all(isinstance(manifest.get(key, {}), dict) for key in parts)
    return manifest if usable and is_valid_identity(manifest.get("differs_from_defaults")) else {}


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's config under the keys of a summary; {} of a run from before manifests held it."""
    parts = {key: config[key] for key in CHOICES if isinstance(config.get(key), dict)}
    found = {key: part["name"] for key, part in parts.items() if "name" in part}
    found |= {key: config[key] for key in SETTINGS if key in config}
    return found | ({"subset": parts["data"].get("limit")} if "data" in parts else {})


def is_valid_identity(identity: Any) -> bool:
    """Whether the keys that are worked with have the types that config/identity.py writes."""
    if not isinstance(identity, dict) or not all(isinstance(identity.get(group), str) for group in GROUPS):
        return False
    if not all(is_count(identity.get(key, 1), 1) for key in ("epochs", "model.depth")):
        return False
    points = identity.get("schedule.milestones", [0] if identity["schedule"] == "multistep" else [[0, 1]])
    if identity["schedule"] == "multistep":  # whose milestones are epochs alone
        points = [[point, 1] for point in points] if isinstance(points, list) else None
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    return pairs and len(points) > 0 and all(is_number(number) for point in points for number in point)


def require_folders(folders: Iterable[Path]) -> None:
    """Raises ConfigError for what is no folder."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; name one that holds runs, such as outputs")


def run_paths(folders: Iterable[Path]) -> list[Path]:
    """All runs below the folders, each once: folders named seed=*, and others with config.yaml and another file."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for folder in folders:
        for root, below, files in os.walk(folder, followlinks=True):
            place = os.path.realpath(root)
            if place in seen:  # a link to what was read, or to a folder above
                if place in found and os.path.basename(root).startswith(SEED) and not os.path.islink(root):
                    found[place] = Path(root)  # its own place, after a link of a report's below the same folder
                below.clear()
                continue
            seen.add(place)
            moved = CONFIG in files and len({*RUN_FILES} & {*files}) > 1
            if moved or os.path.basename(root).startswith(SEED):
                found.setdefault(place, Path(root))
                below.clear()
            below[:] = sorted(name for name in below if not name.startswith("."))
    return list(found.values())
