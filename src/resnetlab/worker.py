"""What trains one job of hydra/launcher=processes, in a process that was forked for it, or of hydra/launcher=ray."""

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetlab.lifeline import end_with_parent, write_to

if TYPE_CHECKING:
    from resnetlab.sweeps.outcomes import Outcome

__all__ = ["train_forked", "train_task"]


def train_forked(report: Connection, log: str, overrides: list[str], environment: Mapping[str, str]) -> None:
    """Sends the outcome's fields, and ends with the process that wants them.

    The process has a session of its own, so that a Ctrl-C reaches it through its parent only, and its output goes to
    the log. environment: all of it; OMP_NUM_THREADS is heeded by torch though it has been imported.
    """
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    os.setsid()
    end_with_parent(sweep.sentinel)
    write_to(log)
    print(f"process {os.getpid()}", flush=True)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    if (threads := environment["OMP_NUM_THREADS"]).isdecimal() and int(threads):  # else a user's, which torch has read
        torch.set_num_threads(int(threads))
    report.send(asdict(train(Path(log), overrides)))


def train_task(folder: str, log: str, overrides: list[str]) -> dict[str, Any]:
    """The outcome's fields, trained in a worker of Ray, whose working folder and output may be anywhere."""
    os.chdir(folder)
    write_to(log)
    return asdict(train(Path(log), overrides))


def train(log: Path, overrides: list[str]) -> "Outcome":
    from resnetlab.config import compose
    from resnetlab.refusals import refusal
    from resnetlab.search.assignment import watch_of
    from resnetlab.sweeps.outcomes import SweepFolder, attempt, failure

    try:
        config = compose(*overrides)
        watch = watch_of(SweepFolder(log.parent), int(log.stem.removeprefix("job-")))
    except Exception as error:  # its parent has composed it: files have changed since
        return failure(error, refusal(error), log)
    return attempt(config, log, refusal, watch)
