"""Between Hydra's launcher plugins and the backends: Hydra's jobs in, Hydra's job returns out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, open_dict

from resnetlab.config.compose import parse
from resnetlab.config.messages import USAGE_ERRORS, error_message
from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.errors import ConfigError
from resnetlab.runs.sweep_records import NO_OBJECTIVE
from resnetlab.sweeps.attempt import SweepTask, failure, record
from resnetlab.sweeps.child_process import sigterm_as_exit
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.jobs import Backend, Job, run_jobs
from resnetlab.sweeps.processes import Processes
from resnetlab.sweeps.ray_tasks import RayTasks
from resnetlab.sweeps.resources import gpus_per_job, resources_per_job
from resnetlab.sweeps.worker import train_forked, train_task


def processes(configs: Sequence[Config], jobs: int | None, runs_per_device: int, retries: int) -> Backend:
    """The backend of hydra/launcher=processes."""
    resources = resources_per_job(configs, jobs, runs_per_device)
    if configs[0].trainer.progress != "off":
        say(f"sweep: {len(configs)} jobs, {resources.jobs} at once; the first starts in some seconds")
    return Processes(train_forked, resources, retries)


def ray_tasks(
    configs: Sequence[Config], address: str | None, num_cpus: int, num_gpus: float | None, retries: int
) -> Backend:
    """The backend of hydra/launcher=ray."""
    return RayTasks(train_task, address, num_cpus, gpus_per_job(configs, num_gpus), retries)


def launch(
    launcher: Any, make_backend: Callable[..., Backend], job_overrides: Sequence[Sequence[str]], first: int
) -> Sequence[JobReturn]:
    """Runs the jobs, each in a worker of its own; their returns hold the objectives, NaN for a job without one.

    launcher: the plugin, with what Hydra has set it up with and its values, `options`. first: the first job's number.
    A job that cannot be composed, which a sweeper may make up, fails like any other.
    """
    task = launcher.task_function
    if not isinstance(task, SweepTask):
        raise ConfigError("this hydra/launcher is for resnetlab's train.py only")
    setup_globals()
    jobs, returns = [], []
    for number, overrides in enumerate(job_overrides, first):
        label = task.labels.get(number, "")
        done = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        done.return_value = NO_OBJECTIVE
        returns.append(done)
        try:
            done.cfg = done.hydra_cfg = compose_job(launcher, overrides, number)
            jobs.append(Job(number, label, list(overrides), parse(done.cfg)))
        except USAGE_ERRORS as error:
            outcome = failure(error, error_message(error), task.folder.log(number))
            record(task.folder, number, replace(outcome, label=label), label)
    if jobs:
        with sigterm_as_exit(), Display(jobs, jobs[0].config.trainer.progress) as display:
            run_jobs(jobs, task.folder, make_backend([job.config for job in jobs], **launcher.options), display)
    for job in jobs:
        assert job.outcome is not None
        returns[job.number - first].return_value = job.outcome.value
    return returns


def compose_job(launcher: Any, overrides: Sequence[str], number: int) -> DictConfig:
    """The job's whole configuration, Hydra's part included."""
    node: DictConfig = launcher.context.config_loader.load_sweep_config(launcher.config, list(overrides))
    with open_dict(node):
        node.hydra.job.id = node.hydra.job.num = number
    return node
