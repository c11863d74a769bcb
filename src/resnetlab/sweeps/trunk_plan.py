"""The trunks of a sweep: which job goes on from which other, and from where; training/trunk.py says which may."""

from collections.abc import Sequence
from dataclasses import replace

from resnetlab.config.compose import to_plain
from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.runs.files import read_json, write_json
from resnetlab.runs.layout import TRUNKS
from resnetlab.runs.sweep_records import SweepFolder

Trunks = dict[int, tuple[int, int]]  # {job: (its trunk, an earlier job, and the epoch after which they part)}


def plan_trunks(configs: Sequence[Config]) -> Trunks:
    """Of each job that shares epochs: so every common beginning is trained once, in any order of the jobs."""
    from resnetlab.training.trunk import epoch_keys, settings  # brings Lightning

    first: dict[tuple[str, bytes], int] = {}
    trunks: Trunks = {}
    for number, config in enumerate(configs):
        if config.trunk == "auto" and not config.force:
            manifest = {"differs_from_defaults": config.identity, "config": to_plain(config)}
            place = repr((config.study_folder, sorted(settings(manifest).items())))
            for epoch, key in enumerate(epoch_keys(config), 1):
                if (job := first.setdefault((place, key), number)) != number:
                    trunks[number] = job, epoch
    return trunks


def write_trunks(configs: Sequence[Config], folder: SweepFolder) -> None:
    """Plans them for all jobs to read, and prints how many epochs are trained and how many are shared."""
    if any(config.trunk == "auto" for config in configs):
        write_json(folder.path / TRUNKS, trunks := plan_trunks(configs))
        total, shared = sum(config.epochs for config in configs), sum(epoch for _, epoch in trunks.values())
        say(f"trunk=auto: {total - shared:,} of {total:,} epochs are trained, {shared:,} are shared")


def read_trunks(folder: SweepFolder) -> Trunks:
    """None of a search, and of a sweep without them."""
    found = read_json(folder.path / TRUNKS) if (folder.path / TRUNKS).exists() else {}
    return {int(number): (job, epoch) for number, (job, epoch) in found.items()}


def with_branch_points(config: Config, folder: SweepFolder, number: int) -> Config:
    """With a snapshot at each epoch where another job branches off this one, or this one off its trunk."""
    pairs = read_trunks(folder).items()
    points = {epoch for branch, (job, epoch) in pairs if number in (job, branch) and epoch < config.epochs}
    return replace(config, snapshots=sorted({*config.snapshots, *points})) if points else config
