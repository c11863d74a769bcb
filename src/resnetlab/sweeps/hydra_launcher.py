"""Between Hydra's launcher plugin and the processes: Hydra's jobs in, Hydra's job returns out."""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, open_dict

from resnetlab.config.compose import parse
from resnetlab.config.messages import REFUSALS, error_message
from resnetlab.config.overrides import job_labels
from resnetlab.console import say
from resnetlab.runs.sweep_records import NO_OBJECTIVE, SweepFolder
from resnetlab.sweeps.attempt import failure
from resnetlab.sweeps.child_process import sigterm_as_exit
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.jobs import Job, fail_job, run_jobs
from resnetlab.sweeps.processes import Processes
from resnetlab.sweeps.ray_tasks import RayTasks
from resnetlab.sweeps.resources import gpus_per_job, resources_per_job
from resnetlab.sweeps.worker import train_forked, train_task


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """Runs the jobs, each in a process of its own; their returns hold the objectives, NaN for a job without one.

    launcher: the plugin, with Hydra's context and configuration and its own values. first: the first job's number.
    A job that cannot be composed, which a sweeper may make up, fails like any other.
    """

    def work(jobs: Sequence[Job], folder: SweepFolder, watch: Callable[[], None]) -> None:
        portion = resources_per_job([job.config for job in jobs], launcher.jobs, launcher.runs_per_device)
        if jobs[0].config.trainer.progress != "off":
            say(f"sweep: {len(jobs)} jobs, {portion.jobs} at once; the first starts in some seconds")
        run_jobs(jobs, folder, Processes(train_forked, portion, launcher.retries), watch)

    return run_hydra_jobs(launcher, job_overrides, first, work)


def launch_on_ray(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """The same with a task of Ray for each."""

    def work(jobs: Sequence[Job], folder: SweepFolder, watch: Callable[[], None]) -> None:
        gpus = gpus_per_job([job.config for job in jobs], launcher.num_gpus)
        with RayTasks(train_task, launcher.address, launcher.num_cpus, gpus, launcher.retries) as tasks:
            run_jobs(jobs, folder, tasks, watch)

    return run_hydra_jobs(launcher, job_overrides, first, work)


def run_hydra_jobs(
    launcher: Any, job_overrides: Sequence[Sequence[str]], first: int, work: Callable[..., None]
) -> Sequence[JobReturn]:
    """Hydra's part of it; work(jobs, folder, watch) gives the jobs their outcomes."""
    setup_globals()
    folder = SweepFolder.current() or SweepFolder.open(launcher.config.study)
    assigned = folder.labels()
    jobs, returns = [], []
    for number, (overrides, label) in enumerate(zip(job_overrides, job_labels(job_overrides), strict=True), first):
        label = assigned.get(number, label)
        done = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        done.return_value = NO_OBJECTIVE
        returns.append(done)
        try:
            done.cfg = done.hydra_cfg = compose_job(launcher, overrides, number)
            jobs.append(Job(number, label, list(overrides), parse(done.cfg)))
        except REFUSALS as error:
            fail_job(folder, number, label, failure(error, error_message(error), folder.log(number)))
    if jobs:
        with sigterm_as_exit(), Display(jobs, jobs[0].config.trainer.progress) as display:
            work(jobs, folder, display)
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
