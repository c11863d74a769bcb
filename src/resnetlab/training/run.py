"""Runs one configuration to its end: skips what is finished, resumes what is not, and writes the run's files."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from resnetlab.config.schema import Config
from resnetlab.errors import Diverged, RunLocked, RunPruned
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import Summary, out_of_patience
from resnetlab.training.build import Session, build_session
from resnetlab.training.callbacks.checkpoints import read_checkpoint, resume_point
from resnetlab.training.conclude import conclude
from resnetlab.training.describe import describe
from resnetlab.training.distributed import decide_once, process_group
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.lightning_internals import python_interrupts, silence_lightning
from resnetlab.training.result import EpochHook, completed, finished, print_line

LOCK_TIMEOUT = 2.0  # s: a process that was just killed lets go of its lock in a moment, and `status` holds one for ms


def run(config: Config) -> Summary:
    """Trains the configuration to its end, and returns its summary row.

    A finished run is not trained again, an interrupted one goes on from its last checkpoint; force starts over. The
    process's state is restored afterwards (`preserve_process_state`). Raises LabError, and KeyboardInterrupt when it is
    interrupted.
    """
    done = completed(config)
    return train(config) if done is None else done


def train(config: Config, lock_timeout: float = LOCK_TIMEOUT, epoch_hook: EpochHook | None = None) -> Summary:
    """Trains from the last checkpoint, or from the beginning, to the end.

    lock_timeout: seconds to wait for another process that holds the run. epoch_hook: called with the rows after every
    epoch, ends the run by returning True. Raises RunLocked and RunPruned.
    """
    with preserve_process_state(config.threads), silence_lightning(), ExitStack() as lock:
        with process_group(config.trainer.devices):
            session = build_session(config, epoch_hook=epoch_hook)
            done, checkpoint = decide_once(lambda: prepare_run(config, session, lock, lock_timeout))
            if done is not None:
                return done
            status, extra = fit(config, session, checkpoint)
        return conclude(config, session, status, extra)


def prepare_run(
    config: Config, session: Session, lock: ExitStack, lock_timeout: float
) -> tuple[Summary | None, Path | None]:
    """(the summary if it need not be trained, the checkpoint to resume from or None to begin with new weights).

    Enters the run's lock into `lock`, cleans the folder and describes the run.
    """
    folder = config.folder
    lock.enter_context(run_lock(folder, lock_timeout))
    folder.remove_leftovers()
    if config.force:
        start_over(folder)
    elif (done := finished(folder, config)) is not None:  # by the process that was waited for
        return done, None
    checkpoint, remarks = resume_point(folder, config)
    describe(config, session, resumed=checkpoint is not None)
    for remark in remarks:
        print_line(config, remark)
    return None, checkpoint


def fit(config: Config, session: Session, checkpoint: Path | None) -> tuple[str, dict[str, Any]]:
    """Trains from the checkpoint, if there is one, to the end; (status, further keys of the summary)."""
    if checkpoint is not None and restore_if_trained(config, session, checkpoint):
        return "finished", {}
    try:
        with python_interrupts():
            session.trainer.fit(session.module, datamodule=session.data, ckpt_path=checkpoint, weights_only=True)
    except Diverged as error:
        print_line(config, f"diverged: {error}; epochs kept: {len(session.recorder.rows)}")
        where = {"diverged_quantity": error.quantity, "diverged_epoch": error.epoch, "diverged_step": error.step}
        return "diverged", where
    except RunPruned as stop:
        print_line(config, f"pruned {stop}; this configuration by itself goes on from there")
        raise
    return "finished", {}


def restore_if_trained(config: Config, session: Session, checkpoint: Path) -> bool:
    """Loads weights and rows from the last epoch's checkpoint of a run that was killed before its summary."""
    content = read_checkpoint(checkpoint)
    rows = content["callbacks"][session.recorder.state_key]["rows"]
    if len(rows) < config.epochs and not out_of_patience(rows, config.trainer.patience):
        return False
    session.module.load_state_dict(content["state_dict"])
    session.recorder.rows = rows
    return True


@contextmanager
def run_lock(folder: RunFolder, lock_timeout: float = 0.0) -> Iterator[None]:
    """Holds the run's lock, which the system takes from a process that dies.

    Raises RunLocked if another process still holds it after `lock_timeout` seconds.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=lock_timeout):
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
