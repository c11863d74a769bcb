"""The table as text: on the console, as CSV and as Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from resnetlab.console import Console
from resnetlab.report.columns import (
    COSTS,
    NOTHING,
    SETTINGS,
    ReferenceValues,
    cell,
    columns,
    measured_columns,
    number,
    setting_text,
)
from resnetlab.report.compare import Comparison
from resnetlab.report.groups import Collection, Configuration, Key
from resnetlab.report.statistics import MeanInterval, mean_interval

References = Mapping[Key, ReferenceValues]
WIDTH = 120
PAIR_COLUMNS = (
    *("study", "figure", "key", "first", "second", "n_first", "n_second"),
    *("difference", "welch_p", "permutation_p", "holm_p", "verdict"),
)


def count_text(n: int, planned: int = 0) -> str:
    """For example "n = 3 of 5" where a sweep planned more seeds than there are."""
    text = f"n = {n} of {planned}" if planned > n else f"n = {n}"
    return f"{text}, no spread" if n == 1 else text


def mean_sd(values: Sequence[float], of: int, digits: int | None = None) -> str:
    """For example "0.9231 ± 0.0012"; "(2 of 3)" behind it where not all of the runs have a value."""
    found = mean_interval(values)
    if found is None:
        return NOTHING
    text = number(found.mean, digits) + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == of else f"{text} ({found.n} of {of})"


def print_table(collection: Collection) -> None:
    """Print one row a configuration, 120 columns wide at most, and below it the runs that are skipped."""
    console = Console(width=min(WIDTH, Console().width) if Console().is_terminal else WIDTH)
    thresholds = collection.thresholds[:2]
    metrics: dict[str, tuple[str, int | None]] = {f"epoch at {name}": (f"epoch_to_{name}", 1) for name in thresholds}
    metrics |= {"best val acc": ("best_val_acc", 4), "final val acc": ("final_val_acc", 4)}
    metrics["s/epoch"] = "seconds_per_epoch", None
    table = Table("configuration", *metrics)
    for study, configurations in collection.studies.items():
        table.add_section()
        table.add_row(f"[bold]{escape(study)}[/bold]")
        for c in configurations:
            cells = [mean_sd(c.values(metric), c.n, digits) for metric, digits in metrics.values()]
            table.add_row(f"{escape(marked(c))}; {count_text(c.n, c.planned)}", *cells)
    console.print(table)
    for line in remark_lines(collection):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def marked(configuration: Configuration) -> str:
    """The label, with the mark of runs that saw a part of the data."""
    reduced = configuration.reduced_data
    return f"{configuration.label} ({reduced})" if reduced else configuration.label


def remark_lines(collection: Collection) -> list[str]:
    """One line for every run that is skipped, and for every one of which something was left out."""
    lines = [f"{skipped.path}: {skipped.reason}" for skipped in collection.skipped]
    return lines + [f"{run.path}: {remark}" for run in collection.runs for remark in run.remarks]


def table_csv(collection: Collection, references: References | None) -> str:
    """One line a configuration, full precision: mean, sd, n and interval of each metric; empty where unknown."""
    head = ["study", "configuration", "label", "n", "seeds", "subset", *SETTINGS]
    parts = ["mean", "sd", "n", "low_95", "high_95"]
    if references is not None:
        parts += ["published", "sd_from_published"]
    metrics = [column.metric for column in columns(collection.thresholds)]
    rows = [csv_row(c, metrics, references) for c in collection.configurations]
    return as_csv([[*head, *(f"{metric}_{part}" for metric in metrics for part in parts)], *rows])


def csv_row(c: Configuration, metrics: Sequence[str], references: References | None) -> list[Any]:
    settings = [c.setting(key) for key in SETTINGS]
    cells: list[Any] = [c.study, c.name, c.label, c.n, " ".join(str(run.seed) for run in c.runs), c.subset, *settings]
    for metric in metrics:
        found = c.interval(metric) or MeanInterval(0, float("nan"))
        cells += [found.mean if found.n else None, found.sd, found.n, found.low, found.high]
        if references is not None:
            values = references[c.key].values.get(metric) if c.key in references else None
            published = fmean(values) if values else None
            comparable = published is not None and found.sd and metric not in COSTS
            cells += [published, (found.mean - published) / found.sd if comparable else None]  # type: ignore[operator]
    return cells


def pairs_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison, its p values at full precision."""
    rows = [
        [
            *(c.first.study, c.metric, c.key, c.first.name, c.second.name, *c.counts),
            *(c.difference, c.welch_p, c.permutation_p, c.adjusted, c.verdict),
        ]
        for c in comparisons
    ]
    return as_csv([PAIR_COLUMNS, *rows])


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def table_md(collection: Collection, references: References | None) -> str:
    """The metrics that any run has, mean ± sd and the interval; below it the runs that are skipped."""
    shown = measured_columns(collection)
    heads = ["study", "configuration", "n", *(column.heading for column in shown), *SETTINGS.values()]
    lines = [md_row(heads), md_row(["---"] * len(heads))]
    for c in collection.configurations:
        cells = [cell(c, column, (references or {}).get(c.key)) for column in shown]
        texts = [f"{found.text} ({'; '.join(found.notes)})" if found.notes else found.text for found in cells]
        settings = [setting_text(c, key) for key in SETTINGS]
        lines.append(md_row([c.study, marked(c), count_text(c.n, c.planned), *texts, *settings]))
    lines += ["", "mean ± sd over seeds; in brackets the 95 % confidence interval of the mean (Student's t)"]
    if remarks := [f"- {text}" for text in remark_lines(collection)]:
        lines += ["", "Not used, or not all of it:", "", *remarks]
    return "\n".join([*lines, ""])


def md_row(cells: Sequence[str]) -> str:
    escaped = (text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for text in cells)
    return "| " + " | ".join(escaped) + " |"
