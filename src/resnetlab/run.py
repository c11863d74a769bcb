"""Runs one configuration to its end: skips what is finished, resumes what is not, and writes the run's files."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout

from resnetlab.build import build, quiet
from resnetlab.callbacks.board import Board
from resnetlab.callbacks.checkpoints import read_checkpoint, resume_point
from resnetlab.callbacks.recorder import Recorder
from resnetlab.config import Config, to_yaml
from resnetlab.data import ImageData
from resnetlab.errors import Diverged, LabError
from resnetlab.evaluation import evaluate
from resnetlab.files import read_rows, write_json, write_text
from resnetlab.folders import RunFolder, run_folder
from resnetlab.manifest import make_manifest, model_counts
from resnetlab.module import Lab
from resnetlab.report.curves import draw_curves
from resnetlab.schedules import shortfall
from resnetlab.summary import Summary, exhausted, summarize, threshold_columns

__all__ = ["objective", "run"]


def run(config: Config) -> Summary:
    """Trains the configuration to its end, and returns its summary row.

    What is finished is not trained again, what was interrupted goes on from its last checkpoint; force starts over.
    """
    folder = run_folder(config)
    if not config.force and (done := finished(folder, config)) is not None:
        say(config, f"already {done['status']}: {folder.path} (force=true starts over)")
        return done
    with threads(config.threads), quiet():
        module, data, trainer = build(config)
        with alone(folder):
            if config.force:
                start_over(folder)
            describe(config, folder, module, data)
            status, extra = fit(config, folder, module, data, trainer)
            return conclude(config, folder, module, data, trainer, status, extra)


def objective(config: Config, summary: Summary) -> float:
    """The one number for a sweeper, to be maximised; 0 for a run that diverged."""
    return 0.0 if summary["status"] == "diverged" else float(summary[config.objective])


def finished(folder: RunFolder, config: Config) -> Summary | None:
    """The summary of a run that has come to its end, its threshold columns as `config` asks for them."""
    try:
        summary: Summary = json.loads(folder.summary.read_text())
        return {**summary, **threshold_columns(read_rows(folder.metrics), config.thresholds)}
    except (OSError, ValueError):
        return None


def describe(config: Config, folder: RunFolder, module: Lab, data: ImageData) -> None:
    """Writes config.yaml and manifest.json, and says what is going to be trained."""
    manifest = make_manifest(config, module.model, module.build_optimizer())
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, manifest)
    counts = manifest["model"]
    say(
        config,
        f"{config.model.name}: {counts['trainable_parameters']:,} trainable parameters + {counts['statistics']:,} "
        f"batch-norm statistics, {counts['convolutions']} convolutions; on {manifest['device']}, "
        f"{manifest['precision']}, {manifest['threads']} threads",
    )
    for group in manifest["optimizer_groups"]:
        say(config, "optimizer group " + ", ".join(f"{key} {value}" for key, value in group.items()))
    say(config, f"{len(data.train):,} training and {len(data.val):,} validation images; run folder {folder.path}")
    for remark in (data.note(), shortfall(config.schedule, module.span)):
        if remark:
            say(config, f"note: {remark}")


def fit(
    config: Config, folder: RunFolder, module: Lab, data: ImageData, trainer: L.Trainer
) -> tuple[str, dict[str, Any]]:
    """Trains from the last checkpoint, if there is one, to the end; (status, what to add to the summary)."""
    path, remarks = resume_point(folder)
    for remark in remarks:
        say(config, remark)
    recorder = recorder_of(trainer)
    if path is not None:
        checkpoint = read_checkpoint(path)
        rows = checkpoint["callbacks"][recorder.state_key]["rows"]
        if len(rows) >= config.epochs or exhausted(rows, config.trainer.patience):  # killed before its summary
            module.load_state_dict(checkpoint["state_dict"])
            recorder.rows = rows
            return "finished", {}
    try:
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    except Diverged as error:
        say(config, f"diverged: {error}; {len(recorder.rows)} epochs are kept")
        where = {"diverged_quantity": error.quantity, "diverged_epoch": error.epoch, "diverged_step": error.step}
        return "diverged", where
    return "finished", {}


def conclude(
    config: Config,
    folder: RunFolder,
    module: Lab,
    data: ImageData,
    trainer: L.Trainer,
    status: str,
    extra: dict[str, Any],
) -> Summary:
    """Evaluates the final weights, draws the curves and writes the summary: the last thing of a run."""
    rows = recorder_of(trainer).rows
    device, precision, classes = config.trainer.device, config.trainer.resolved_precision, len(data.class_names)
    if status == "finished" and data.test_images is not None:
        extra |= test_figures(config, folder, module, data)
    summary = summarize(config, rows, status=status, parameters=model_counts(module.model)["trainable_parameters"])
    summary |= extra
    if rows:
        draw_curves(rows, config.thresholds, f"{folder.path.parent.name}, seed {config.seed}", folder.curves)
    if status == "finished":
        _, confusion = evaluate(module, data.eval_batches(data.val, device), classes, precision, device)
        board = next(c for c in trainer.callbacks if isinstance(c, Board))  # type: ignore[attr-defined]
        board.finish(trainer, summary, confusion, data.class_names)
    write_json(folder.summary, summary)
    return summary


def test_figures(config: Config, folder: RunFolder, module: Lab, data: ImageData) -> dict[str, float]:
    """Accuracy on the untouched test images, once: of the final weights, and of those best on validation."""
    assert data.test_images is not None
    device, precision, classes = config.trainer.device, config.trainer.resolved_precision, len(data.class_names)
    figures = {}
    final = {key: value.clone() for key, value in module.state_dict().items()}
    for name, weights in (("best", read_checkpoint(folder.best)["state_dict"]), ("final", final)):
        module.load_state_dict(weights)
        result, _ = evaluate(module, data.eval_batches(data.test_images, device), classes, precision, device)
        figures[f"{name}_test_acc"] = result["acc"]
    return figures


def recorder_of(trainer: L.Trainer) -> Recorder:
    return next(c for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]


def say(config: Config, line: str) -> None:
    if config.trainer.progress != "off":
        print(line, flush=True)


@contextmanager
def alone(folder: RunFolder) -> Iterator[None]:
    """Holds the run's lock, which the system takes from a process that dies. Raises LabError if another holds it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=0):
            yield
    except Timeout:
        raise LabError(f"{folder.path} is being trained by another process; wait for it or stop it") from None


def start_over(folder: RunFolder) -> None:
    """Removes all that a run has written, but for its lock."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != folder.lock:
            path.unlink()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch's CPU threads inside; as before outside. None leaves them alone."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
