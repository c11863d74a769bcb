"""Between Hydra's launcher plugin and the processes: Hydra's jobs in, Hydra's job returns out."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, open_dict

from resnetlab.arguments import labels
from resnetlab.config import parse
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.machine import share
from resnetlab.sweeps.outcomes import SweepFolder
from resnetlab.sweeps.processes import Job, work_off

__all__ = ["launch"]


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """Runs the jobs, each in a process of its own; their returns hold the objectives, NaN for a job without one.

    launcher: the plugin, with Hydra's context and configuration and its own values. first: the first job's number.
    """
    setup_globals()
    nodes = [compose_job(launcher, overrides, first + index) for index, overrides in enumerate(job_overrides)]
    jobs = [
        Job(first + index, label, list(overrides), parse(node))
        for index, (node, overrides, label) in enumerate(zip(nodes, job_overrides, labels(job_overrides), strict=True))
    ]
    configs = [job.config for job in jobs]
    folder = SweepFolder.current() or SweepFolder.open(configs[0].study)
    portion = share(configs, launcher.jobs, launcher.runs_per_device)
    with Display(jobs, configs[0].trainer.progress) as display:
        work_off(jobs, folder, portion, launcher.retries, display)
    return [job_return(node, job) for node, job in zip(nodes, jobs, strict=True)]


def compose_job(launcher: Any, overrides: Sequence[str], number: int) -> DictConfig:
    """The job's whole configuration, Hydra's part included."""
    node: DictConfig = launcher.context.config_loader.load_sweep_config(launcher.config, list(overrides))
    with open_dict(node):
        node.hydra.job.id = node.hydra.job.num = number
    return node


def job_return(node: DictConfig, job: Job) -> JobReturn:
    assert job.outcome is not None
    done = JobReturn(overrides=list(job.overrides), cfg=node, hydra_cfg=node, status=JobStatus.COMPLETED)
    done.return_value = job.outcome.value
    return done
