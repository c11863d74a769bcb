"""Between Hydra's launcher plugins and the backends: Hydra's jobs in, Hydra's job returns out."""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import open_dict

from resnetlab.config.compose import parse
from resnetlab.config.messages import USAGE_ERRORS
from resnetlab.errors import ConfigError
from resnetlab.runs.sweep_records import NO_OBJECTIVE
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.jobs import Backend, Job, run_jobs
from resnetlab.sweeps.processes import Processes
from resnetlab.sweeps.ray_tasks import RayTasks
from resnetlab.sweeps.run_job import SweepTask, failure, record
from resnetlab.sweeps.trunks import read_trunks

# of the configurations and the launcher's values
BACKENDS: dict[str, Callable[..., Backend]] = {"processes": Processes, "ray": RayTasks}


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """Runs the jobs, each in a worker of its own; their returns hold the objectives, NaN for a job without one.

    launcher: the plugin, with what Hydra has set it up with and its values, `options`. first: the first job's number.
    A job that cannot be composed, which a sweeper may make up, fails like any other.
    """
    task = launcher.task_function
    if not isinstance(task, SweepTask):
        raise ConfigError("this hydra/launcher is for resnetlab's train.py only")
    setup_globals()
    jobs, returns, trunks = [], [], read_trunks(task.folder)
    for number, overrides in enumerate(job_overrides, first):
        label = task.labels.get(number, "")
        done = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=NO_OBJECTIVE)
        returns.append(done)
        try:
            done.cfg = launcher.context.config_loader.load_sweep_config(launcher.config, list(overrides))
            with open_dict(done.cfg):
                done.cfg.hydra.job.id = done.cfg.hydra.job.num = number
            done.hydra_cfg = done.cfg
            jobs.append(Job(number, label, overrides, parse(done.cfg), trunks.get(number, (-1, 0))))
        except USAGE_ERRORS as error:
            record(task.folder, number, failure(error, task.folder.log(number)), label)
    if jobs:
        with Display(jobs, jobs[0].config.trainer.progress) as display:
            backend = BACKENDS[launcher.backend]([job.config for job in jobs], **launcher.options)
            run_jobs(jobs, task.folder, backend, display)
    for job in jobs:
        assert job.outcome is not None
        returns[job.number - first].return_value = job.outcome.value
    return returns
