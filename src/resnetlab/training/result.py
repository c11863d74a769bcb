"""The result of a run from its files, without Lightning: whose it is, whether it has ended, the lines printed of it."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.errors import LabError
from resnetlab.runs.layout import MANIFEST, METRICS, PREDICTIONS, SEED, SUMMARY, RunFolder
from resnetlab.runs.load import UnusableRun, is_accuracy, read_manifest, read_metrics, read_summary
from resnetlab.runs.summary import Row, Summary, threshold_columns
from resnetlab.training.distributed import is_secondary

STUDY = "name another study"
CURE = f"{STUDY}, or start over with force=true"
SHOWN = (
    *("best_epoch", "best_val_acc", "final_val_acc", "final_test_acc"),
    *("final_val_acc_avg", "fit_sign", "seconds_per_epoch", "energy_wh"),
)
EpochHook = Callable[[Sequence[Row]], bool]  # called with a run's rows after every epoch; True ends it


def completed(config: Config) -> Summary | None:
    """The summary of a run that need not be trained, which is said; None if there is something to do.

    Raises LabError for a folder that holds another run.
    """
    if config.force:
        return None
    folder = config.folder
    refuse_other_run(folder, config)
    done = finished(folder, config)
    if done is None:
        if os.path.exists(folder.summary):
            damaged = f"{SUMMARY}, {METRICS} or {MANIFEST} is another run's or is damaged"
            print_line(config, f"{folder.path}: {damaged}; made again from the last checkpoint")
        return None
    print_line(config, f"already {done['status']}: {folder.path} (force=true starts over)")
    if config.predictions and done["status"] == "finished" and not (folder.path / PREDICTIONS).exists():
        print_line(config, f"note: no {PREDICTIONS} yet; make it: resnetlab evaluate {folder.last} --out {folder.path}")
    if config.trainer.profile is not None:
        print_line(config, f"note: trainer.profile={config.trainer.profile} records nothing: nothing is trained")
    return done


def refuse_other_run(folder: RunFolder, config: Config) -> None:
    """Raises LabError if the folder is another run's: copied, renamed, or of a hash that happens to be equal.

    By its manifest; where there is none, or force is to replace it, by that of the next seed's folder.
    """
    manifest, place = {} if config.force else read_manifest(folder.path), folder.path
    seed, cure = (recorded_seed(folder, manifest, config.seed), CURE) if manifest else (config.seed, STUDY)
    for place in () if manifest else sorted(set(folder.path.parent.glob(f"{SEED}*")) - {folder.path}):
        if manifest := read_manifest(place):
            break
    present = json.loads(json.dumps(config.identity)) | {"seed": config.seed}
    recorded = manifest.get("differs_from_defaults", present) | {"seed": seed}
    if keys := sorted(key for key in {*recorded, *present} if recorded.get(key) != present.get(key)):
        values = [[part.get(key, "at its default") for part in (recorded, present)] for key in keys]
        texts = [list(map(str if str(there) != str(here) else repr, (there, here))) for there, here in values]
        pairs = [f"{key} is {there:.60}, not {here:.60}" for key, (there, here) in zip(keys[:3], texts, strict=False)]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise LabError(f"{place} belongs to another run ({', '.join(pairs)}{more}); {cure}")
    if not config.force:
        refuse_other_code(place, manifest.get("digests", {}), config, cure)


def recorded_seed(folder: RunFolder, manifest: Mapping[str, Any], unknown: int) -> Any:
    """The seed in the manifest, or in the summary for a manifest that has none."""
    config = manifest.get("config", {})
    try:
        return config["seed"] if "seed" in config else read_summary(folder.path).get("seed", unknown)
    except UnusableRun:
        return unknown


def refuse_other_code(place: Path, digests: Mapping[str, str], config: Config, cure: str = CURE) -> None:
    """Raises LabError if the user's own code is not what `place` was trained with."""
    for name, now in config.code_digests.items():
        if digests.get(name, now) != now:
            value = getattr(config, name)
            key = f"{name}.function (={value.function})" if hasattr(value, "function") else f"{name} (={value})"
            what = f"learning rates than {key} makes" if name == "schedule" else f"code than {key} has"
            raise LabError(f"{place} was trained with other {what} now; restore it, {cure}")


def finished(folder: RunFolder, config: Config) -> Summary | None:
    """The summary of a run that has come to its end, its threshold columns as `config` asks for them."""
    try:
        summary = read_summary(folder.path, manifest := read_manifest(folder.path))
        rows = read_metrics(folder.path, summary)[0] if summary["epochs_trained"] else []  # none: diverged in its first
        whole = {**summary, **threshold_columns(rows, config.thresholds)}
        value = 0.0 if summary["status"] == "diverged" else summary[config.objective]
        usable = value is None or (is_accuracy(value) and value == value)  # a sweeper learns from no NaN
        return whole if usable and manifest else None  # without a manifest, whose run is it?
    except (OSError, UnusableRun, ValueError, KeyError, TypeError, AttributeError):  # cut or overwritten
        return None


def objective(config: Config, summary: Summary) -> float:
    """The one number for a sweeper, to be maximised; 0 for a run that diverged or has no such metric."""
    value = None if summary["status"] == "diverged" else summary[config.objective]
    return 0.0 if value is None else float(value)  # stopped early, before there was an average


def result_lines(folder: RunFolder, summary: Summary) -> list[str]:
    """The result row as a person reads it, and where everything is."""
    columns = [key for key in summary if key.startswith("epoch_to_")]
    reached = {key: "never" if summary[key] is None else summary[key] for key in columns}
    shown = reached | {key: summary[key] for key in SHOWN if summary[key] is not None}
    metrics = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()]
    profile = f"profile: {folder.trace} (open it at ui.perfetto.dev), {folder.operations}"
    return [
        f"{summary['status']}: " + "  ".join(metrics),
        *([f"curves: {folder.curves}", f"checkpoints: {folder.best}, {folder.last}"] if folder.last.exists() else []),
        *([profile] if folder.trace.exists() else []),
        *([f"TensorBoard: tensorboard --logdir {folder.path}"] if any(folder.path.glob("events.out*")) else []),
    ]


def print_line(config: Config, line: str) -> None:
    """Prints it, in the first process alone, unless trainer.progress=off."""
    if config.trainer.progress != "off" and not is_secondary():
        say(line)
