"""Patch for hydra-submitit-launcher: a lost job becomes a failed outcome, and the sweep goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from resnetlab.runs.sweep_records import NO_OBJECTIVE, Outcome, SweepFolder

LOST = "its job {} ended without a result (killed, cancelled or out of time; the same command goes on)"


@contextmanager
def tolerate_lost_jobs(folder: SweepFolder) -> Iterator[None]:
    """Makes submitit's launchers wait for every job.

    hydra-submitit-launcher 1.2 asks one job after the other for its result and gives up at the first that has none,
    while others are queued or training.
    """
    from submitit.core import core, utils

    kind: Any = core.Job
    original = kind.results

    def results(job: Any) -> list[Any]:
        try:
            return original(job)
        except utils.UncompletedJobError:
            number = job.submission().args[2]  # of the launcher's call: overrides, a key, the job's number
            if number not in folder.outcomes():
                folder.record(number, Outcome("failed", reason=LOST.format(job.job_id), log=str(job.paths.stderr)))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=NO_OBJECTIVE)]

    kind.results = results
    try:
        yield
    finally:
        kind.results = original
