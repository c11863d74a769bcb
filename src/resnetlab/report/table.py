"""The table as text: on the console, as CSV and as Markdown."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resnetlab.report.collect import Collection
from resnetlab.report.columns import COSTS, NOTHING, SETTINGS, ReferenceValues, cell, columns, number, setting_text
from resnetlab.report.compare import Comparison
from resnetlab.report.configurations import Configuration, Key
from resnetlab.report.statistics import Spread, spread

__all__ = ["count_text", "mean_sd", "pairs_csv", "print_table", "table_csv", "table_md"]

References = Mapping[Key, ReferenceValues]
WIDTH = 120


def count_text(n: int, asked: int = 0) -> str:
    """For example "n = 3 of 5" where a sweep asked for more seeds than there are."""
    text = f"n = {n} of {asked}" if asked > n else f"n = {n}"
    return f"{text}, no spread" if n == 1 else text


def mean_sd(values: Sequence[float], of: int, digits: int | None = None) -> str:
    """For example "0.9231 ± 0.0012"; "(2 of 3)" behind it where not all of the runs have a value."""
    found = spread(values)
    if found is None:
        return NOTHING
    text = number(found.mean, digits) + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == of else f"{text} ({found.n} of {of})"


def print_table(collection: Collection) -> None:
    """Prints one row a configuration, 120 columns wide at most, and below it what is not in it."""
    console = Console(width=min(WIDTH, Console().width) if Console().is_terminal else WIDTH)
    thresholds = collection.thresholds[:2]
    table = Table(
        "configuration", *(f"epoch at {name}" for name in thresholds), "best val acc", "final val acc", "s/epoch"
    )
    for study, configurations in collection.studies.items():
        table.add_section()
        table.add_row(f"[bold]{escape(study)}[/bold]")
        for c in configurations:
            reached = [mean_sd(c.values(f"epoch_to_{name}"), c.n, 1) for name in thresholds]
            accuracies = [mean_sd(c.values(figure), c.n, 4) for figure in ("best_val_acc", "final_val_acc")]
            table.add_row(
                f"{escape(marked(c))}; {count_text(c.n, c.asked)}",
                *reached,
                *accuracies,
                mean_sd(c.values("seconds_per_epoch"), c.n),
            )
    console.print(table)
    for line in remark_lines(collection):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def marked(configuration: Configuration) -> str:
    """The label, with the mark of runs that saw a part of the data."""
    reduced = configuration.reduced_data
    return f"{configuration.label} ({reduced})" if reduced else configuration.label


def remark_lines(collection: Collection) -> list[str]:
    """One line for every run that is not used, and for every one of which something was left out."""
    lines = [f"{unused.path}: {unused.reason}" for unused in collection.unused]
    return lines + [f"{run.path}: {remark}" for run in collection.runs for remark in run.remarks]


def table_csv(collection: Collection, references: References | None) -> str:
    """One line a configuration, full precision: mean, sd, n and interval of each figure; empty where unknown."""
    head = ["study", "configuration", "label", "n", "seeds", "subset", *SETTINGS]
    rows = [line(c, collection.thresholds, references) for c in collection.configurations]
    figures = [column.figure for column in columns(collection.thresholds)]
    parts = (
        "mean",
        "sd",
        "n",
        "low_95",
        "high_95",
        *(("published", "sd_from_published") if references is not None else ()),
    )
    return as_csv([[*head, *(f"{figure}_{part}" for figure in figures for part in parts)], *rows])


def line(c: Configuration, thresholds: Sequence[str], references: References | None) -> list[Any]:
    settings = [c.setting(key) for key in SETTINGS]
    cells: list[Any] = [c.study, c.name, c.label, c.n, " ".join(str(run.seed) for run in c.runs), c.subset, *settings]
    for column in columns(thresholds):
        found = c.spread(column.figure) or Spread(0, float("nan"))
        cells += [found.mean if found.n else None, found.sd, found.n, found.low, found.high]
        if references is not None:
            printed = references[c.key].mean(column.figure) if c.key in references else None
            apart = None
            if printed is not None and found.sd and column.figure not in COSTS:
                apart = (found.mean - printed) / found.sd
            cells += [printed, apart]
    return cells


def pairs_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison, its p values at full precision."""
    head = [
        "study",
        "figure",
        "key",
        "first",
        "second",
        "n_first",
        "n_second",
        "difference",
        "welch_p",
        "permutation_p",
    ]
    rows = [
        [
            c.first.study,
            c.figure,
            c.key,
            *names(c),
            *c.counts,
            c.difference,
            c.welch_p,
            c.permutation_p,
            c.adjusted,
            c.verdict,
        ]
        for c in comparisons
    ]
    return as_csv([[*head, "holm_p", "verdict"], *rows])


def names(comparison: Comparison) -> tuple[str, str]:
    return comparison.first.name, comparison.second.name


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def table_md(collection: Collection, references: References | None) -> str:
    """The figures that any run has, mean ± sd and the interval; below it the runs that are not used."""
    shown = [c for c in columns(collection.thresholds) if any(k.values(c.figure) for k in collection.configurations)]
    heads = ["study", "configuration", "n", *(column.heading for column in shown), *SETTINGS.values()]
    lines = [row_md(heads), row_md(["---"] * len(heads))]
    for c in collection.configurations:
        cells = [cell(c, column, (references or {}).get(c.key)) for column in shown]
        figures = [f"{found.text} ({'; '.join(found.notes)})" if found.notes else found.text for found in cells]
        lines.append(
            row_md(
                [c.study, marked(c), count_text(c.n, c.asked), *figures, *(setting_text(c, key) for key in SETTINGS)]
            )
        )
    remarks = [f"- {text}" for text in remark_lines(collection)]
    explained = "mean ± sd over seeds; in brackets the 95 % confidence interval of the mean (Student's t)"
    return "\n".join(
        [*lines, "", explained, *(["", "Not used, or not all of it:", "", *remarks] if remarks else []), ""]
    )


def row_md(cells: Sequence[str]) -> str:
    kept = (text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for text in cells)
    return "| " + " | ".join(kept) + " |"
