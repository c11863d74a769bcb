"""What was published of a configuration, under the names of our figures."""

from collections.abc import Iterable, Iterator, Sequence

from resnetlab.published import Published, preset_of, rows
from resnetlab.published.match import matching_presets, reduced_from, reduction
from resnetlab.report.columns import PublishedFigures
from resnetlab.report.groups import Configuration, Key

__all__ = ["figures_of", "origin", "published_figures", "reductions"]


def published_figures(configurations: Iterable[Configuration]) -> dict[Key, PublishedFigures]:
    """By the configuration's key, of those that repeat a published one exactly, whatever their precision.

    Seconds and watts are those of runs that are said to have had the same precision.
    """
    found = {}
    for c in configurations:
        presets = matching_presets(c.identity) if c.identity is not None else []
        if presets:
            found[c.key] = printed(presets, str((c.identity or {}).get("precision", "32-true")))
    return found


def origin(configuration: Configuration) -> str | None:
    """The preset that a configuration is a reduction of; None for repetitions and for runs of our own."""
    return None if configuration.identity is None else reduced_from(configuration.identity)


def reductions(configurations: Iterable[Configuration]) -> list[str]:
    """How the reductions among them are reduced, each way once: "model resnet20v2, data.limit 5000, epochs 15"."""
    return list(
        dict.fromkeys(text for c in configurations if c.identity is not None and (text := reduction(c.identity)))
    )


def printed(presets: Sequence[str], precision: str) -> PublishedFigures:
    """All that is printed of the presets' rows; what prose tells gives way to what a table prints."""
    mine = [row for row in rows() if preset_of(row.id) in presets]
    values: dict[str, dict[tuple[str, str], float]] = {}
    for row in sorted(mine, key=in_prose):
        for figure, value in figures_of(row, precision):
            known = values.setdefault(figure, {})
            if not (known and in_prose(row)):
                known[row.table, row.run] = value  # a run's other thresholds repeat its figures
    return PublishedFigures(named(mine), {figure: tuple(runs.values()) for figure, runs in values.items()}, mine[0])


def in_prose(row: Published) -> bool:
    return row.table in ("prose", "introduction")


def named(mine: Sequence[Published]) -> str:
    """The rows, and what is not sure about them."""
    text = mine[0].id if len(mine) == 1 else f"{mine[0].id} and {len(mine) - 1} more"
    lost = "" if mine[0].wd is not None else ", its wd lost in print and filled in"
    return f"{text} (confidence {mine[0].confidence}{lost})"


def figures_of(row: Published, precision: str = "32-true") -> Iterator[tuple[str, float]]:
    """(our figure, the printed value): exact figures only, no bounds; epochs counted from 1.

    The posts' train acc stands beside the threshold's epoch. Post IV's losses are the lowest of the run, not the last.
    """
    at = f"{row.threshold:g}" if row.threshold is not None and row.reached and row.bound is None else None
    found: dict[str, float | None] = {
        "best_epoch": row.epoch(row.epoch_best),
        "best_val_acc": row.val_acc_best,
        "final_train_loss": row.final_loss,
        "final_val_loss": row.final_val_loss,
    }
    if row.precision == precision:
        found |= {"seconds_per_epoch": row.seconds_per_epoch, "power_w": row.power_w}
    if at is not None:
        found[f"epoch_to_{at}"] = row.epoch(row.epoch_at_threshold)
        found[f"val_acc_at_{at}"] = row.val_acc_at_threshold
        found[f"train_acc_at_{at}"] = row.train_acc
    elif row.epoch_at_threshold is None:
        found["final_train_acc"] = row.train_acc
    yield from ((figure, value) for figure, value in found.items() if value is not None)
