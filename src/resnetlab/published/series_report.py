"""The published values beside the runs that repeat them, and a report with all that the series adds to it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from resnetlab.published.batchnorm_lag import lag_section
from resnetlab.published.configuration import preset_of
from resnetlab.published.preset_matching import matching_presets, reduction
from resnetlab.published.results import Published, rows
from resnetlab.published.series_plots import SERIES_PLOTS
from resnetlab.report.columns import ReferenceValues
from resnetlab.report.groups import Collection
from resnetlab.report.page import Origin
from resnetlab.report.write import write_report


def write_series_report(collection: Collection, out: Path) -> list[Path]:
    """Writes the report with published values, reductions marked, and the series' section and plots.

    Values are published ones of the same configuration, whatever its precision; but seconds and watts are those of runs
    that are said to have had the same precision.
    """
    known = [(c.key, c.identity) for c in collection.configurations if c.identity is not None]
    references = {
        key: values_of(presets, str(identity.get("precision", "32-true")))
        for key, identity in known
        if (presets := matching_presets(identity))
    }
    origins = {key: Origin(*found) for key, identity in known if (found := reduction(identity))}
    section = lag_section(collection)
    return write_report(collection, out, references, origins, [section] if section else [], SERIES_PLOTS)


def values_of(presets: Sequence[str], precision: str) -> ReferenceValues:
    """All values printed in the presets' rows; a table's values replace those in prose."""
    mine = [row for row in rows() if preset_of(row.id) in presets]
    values: dict[str, dict[tuple[str, str], float]] = {}
    for row in sorted(mine, key=in_prose):
        for metric, value in printed_values(row, precision):
            known = values.setdefault(metric, {})
            if not (known and in_prose(row)):
                known[row.table, row.run] = value  # a run's other thresholds repeat its figures
    first = mine[0]
    rows_text = first.id if len(mine) == 1 else f"{first.id} and {len(mine) - 1} more"
    lost = "" if first.wd is not None else ", its wd lost in print and filled in"
    found = {metric: tuple(runs.values()) for metric, runs in values.items()}
    return ReferenceValues(f"{rows_text} (confidence {first.confidence}{lost})", found, first.source)


def in_prose(row: Published) -> bool:
    return row.table in ("prose", "introduction")


def printed_values(row: Published, precision: str) -> Iterator[tuple[str, float]]:
    """Pairs of metric and printed value: exact values only, no bounds; epochs counted from 1.

    The posts' train acc stands beside the threshold's epoch. Post IV's losses are the lowest of the run, not the last.
    """
    at = f"{row.threshold:g}" if row.threshold is not None and row.reached and row.bound is None else None
    found: dict[str, float | None] = {"best_epoch": row.epoch(row.epoch_best), "best_val_acc": row.val_acc_best}
    found |= {"final_train_loss": row.final_loss, "final_val_loss": row.final_val_loss}
    if row.precision == precision:
        found |= {"seconds_per_epoch": row.seconds_per_epoch, "power_w": row.power_w}
    if at is not None:
        found |= {f"epoch_to_{at}": row.epoch(row.epoch_at_threshold), f"val_acc_at_{at}": row.val_acc_at_threshold}
        found[f"train_acc_at_{at}"] = row.train_acc
    elif row.epoch_at_threshold is None:
        found["final_train_acc"] = row.train_acc
    yield from ((metric, value) for metric, value in found.items() if value is not None)
