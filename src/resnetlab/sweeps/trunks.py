"""The trunks of a sweep with trunk=auto: which job goes on from which of the others, and from which epoch."""

from collections.abc import Sequence
from dataclasses import replace

from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.runs.files import read_json, write_json
from resnetlab.runs.layout import TRUNKS
from resnetlab.runs.sweep_records import SweepFolder

Trunks = dict[int, tuple[int, int]]  # {job: (its trunk, an earlier job, and the epoch after which they part)}


def plan_trunks(configs: Sequence[Config]) -> Trunks:
    """The trunk of each job that has an epoch in common with an earlier one.

    The epochs that are left to train are those of the tree of common beginnings, each once, in any order of the jobs.
    """
    from resnetlab.training.trunk import epoch_keys, plan, settings  # brings Lightning

    first: dict[tuple[str, bytes], int] = {}
    trunks: Trunks = {}
    for number, config in enumerate(configs):
        if config.trunk == "auto" and not config.force:
            place = repr((config.study_folder, sorted(settings(plan(config)).items())))
            for epoch, key in enumerate(epoch_keys(config), 1):
                if (job := first.setdefault((place, key), number)) != number:
                    trunks[number] = job, epoch
    return trunks


def write_trunks(configs: Sequence[Config], folder: SweepFolder) -> None:
    """Plans them for all jobs to read, and prints how many epochs are trained and how many are shared."""
    if any(config.trunk == "auto" for config in configs):
        trunks, total = plan_trunks(configs), sum(config.epochs for config in configs)
        shared = sum(epoch for _, epoch in trunks.values())
        write_json(folder.path / TRUNKS, trunks)
        say(f"trunk=auto: {total - shared:,} of {total:,} epochs are trained, {shared:,} are shared")


def read_trunks(folder: SweepFolder) -> Trunks:
    """None of a search, and of a sweep without them."""
    place = folder.path / TRUNKS
    found = read_json(place) if place.exists() else {}
    return {int(number): (job, epoch) for number, (job, epoch) in found.items()}


def with_branch_points(config: Config, folder: SweepFolder, number: int) -> Config:
    """With a snapshot wherever another job branches off; the last epoch has its checkpoint anyway."""
    points = {epoch for job, epoch in read_trunks(folder).values() if job == number and epoch < config.epochs}
    return replace(config, snapshots=sorted({*config.snapshots, *points})) if points else config
