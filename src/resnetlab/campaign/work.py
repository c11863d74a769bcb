"""Works a campaign off within its budget."""

import time
from datetime import datetime
from pathlib import Path

import torch

from resnetlab.bench.command import slug
from resnetlab.campaign.clock import Clock
from resnetlab.campaign.estimate import Pace, epochs_left, hours
from resnetlab.campaign.listing import DEFAULT, Campaign, read
from resnetlab.campaign.publish import Publisher
from resnetlab.campaign.tasks import done, perform_all
from resnetlab.console import say
from resnetlab.errors import ConfigError
from resnetlab.runs.layout import OUTPUTS
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps.jobs import POLL_SECONDS, Job, set_outcome, start
from resnetlab.sweeps.processes import Processes
from resnetlab.sweeps.resources import JobResources, resources_per_job, visible_gpus
from resnetlab.sweeps.worker import train_forked
from resnetlab.training.result import finished

__all__ = ["campaign"]

RETRIES = 1
LOOK_SECONDS = 10.0  # between two looks for a run that fits, each of which reads the rows of all


def campaign(listing: Path | None, budget: float | None, out: Path | None, at_once: int, dry: bool) -> int:
    """Runs what is left of the list for at most `budget` seconds, and writes `out` as it goes; the exit status.

    at_once: runs on a device. dry: print the list instead. A run is begun if it fits into what is left of the budget.
    If none does from the start, the first is begun all the same, and goes on in the next call. Raises ConfigError.
    """
    clock = Clock(budget or 0.0)
    if not dry and (budget is None or not budget > 0):
        raise ConfigError(f"--budget (={budget}) must be a number of seconds above 0")
    if not 1 <= at_once <= 64:
        raise ConfigError(f"--runs-per-device (={at_once}) must be in 1..64")
    if listing is None and not dry and not torch.cuda.is_available():
        raise ConfigError(f"conf/{DEFAULT} is for a GPU, and torch sees none here; --list FILE takes another list")
    plan = read(listing)
    out = out or Path("results") / device()
    if dry:
        show(plan, out, at_once)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    publisher = Publisher(out)
    try:
        failures = perform_all(plan.tasks, out, clock)
        work_off(plan.jobs, clock, publisher, at_once)
    finally:
        publisher.copy(plan.jobs)
        written = publisher.close()
    if not written:
        say(f"the report could not be written; see {out / 'report.log'}")
    failures += [job.label for job in plan.jobs if job.outcome is not None and job.outcome.status == "failed"]
    for line in closing(plan, out, at_once):
        say(line)
    return int(bool(failures) or not written)


def work_off(jobs: list[Job], clock: Clock, publisher: Publisher, at_once: int) -> None:
    """Trains what is left, `at_once` on a device, until all is done or nothing more fits."""
    waiting, running = [job for job in jobs if open_(job)], list[Job]()
    backend = Processes(train_forked, machine(jobs, at_once), RETRIES)
    folder = SweepFolder(OUTPUTS / "campaign" / "sweeps" / f"{datetime.now():%Y-%m-%d-%H%M%S}")
    folder.path.mkdir(parents=True, exist_ok=True)
    begun, look = False, 0.0
    try:
        while clock.left > 0 and (waiting or running):
            while backend.free(running) and time.monotonic() >= look:
                if (job := fitting(waiting, jobs, clock, begun)) is None:
                    look = time.monotonic() + LOOK_SECONDS
                    continue
                waiting.remove(job)
                begun = True
                say(f"begins: {job.label}; {epochs_left(job)} epochs; budget left {hours(clock.left)}")
                start(job, folder, backend, running)
                running += [job] if job.handle else []
            if not running:
                return
            for job in [job for job in running if backend.ended(job)]:
                running.remove(job)
                look = 0.0
                set_outcome(job, backend.conclusion(job, folder.log(job.number)), folder)
                waiting = [job, *waiting] if job.outcome is None else waiting
                if job.outcome is not None:
                    say(f"{job.outcome.status}: {job.label}")
                    publisher.copy([job])
            publisher.report()
            time.sleep(POLL_SECONDS)
        for job in running:
            say(f"interrupted by the budget: {job.label}; the same command goes on")
    finally:
        backend.stop(running)


def fitting(waiting: list[Job], jobs: list[Job], clock: Clock, begun: bool) -> Job | None:
    """The first that the budget has room for; of a call that has begun nothing, the first of all in any case."""
    pace = Pace(jobs) if waiting else None
    for job in waiting:
        seconds = pace.of_run(job) if pace else None
        if seconds is None or seconds <= clock.left:
            return job
    return waiting[0] if waiting and not begun else None


def open_(job: Job) -> bool:
    """Whether there is something to train."""
    return finished(job.run, job.config) is None


def machine(jobs: list[Job], at_once: int) -> JobResources:
    configs = [job.config for job in jobs]
    gpus = visible_gpus() if any(c.trainer.resolved_accelerator == "cuda" for c in configs) else ()
    return resources_per_job(configs, None if gpus else at_once, at_once)


def show(plan: Campaign, out: Path, at_once: int) -> None:
    """Prints every task and run with what is left of it."""
    pace = Pace(plan.jobs)
    for task in plan.tasks:
        say(f"{'done' if done(task, out) else 'open':<6}{hours(task.seconds):>10}  {task.name}")
    for job in plan.jobs:
        left = epochs_left(job) if open_(job) else 0
        seconds = pace.of_run(job) if left else 0.0
        say(f"{'open' if open_(job) else 'done':<6}{hours(seconds):>10}{left:>5} epochs  {job.label}")
    for line in closing(plan, out, at_once):
        say(line)


def closing(plan: Campaign, out: Path, at_once: int) -> list[str]:
    """What is done and what is left."""
    left, pace = [job for job in plan.jobs if open_(job)], Pace(plan.jobs)
    head = f"campaign: {len(plan.jobs) - len(left)} of {len(plan.jobs)} runs are done"
    tasks = [task.name for task in plan.tasks if not done(task, out)]
    if tasks:
        head += f"; not done: {', '.join(tasks)}"
    if not left:
        return [f"{head}; results: {out}"]
    times = [pace.of_run(job) for job in left]
    known = [seconds for seconds in times if seconds is not None]
    total = sum(known) / machine(plan.jobs, at_once).jobs if len(known) == len(times) else None
    epochs = sum(map(epochs_left, left))
    return [
        f"{head}; left: {len(left)} runs, {epochs:,} epochs, about {hours(total)}, next: {left[0].label}",
        f"the same command goes on; results so far: {out}",
    ]


def device() -> str:
    """A name for the folder of results: nvidia-h200, or cpu."""
    return slug(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"
