"""What was published of a configuration, under the names of our figures."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from resnetlab.published import Published, preset_of, rows
from resnetlab.published.match import REDUCING, matching_preset, reduced_from
from resnetlab.report.columns import PublishedFigures
from resnetlab.report.configurations import Configuration, plain

__all__ = ["figures_of", "origin", "published_figures", "reductions"]


def published_figures(configurations: Iterable[Configuration]) -> dict[str, PublishedFigures]:
    """By the configuration's name, of those that repeat a published one exactly (whatever their precision)."""
    presets = {c.name: matching_preset(c.identity) for c in configurations if c.identity is not None}
    return {name: printed(preset) for name, preset in presets.items() if preset is not None}


def origin(configuration: Configuration) -> str | None:
    """The preset that a configuration is a reduction of; None for repetitions and for runs of our own."""
    return None if configuration.identity is None else reduced_from(configuration.identity)


def reductions(configurations: Iterable[Configuration]) -> list[str]:
    """How the reductions among them are reduced, each way once: "model resnet20v2, data.limit 5000, epochs 15"."""
    return list(
        dict.fromkeys(
            ", ".join(f"{key} {plain(c.identity[key])}" for key in REDUCING if key in c.identity)
            for c in configurations
            if c.identity is not None and origin(c)
        )
    )


def printed(preset: str) -> PublishedFigures:
    """All that is printed of the preset's rows, each value once: several thresholds of one run, or several runs."""
    mine = [row for row in rows() if preset_of(row.id) == preset]
    values: dict[str, dict[float, None]] = defaultdict(dict)
    for row in mine:
        for figure, value in figures_of(row):
            values[figure][value] = None
    return PublishedFigures(named(mine), {figure: tuple(found) for figure, found in values.items()})


def named(mine: Sequence[Published]) -> str:
    """The rows, and what is not sure about them."""
    text = mine[0].id if len(mine) == 1 else f"{mine[0].id} and {len(mine) - 1} more"
    return text if mine[0].wd is not None else f"{text} (its wd is lost in print, and filled in)"


def figures_of(row: Published) -> Iterator[tuple[str, float]]:
    """(our figure, the printed value): exact figures only, no bounds; epochs counted from 1.

    The posts' train acc stands beside the threshold's epoch. Post IV's losses are the lowest of the run, not the last.
    """
    at = f"{row.threshold:g}" if row.threshold is not None and row.reached and row.bound is None else None
    found: dict[str, float | None] = {
        "best_epoch": row.epoch(row.epoch_best),
        "best_val_acc": row.val_acc_best,
        "final_train_loss": row.final_loss,
        "final_val_loss": row.final_val_loss,
        "seconds_per_epoch": row.seconds_per_epoch,
        "power_w": row.power_w,
    }
    if at is not None:
        found[f"epoch_to_{at}"] = row.epoch(row.epoch_at_threshold)
        found[f"val_acc_at_{at}"] = row.val_acc_at_threshold
        found[f"train_acc_at_{at}"] = row.train_acc
    elif row.epoch_at_threshold is None:
        found["final_train_acc"] = row.train_acc
    yield from ((figure, value) for figure, value in found.items() if value is not None)
