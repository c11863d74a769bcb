"""Trains one job in its worker: a process that was forked, one of Ray's, or the sweep's own.

The fork server preloads this module first, so that what it prints goes into its log.
"""

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from resnetlab.sweeps.process_setup import end_with_parent, redirect_output

SERVER_LOG_VARIABLE = "RESNETLAB_FORK_LOG"  # set for the fork server only

if SERVER_LOG_VARIABLE in os.environ:
    redirect_output(os.environ[SERVER_LOG_VARIABLE])


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
