"""What a worker of a sweep does: it ends with its parent, prints to its log, and trains its job.

A process forked for hydra/launcher=processes, or one of Ray's. The fork server preloads this module first, so that what
it prints goes into its log.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from resnetlab.console import tolerant_output

SERVER_LOG_VARIABLE = "RESNETLAB_FORK_LOG"  # set for the fork server only
PARENT_CHECK_SECONDS = 1.0


def end_with_parent(descriptors: Sequence[int] = (), parent: int | None = None) -> None:
    """Ends this process with those that hold the other ends of the pipes, and with its parent (a fork server).

    descriptors: of pipes that nobody writes to, the standard input or multiprocessing's. parent: its number, if it may
    have ended already. PR_SET_PDEATHSIG would do the same, but on Linux only, and not for a parent that died before the
    child could ask for it.
    """
    parent = parent or os.getppid()

    def exit_after_parent() -> None:
        while os.getppid() == parent and not wait(descriptors, PARENT_CHECK_SECONDS):
            pass
        os._exit(1)

    threading.Thread(target=exit_after_parent, daemon=True).start()


def import_path() -> str:
    """The PYTHONPATH with which another process, in any folder, finds the packages that this one has found."""
    return os.pathsep.join(place or os.getcwd() for place in sys.path)


def redirect_output(log: str | Path) -> None:
    """Sends all that this process and its children print to the log."""
    tolerant_output()
    with Path(log).open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that processes are ended and folders removed on the way out."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def train_forked(report: Connection, log: str, overrides: list[str], environment: Mapping[str, str]) -> None:
    """Sends the outcome's fields, and ends when its parent or its fork server does.

    The process has a session of its own, so that a Ctrl-C reaches it through its parent only, and prints to the log.
    environment: all of it; OMP_NUM_THREADS takes effect though torch has been imported.
    """
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    os.setsid()
    end_with_parent([sweep.sentinel])
    redirect_output(log)
    print(f"process {os.getpid()}", flush=True)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    if (threads := environment["OMP_NUM_THREADS"]).isdecimal() and int(threads):  # else a user's, which torch has read
        torch.set_num_threads(int(threads))
    report.send(train_job(Path(log), overrides))


def train_task(folder: str, log: str, overrides: list[str], umask: int) -> dict[str, Any]:
    """The outcome's fields, trained in a worker of Ray, whose working folder, output and umask may be any."""
    os.umask(umask)
    os.chdir(folder)
    redirect_output(log)
    return train_job(Path(log), overrides)


def train_job(log: Path, overrides: list[str]) -> dict[str, Any]:
    """The outcome's fields. log: of the job, in the sweep's folder."""
    from resnetlab.config.compose import compose
    from resnetlab.runs.layout import job_number
    from resnetlab.runs.sweep_records import SweepFolder
    from resnetlab.sweeps.run_job import failure, run_job

    try:
        config = compose(*overrides)
    except Exception as error:  # its parent has composed it: files have changed since
        return asdict(failure(error, log))
    return asdict(run_job(config, SweepFolder(log.parent), job_number(log), overrides))


if SERVER_LOG_VARIABLE in os.environ:
    redirect_output(os.environ[SERVER_LOG_VARIABLE])
