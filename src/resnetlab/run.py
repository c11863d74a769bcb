"""Runs one configuration to its end: skips what is finished, resumes what is not, and writes the run's files."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from filelock import FileLock, Timeout
from lightning.pytorch.utilities.exceptions import SIGTERMException

from resnetlab.build import build, engine, quiet
from resnetlab.callbacks.board import Board
from resnetlab.callbacks.checkpoints import read_checkpoint, resume_point
from resnetlab.callbacks.profile import shortage
from resnetlab.callbacks.pruning import Pruning
from resnetlab.callbacks.recorder import Recorder
from resnetlab.completion import Watch, completed, result_lines, say, say_missing_snapshots
from resnetlab.config import Config, to_yaml
from resnetlab.containment import contained
from resnetlab.data import ImageData, Images
from resnetlab.errors import Busy, Diverged, Pruned
from resnetlab.evaluation import evaluate, evaluate_average
from resnetlab.files import write_json, write_rows, write_text
from resnetlab.folders import RunFolder, run_folder
from resnetlab.followers import threads_of, together
from resnetlab.manifest import changed_conditions, make_manifest, model_counts, read_manifest
from resnetlab.module import Lab
from resnetlab.ranks import follows
from resnetlab.report.curves import draw_curves
from resnetlab.schedules import shortfall
from resnetlab.summary import Summary, exhausted, summarize

__all__ = ["alone", "run", "train"]


def run(config: Config) -> Summary:
    """Trains the configuration to its end, and returns its summary row.

    What is finished is not trained again, what was interrupted goes on from its last checkpoint; force starts over.
    The process is as before when it returns (`contained`). Raises LabError, and KeyboardInterrupt when it is
    interrupted.
    """
    done = completed(config)
    return train(config) if done is None else done


def train(config: Config, patience: float = 0.0, watch: Watch | None = None) -> Summary:
    """Trains from the last checkpoint, or from the beginning, to the end.

    patience: seconds to wait for another process to let go of the run (one that was just killed takes a moment).
    watch: called with the rows after every epoch, ends the run by returning True. Raises Busy and Pruned.
    """
    folder = run_folder(config)
    with contained(threads_of(config.threads, config.trainer.devices)), quiet():
        module, data, trainer = build(config)
        if watch is not None:
            trainer.callbacks.append(Pruning(recorder_of(trainer), watch))  # type: ignore[attr-defined]
        with alone(folder, patience):
            folder.remove_leftovers()
            if config.force:
                start_over(folder)
            elif patience and (done := completed(config)) is not None:  # by the one that was waited for
                return done
            checkpoint, remarks = resume_point(folder, config)
            describe(config, folder, module, data, resumed=checkpoint is not None)
            for remark in remarks:
                say(config, remark)
            status, extra = fit(config, module, data, trainer, checkpoint)
            trained = len(recorder_of(trainer).rows)
            if status == "finished" and trained < config.epochs:
                say(config, f"stopped early after epoch {trained}: no new best val_acc for {config.trainer.patience}")
            say_missing_snapshots(config, folder, trained)
            return conclude(config, folder, module, data, trainer, status, extra)


def follow(config: Config) -> None:
    """Trains with the first process of a run on several devices, which holds the lock and writes."""
    with contained(config.threads), quiet():
        module, data, trainer = build(config)
        checkpoint, _ = resume_point(run_folder(config), config)
        fit(config, module, data, trainer, checkpoint)


def describe(config: Config, folder: RunFolder, module: Lab, data: ImageData, resumed: bool) -> None:
    """Writes config.yaml and manifest.json, and says what is going to be trained."""
    manifest = make_manifest(config, module.model, module.build_optimizer())
    manifest["engine"] = module.engine_name
    if resumed and (earlier := read_manifest(folder)):
        manifest["earlier"] = [*earlier.pop("earlier", []), earlier]
        if changed := changed_conditions(earlier, manifest):
            say(config, f"note: resumed under other conditions ({changed}); equality to the bit is not promised")
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, manifest)
    counts = manifest["model"]
    say(
        config,
        f"{config.model.name}: {counts['trainable_parameters']:,} trainable parameters + {counts['statistics']:,} "
        f"batch-norm statistics, {counts['convolutions']} convolutions; on "
        f"{f'{config.trainer.devices} x ' if config.trainer.devices > 1 else ''}{manifest['device']}, "
        f"{manifest['precision']}, engine: {manifest['engine']}, threads: {manifest['threads']}",
    )
    for group in manifest["optimizer_groups"]:
        say(
            config,
            f"optimizer group {group['name']}: {group['tensors']} tensors, {group['parameters']:,} parameters, "
            f"wd {group['wd']:g}",
        )
    say(config, f"{len(data.train):,} training and {len(data.val):,} validation images; run folder {folder.path}")
    short = shortage(config.trainer.profile, module.span.steps_per_epoch)
    for remark in (engine(config)[1], data.note(), shortfall(config.schedule, module.span), short):
        if remark:
            say(config, f"note: {remark}")


def fit(
    config: Config, module: Lab, data: ImageData, trainer: L.Trainer, checkpoint: Path | None
) -> tuple[str, dict[str, Any]]:
    """Trains from the checkpoint, if there is one, to the end; (status, what to add to the summary)."""
    recorder = recorder_of(trainer)
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)
        rows = content["callbacks"][recorder.state_key]["rows"]
        if len(rows) >= config.epochs or exhausted(rows, config.trainer.patience):  # killed before its summary
            module.load_state_dict(content["state_dict"])
            recorder.rows = rows
            return "finished", {}
    try:
        with nullcontext() if follows() else together(run_folder(config).config, config.trainer.devices):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Diverged as error:
        if trainer.is_global_zero:
            say(config, f"diverged: {error}; epochs kept: {len(recorder.rows)}")
        where = {"diverged_quantity": error.quantity, "diverged_epoch": error.epoch, "diverged_step": error.step}
        return "diverged", where
    except Pruned as stop:
        say(config, f"pruned {stop}; this configuration by itself goes on from there")
        raise
    except SIGTERMException:  # Lightning's, with the exit status of success
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):  # of a signal's handler, such as submitit's
            raise
        # Lightning's answer to Ctrl-C, after which it ignores the next one
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
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
    write_rows(folder.metrics, rows)
    if status == "finished" and data.test_images is not None:
        extra |= test_figures(config, folder, module, data, data.test_images, int(rows[-1]["epoch"]))
    summary = summarize(config, rows, status=status, parameters=model_counts(module.model)["trainable_parameters"])
    summary |= extra
    if rows:
        title = f"{folder.path.parent.name}, seed {config.seed}"
        sign, since = summary["fit_sign"], summary["overfitting_since"]
        draw_curves(rows, config.thresholds, title, folder.curves, planned_rates(module, len(rows)), sign, since)
    if status == "finished":
        _, confusion = evaluate(module, data, data.val, config.trainer.device)
        board = next(c for c in trainer.callbacks if isinstance(c, Board))  # type: ignore[attr-defined]
        board.finish(trainer, summary, confusion, data.class_names)
    write_json(folder.summary, summary)
    for line in result_lines(folder, summary):
        say(config, line)
    return summary


def planned_rates(module: Lab, epochs: int) -> list[tuple[float, float]]:
    """(epochs done, lr) at up to a thousand steps of the first `epochs`; nothing where lr depends on the figures."""
    if module.schedule.stateful:
        return []
    per_epoch = module.span.steps_per_epoch
    steps = range(0, epochs * per_epoch, max(1, epochs * per_epoch // 1000))
    return [(k / per_epoch, float(module.timetable[k, 0])) for k in steps]


def test_figures(
    config: Config, folder: RunFolder, module: Lab, data: ImageData, test_images: Images, epoch: int
) -> dict[str, float]:
    """Accuracy on the untouched test images, once: of the weights best on validation, the final and the average."""
    figures = {}
    final = {key: value.clone() for key, value in module.state_dict().items()}
    for name, weights in (("best", read_checkpoint(folder.best)["state_dict"]), ("final", final)):
        module.load_state_dict(weights)
        result, _ = evaluate(module, data, test_images, config.trainer.device)
        figures[f"{name}_test_acc"] = result["acc"]
    if module.averaged:
        result, _ = evaluate_average(module, data, test_images, config.trainer.device, epoch)
        figures["averaged_test_acc"] = result["acc"]
    return figures


def recorder_of(trainer: L.Trainer) -> Recorder:
    return next(c for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]


@contextmanager
def alone(folder: RunFolder, patience: float = 0.0) -> Iterator[None]:
    """Holds the run's lock, which the system takes from a process that dies.

    Raises Busy if another process still holds it after `patience` seconds.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=patience):
            yield
    except Timeout:
        raise Busy(f"{folder.path} is being trained by another process; wait for it or stop it") from None


def start_over(folder: RunFolder) -> None:
    """Removes all that a run has written, but for its lock."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != folder.lock:
            path.unlink()
