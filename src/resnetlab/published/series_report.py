"""What the series adds to a report: published values beside the runs that repeat them, its section and its plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from resnetlab.published.batchnorm_lag import lag_section, plot_lag
from resnetlab.published.configuration import preset_of
from resnetlab.published.preset_matching import matching_presets, reduction
from resnetlab.published.results import Published, rows
from resnetlab.report import plots
from resnetlab.report.columns import ReferenceValues
from resnetlab.report.derive import LEVELS
from resnetlab.report.groups import Collection, groups_along
from resnetlab.report.plots import Configurations, Plot, seeds_note
from resnetlab.report.write import write_report

ONE_BY_ONE = "Points are single runs; lines join the means of configurations that differ in nothing else."


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
    origins = {key: found for key, identity in known if (found := reduction(identity))}
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


def plot_decay(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    """Best validation accuracy, epochs to the first two thresholds and fluctuation of the validation loss over wd."""
    lines = groups_along(configurations, "wd")
    if not lines:
        return "Accuracy, epochs and fluctuation over wd: needs two configurations that differ in wd alone."
    members = [c for line in lines for c in line]
    names = [name for name in thresholds if any(c.values(f"epoch_to_{name}") for c in members)][:2]
    asked = " and ".join([f"epochs to {name}{' (hollow)' * (name != names[0])}" for name in names])
    panels = {"best val acc": ["best_val_acc"], asked: [f"epoch_to_{name}" for name in names]}
    panels["max - min of val ce"] = ["val_loss_fluctuation"]  # in epochs 10 to 36
    panels = {label: metrics for label, metrics in panels.items() if any(c.values(m) for m in metrics for c in members)}
    figure, axes = plots.make_panels("wd", dict.fromkeys(panels, 2.0))
    for panel, (label, metrics) in zip(axes, panels.items(), strict=True):
        for place, metric in enumerate(metrics):
            plots.draw_points(panel, lines, "wd", metric, filled=place == 0)
        if label == "max - min of val ce":
            plots.log_scale(panel)
    plots.name_groups(axes[0], lines, "wd")
    plots.legend_above(figure, axes[0])
    drawn = "Best validation accuracy, epochs to a threshold, max - min of the validation loss in epochs 10 to 36"
    caption = f"{drawn}, as far as measured. {ONE_BY_ONE} {seeds_note(lines)}"
    return Plot("wd", "Weight decay", caption, figure)


def plot_batch_size(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    lines = groups_along(configurations, "batch_size")
    if not lines:
        return "Epochs to an accuracy, seconds, watts and joules over the batch size: needs it to vary alone."
    members = [c for line in lines for c in line]
    costs = {"s / epoch": "seconds_per_epoch", "W": "power_w", "J / epoch": "joules_per_epoch"}
    costs = {label: name for label, name in costs.items() if any(c.values(name) for c in members)}
    reached = [str(level) for level in LEVELS if any(c.values(f"epoch_to_{level}") for c in members)]
    levels = reached if len(reached) > 1 else thresholds[: len(LEVELS)]
    figure, panels = plots.make_panels("batch size", {"epoch at val acc": 2.4} | dict.fromkeys(costs, 1.2))
    for place, level in enumerate(levels):
        for line in lines:
            known = [c for c in line if c.values(f"epoch_to_{level}")]
            points = [c.setting("batch_size") for c in known], [c.mean(f"epoch_to_{level}") for c in known]
            label = level if line is lines[0] else None
            panels[0].plot(*points, "o-", ms=3, lw=1, color=f"{0.75 * place / len(levels):.2f}", label=label)
    plots.legend_above(figure, panels[0])
    for axes, name in zip(panels[1:], costs.values(), strict=True):
        plots.draw_points(axes, lines, "batch_size", name)
    panels[-1].set_xscale("log", base=2)
    sizes = sorted({c.setting("batch_size") for c in members})
    panels[-1].set_xticks(sizes, [str(size) for size in sizes])
    source = " Watts and joules are the card's." if len(costs) == 3 else " No run has measured power or energy."
    caption = f"Epochs at which an accuracy is first reached, and what an epoch costs. {seeds_note(lines)}{source}"
    return Plot("batch-size", "Batch size", caption, figure)


# each returns its plot, or where it cannot be drawn a sentence that says why
SERIES_PLOTS = (plot_decay, plot_lag, plot_batch_size)
