"""Between Hydra's launcher plugins and the backends: Hydra's jobs in, Hydra's job returns out."""

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from resnetlab.config.compose import compose
from resnetlab.config.messages import USAGE_ERRORS
from resnetlab.errors import ConfigError
from resnetlab.runs.sweep_records import NO_OBJECTIVE
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.jobs import Job, run_jobs
from resnetlab.sweeps.run_job import SweepTask, failure, record
from resnetlab.sweeps.trunk_plan import read_trunks


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """Runs the jobs, each in a worker of its own; their returns hold the objectives, NaN for a job without one.

    launcher: the plugin, with its task function and its values, `options`. first: the first job's number.
    A job that cannot be composed, which a sweeper may make up, fails like any other.
    """
    task = launcher.task_function
    if not isinstance(task, SweepTask):
        raise ConfigError("this hydra/launcher is for resnetlab's train.py only")
    jobs, returns, trunks = [], [], read_trunks(task.folder)
    for number, overrides in enumerate(job_overrides, first):
        label = task.labels.get(number, "")
        returns.append(JobReturn(list(overrides), status=JobStatus.COMPLETED, _return_value=NO_OBJECTIVE))
        try:
            config = compose(*overrides)
        except USAGE_ERRORS as error:
            record(task.folder, number, failure(error, task.folder.log(number)), label)
            continue
        progress = "off" if config.trainer.progress == "off" else "lines"  # a bar is of no use in a log
        given = [*overrides, f"trainer.progress={progress}"]
        jobs.append(Job(number, label, given, config, trunks.get(number, (-1, 0))))
    if jobs:
        with Display(jobs, jobs[0].config.trainer.progress) as display:
            backend = resolve_name(f"resnetlab.sweeps.{launcher.backend}")(
                [job.config for job in jobs], **launcher.options
            )
            run_jobs(jobs, task.folder, backend, display)
    for job in jobs:
        assert job.outcome is not None
        returns[job.number - first].return_value = job.outcome.value
    return returns
