"""Runs one configuration to its end: skips what is finished, resumes what is not, and writes the run's files."""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from resnetlab.config.schema import Config
from resnetlab.errors import DataError, Diverged, LabError, RunLocked, RunPruned
from resnetlab.runs.layout import PREDICTIONS, RUN_FILES, RunFolder
from resnetlab.runs.summary import Summary, out_of_patience
from resnetlab.training.build import Session, build_session
from resnetlab.training.callbacks.checkpoints import read_checkpoint, refuse_link_to_other_run, resume_point
from resnetlab.training.conclude import conclude
from resnetlab.training.describe import describe, make_manifest
from resnetlab.training.distributed import decide_once, process_group
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.lightning_internals import python_interrupts, silence_lightning
from resnetlab.training.result import CURE, EpochHook, completed, finished, print_line, refuse_other_run
from resnetlab.training.trunk import find_branch

LOCK_TIMEOUT = 2.0  # s: a process that was just killed lets go of its lock in a moment, and `status` holds one for ms


def run(config: Config) -> Summary:
    """Trains the configuration to its end, and returns its summary row.

    A finished run is not trained again, an interrupted one goes on from its last checkpoint; force starts over. The
    process's state is restored afterwards (`preserve_process_state`). Raises LabError and, if interrupted,
    KeyboardInterrupt.
    """
    done = completed(config)
    return train(config) if done is None else done


def train(
    config: Config, epoch_hook: EpochHook | None = None, sweep: Path | None = None, command: Sequence[str] = ()
) -> Summary:
    """Trains from the last checkpoint, or from the beginning, to the end.

    epoch_hook: called with the rows after every epoch, ends the run by returning True. sweep: the folder of the sweep
    around it. command: of this run alone, for the manifest; (): this process's. Raises RunLocked and RunPruned.
    """
    process = preserve_process_state(config.threads)
    with out_of_memory_in_one_line(config), process, silence_lightning(), ExitStack() as lock:
        if (tf32 := config.trainer.tf32) is not None:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
        with process_group(config.trainer.devices):
            session = build_session(config, epoch_hook=epoch_hook, sweep=sweep)
            done, checkpoint = decide_once(lambda: prepare_run(config, session, lock, command or sys.argv))
            if done is not None:
                return done
            lock.callback(session.loggers.close)  # before the lock, which is in it, is released
            status, extra = fit(config, session, checkpoint)
        return conclude(config, session, status, extra)


def prepare_run(
    config: Config, session: Session, lock: ExitStack, command: Sequence[str]
) -> tuple[Summary | None, Path | None]:
    """(the summary if it need not be trained, the checkpoint to resume from or None to begin with new weights).

    Enters the run's lock into `lock`, cleans the folder and describes the run.
    """
    folder = config.folder
    lock.enter_context(run_lock(folder, LOCK_TIMEOUT))
    refuse_other_run(folder, config)
    refuse_link_to_other_run(folder, config)
    folder.remove_leftovers()
    if config.force:
        start_over(folder)
    elif (done := finished(folder, config)) is not None:  # by the process that was waited for
        return done, None
    names = *RUN_FILES, PREDICTIONS
    for path in (*map(folder.path.joinpath, names), folder.curves, folder.best, folder.last, folder.previous):
        if path.is_dir():
            raise DataError(f"{path} is a folder, where the run has a file; move it away")
    checkpoint, remarks = resume_point(folder, config)
    manifest = make_manifest(config, session, command)
    branch = None if checkpoint or config.force or config.trunk == "off" else find_branch(config, session, manifest)
    describe(config, session, manifest | ({"trunk": branch.trunk} if branch else {}), checkpoint is not None)
    for path, content in branch.files.items() if branch else ():
        session.trainer.strategy.checkpoint_io.save_checkpoint(content, path)
    session.loggers.behind = branch is not None
    for remark in remarks:
        print_line(config, remark)
    return None, folder.last if branch else checkpoint


def fit(config: Config, session: Session, checkpoint: Path | None) -> tuple[str, dict[str, Any]]:
    """Trains from the checkpoint, if there is one, to the end; (status, further keys of the summary)."""
    try:
        if checkpoint is not None and restore_if_trained(config, session, checkpoint):
            return "finished", {}
        with python_interrupts():
            session.trainer.fit(session.module, datamodule=session.data, ckpt_path=checkpoint, weights_only=True)
    except Diverged as error:
        print_line(config, f"diverged: {error}; epochs kept: {len(session.recorder.rows)}")
        where = {"diverged_quantity": error.quantity, "diverged_epoch": error.epoch, "diverged_step": error.step}
        return "diverged", where
    except RunPruned as stop:
        print_line(config, f"pruned {stop}; this configuration by itself goes on from there")
        raise
    except Exception as error:
        if checkpoint is None or session.module.began or is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        fits = "does not fit this network and optimizer, or a callback failed before the training"
        raise DataError(f"{checkpoint} {fits} ({said}); {CURE}") from None
    return "finished", {}


def restore_if_trained(config: Config, session: Session, checkpoint: Path) -> bool:
    """Loads weights and rows from the last epoch's checkpoint of a run that was killed before its summary."""
    content = read_checkpoint(checkpoint)
    rows = content["callbacks"][session.recorder.state_key]["rows"]
    if len(rows) < config.epochs and not out_of_patience(rows, config.trainer.patience):
        return False
    session.module.load_state_dict(content["state_dict"])
    session.module.statistics = content.get("statistics", {})
    session.recorder.rows = rows
    return True


@contextmanager
def run_lock(folder: RunFolder, lock_timeout: float = 0.0) -> Iterator[None]:
    """Holds the run's lock, which the system takes from a process that dies.

    Raises RunLocked if another process still holds it after `lock_timeout` seconds, DataError if it cannot be made.
    """
    for path in (folder.lock, *folder.lock.parents):
        if os.path.lexists(path) and not (path.is_file() if path == folder.lock else path.is_dir()):
            kind = "a folder" if path.is_dir() else "a file" if path.exists() else "a link that leads nowhere"
            raise DataError(f"{path} is {kind}, in the way of {folder.path}; remove it or move it away")
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=lock_timeout):
            yield
    except Timeout:
        raise RunLocked(f"{folder.path} is being trained by another process; wait for it or stop it") from None


def start_over(folder: RunFolder) -> None:
    """Removes all that a run has written but for its lock, its summary last: if this fails, it is what it was.

    Of folders that are links the link goes; that of the checkpoints stays, without the checkpoints in it.
    """
    for path in sorted(folder.path.iterdir(), key=lambda path: path == folder.summary):
        if path == folder.checkpoints and path.is_symlink() and path.is_dir():
            for checkpoint in path.glob("*.ckpt"):
                checkpoint.unlink()
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != folder.lock:
            path.unlink()


@contextmanager
def out_of_memory_in_one_line(config: Config) -> Iterator[None]:
    """Raises LabError for memory that ran out, on the CPU or the GPU."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
        place = f"{config.trainer.device.type}{f', {asked[1]} more were asked for' if asked else ''}"
        cure = f"batch_size (={config.batch_size}) or data.eval_batch_size, data.device=cpu for a large data set"
        raise LabError(f"out of memory ({place}); take a smaller {cure}, or a smaller network") from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says so: torch (2.15) has a class of its own only for its allocator on a GPU."""
    texts = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    by_torch = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return by_torch or isinstance(error, MemoryError)
