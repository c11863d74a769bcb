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

from resnetlab.config.compose import to_yaml
from resnetlab.config.identity import run_folder
from resnetlab.config.schema import Config
from resnetlab.data import ImageData, Images
from resnetlab.errors import Diverged, RunLocked, RunPruned
from resnetlab.optim.schedules import length_warning
from resnetlab.runs.curves import draw_curves
from resnetlab.runs.files import write_json, write_rows, write_text
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.load import read_manifest
from resnetlab.runs.summary import Summary, out_of_patience, summarize
from resnetlab.training.build import build, engine_of, silence_lightning
from resnetlab.training.callbacks.checkpoints import read_checkpoint, resume_point
from resnetlab.training.callbacks.profiler import steps_warning
from resnetlab.training.callbacks.recorder import Pruning, Recorder
from resnetlab.training.callbacks.tensorboard import TensorBoardPages
from resnetlab.training.distributed import is_secondary
from resnetlab.training.evaluate import evaluate, evaluate_average
from resnetlab.training.followers import threads_of, with_followers
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.manifest import changed_conditions, make_manifest, model_counts
from resnetlab.training.module import ImageClassifier
from resnetlab.training.result import EpochHook, completed, print_line, result_lines, say_missing_snapshots


def run(config: Config) -> Summary:
    """Trains the configuration to its end, and returns its summary row.

    What is finished is not trained again, what was interrupted goes on from its last checkpoint; force starts over.
    The process is as before when it returns (`contained`). Raises LabError, and KeyboardInterrupt when it is
    interrupted.
    """
    done = completed(config)
    return train(config) if done is None else done


def train(config: Config, patience: float = 0.0, watch: EpochHook | None = None) -> Summary:
    """Trains from the last checkpoint, or from the beginning, to the end.

    patience: seconds to wait for another process to let go of the run (one that was just killed takes a moment).
    watch: called with the rows after every epoch, ends the run by returning True. Raises Busy and Pruned.
    """
    folder = run_folder(config)
    with preserve_process_state(threads_of(config.threads, config.trainer.devices)), silence_lightning():
        module, data, trainer = build(config)
        if watch is not None:
            trainer.callbacks.append(Pruning(recorder_of(trainer), watch))  # type: ignore[attr-defined]
        with run_lock(folder, patience):
            folder.remove_leftovers()
            if config.force:
                start_over(folder)
            elif patience and (done := completed(config)) is not None:  # by the one that was waited for
                return done
            checkpoint, remarks = resume_point(folder, config)
            describe(config, folder, module, data, resumed=checkpoint is not None)
            for remark in remarks:
                print_line(config, remark)
            status, extra = fit(config, module, data, trainer, checkpoint)
            trained = len(recorder_of(trainer).rows)
            if status == "finished" and trained < config.epochs:
                waited = config.trainer.patience
                print_line(config, f"stopped early after epoch {trained}: no new best val_acc for {waited}")
            say_missing_snapshots(config, folder, trained)
            return conclude(config, folder, module, data, trainer, status, extra)


def follow(config: Config) -> None:
    """Trains with the first process of a run on several devices, which holds the lock and writes."""
    with preserve_process_state(config.threads), silence_lightning():
        module, data, trainer = build(config)
        checkpoint, _ = resume_point(run_folder(config), config)
        fit(config, module, data, trainer, checkpoint)


def describe(config: Config, folder: RunFolder, module: ImageClassifier, data: ImageData, resumed: bool) -> None:
    """Writes config.yaml and manifest.json, and says what is going to be trained."""
    manifest = make_manifest(config, module.model, module.build_optimizer())
    manifest["engine"] = module.engine_name
    if resumed and (earlier := read_manifest(folder.path)):
        manifest["earlier"] = [*earlier.pop("earlier", []), earlier]
        if changed := changed_conditions(earlier, manifest):
            print_line(config, f"note: resumed under other conditions ({changed}); equality to the bit is not promised")
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, manifest)
    counts = manifest["model"]
    print_line(
        config,
        f"{config.model.name}: {counts['trainable_parameters']:,} trainable parameters + {counts['statistics']:,} "
        f"batch-norm statistics, {counts['convolutions']} convolutions; on "
        f"{f'{config.trainer.devices} x ' if config.trainer.devices > 1 else ''}{manifest['device']}, "
        f"{manifest['precision']}, engine: {manifest['engine']}, threads: {manifest['threads']}",
    )
    for group in manifest["optimizer_groups"]:
        print_line(
            config,
            f"optimizer group {group['name']}: {group['tensors']} tensors, {group['parameters']:,} parameters, "
            f"wd {group['wd']:g}",
        )
    images = f"{len(data.train):,} training and {len(data.val):,} validation images"
    print_line(config, f"{images}; run folder {folder.path}")
    short = steps_warning(config.trainer.profile, module.span.steps_per_epoch)
    for remark in (engine_of(config)[1], data.subset_warning(), length_warning(config.schedule, module.span), short):
        if remark:
            print_line(config, f"note: {remark}")


def fit(
    config: Config, module: ImageClassifier, data: ImageData, trainer: L.Trainer, checkpoint: Path | None
) -> tuple[str, dict[str, Any]]:
    """Trains from the checkpoint, if there is one, to the end; (status, what to add to the summary)."""
    recorder = recorder_of(trainer)
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)
        rows = content["callbacks"][recorder.state_key]["rows"]
        if len(rows) >= config.epochs or out_of_patience(rows, config.trainer.patience):  # killed before its summary
            module.load_state_dict(content["state_dict"])
            recorder.rows = rows
            return "finished", {}
    try:
        with nullcontext() if is_secondary() else with_followers(run_folder(config).config, config.trainer.devices):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Diverged as error:
        if trainer.is_global_zero:
            print_line(config, f"diverged: {error}; epochs kept: {len(recorder.rows)}")
        where = {"diverged_quantity": error.quantity, "diverged_epoch": error.epoch, "diverged_step": error.step}
        return "diverged", where
    except RunPruned as stop:
        print_line(config, f"pruned {stop}; this configuration by itself goes on from there")
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
    module: ImageClassifier,
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
        board = next(c for c in trainer.callbacks if isinstance(c, TensorBoardPages))  # type: ignore[attr-defined]
        board.finish(trainer, summary, confusion, data.class_names)
    write_json(folder.summary, summary)
    for line in result_lines(folder, summary):
        print_line(config, line)
    return summary


def planned_rates(module: ImageClassifier, epochs: int) -> list[tuple[float, float]]:
    """(epochs done, lr) at up to a thousand steps of the first `epochs`; nothing where lr depends on the figures."""
    if module.schedule.stateful:
        return []
    per_epoch = module.span.steps_per_epoch
    steps = range(0, epochs * per_epoch, max(1, epochs * per_epoch // 1000))
    return [(k / per_epoch, float(module.timetable[k, 0])) for k in steps]


def test_figures(
    config: Config, folder: RunFolder, module: ImageClassifier, data: ImageData, test_images: Images, epoch: int
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
def run_lock(folder: RunFolder, patience: float = 0.0) -> Iterator[None]:
    """Holds the run's lock, which the system takes from a process that dies.

    Raises Busy if another process still holds it after `patience` seconds.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=patience):
            yield
    except Timeout:
        raise RunLocked(f"{folder.path} is being trained by another process; wait for it or stop it") from None


def start_over(folder: RunFolder) -> None:
    """Removes all that a run has written, but for its lock."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != folder.lock:
            path.unlink()
