"""What submitit's launchers of Hydra lack: a job that is killed or runs out of time takes no other's outcome along."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from resnetlab.runs.sweep_records import NO_OBJECTIVE, Outcome, SweepFolder

GIVEN_UP = "its job {} ended without a result (killed, cancelled or out of time; the same command goes on)"


@contextmanager
def tolerate_lost_jobs(launcher: str, folder: SweepFolder) -> Iterator[None]:
    """Within it, hydra/launcher=submitit_local and submitit_slurm wait for every job, and a lost one is an outcome.

    They ask one job after the other for its result and give up at the first that has none, while others are queued or
    training. Nothing happens for another launcher.
    """
    if not launcher.startswith("submitit"):
        yield
        return
    from submitit.core import core, utils

    kind: Any = core.Job
    original = kind.results

    def results(job: Any) -> list[Any]:
        try:
            return original(job)
        except utils.UncompletedJobError:
            number = job.submission().args[2]  # of what the launcher calls: overrides, a key, the job's number
            reason = GIVEN_UP.format(job.job_id)
            if number not in folder.outcomes():
                folder.record(number, Outcome("failed", reason=reason, log=str(job.paths.stderr)))
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=NO_OBJECTIVE)]

    kind.results = results
    try:
        yield
    finally:
        kind.results = original
