"""The table as text: on the console, as CSV and as Markdown."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from rich.markup import escape
from rich.table import Table

from resnetlab.console import Console
from resnetlab.report.columns import COSTS, SETTINGS, ReferenceValues, cell, columns, mean_sd, measured_columns
from resnetlab.report.compare import Comparison
from resnetlab.report.groups import Collection, Configuration, Key
from resnetlab.report.headlines import common_reduction, described, headlines, lag_line
from resnetlab.report.statistics import MeanInterval
from resnetlab.runs.files import csv_text, records_csv

References = Mapping[Key, ReferenceValues]
WIDTH, LABEL = 120, 18  # of the table where there is no terminal, and of a configuration at least
FIRST = ("best_val_acc", "final_val_acc", "final_val_acc_recal", "final_val_acc_avg", "averaged_test_acc")
MEANING = "mean ± sd over seeds; in brackets, from n = 3 on, the 95 % confidence interval of the mean (Student's t)"
PAIR_COLUMNS = (
    *("study", "figure", "key", "first", "second", "n_first", "n_second"),
    *("difference", "welch_p", "permutation_p", "holm_p", "verdict"),
    *("paired_images", "paired_seeds", "mcnemar_p", "paired_low_95", "paired_high_95"),
)


def count_text(n: int, planned: int = 0) -> str:
    """For example "n = 3 of 5" where a sweep planned more seeds than there are."""
    text = f"n = {n} of {planned}" if planned > n else f"n = {n}"
    return f"{text}, no spread" if n == 1 else text


def print_table(collection: Collection, wide: bool = False) -> None:
    """Print one row a configuration, the study's best and how to repeat it, and the runs that are skipped.

    As many columns as a terminal has room for, or 120 characters elsewhere; wide: all.
    """
    console = Console(width=None if Console().is_terminal else WIDTH)
    shown = measured_columns(collection)
    chosen = shown if wide else sorted(shown, key=lambda column: column.metric not in FIRST)  # keeps their order
    rows = [[mean_sd(c.interval(k.metric), c.n, k.digits) for k in chosen] for c in collection.configurations]
    heads = [textwrap.fill(column.heading, 14) for column in chosen]
    label = max(LABEL, console.width // 5)
    room = 10**6 if wide else console.width - label - 4
    count = fitting([[head, *(row[place] for row in rows)] for place, head in enumerate(heads)], room)
    table = Table("configuration", *heads[:count])
    table.columns[0].min_width = label
    texts = iter(rows)
    for study, configurations in collection.studies.items():
        table.add_section()
        table.add_row(f"[bold]{escape(study)}[/bold]\n{escape(described(configurations))}".strip())
        for c in configurations:
            name = c.label if common_reduction(configurations) else marked(c)
            n = count_text(c.n, c.planned)
            between = " " if len(name) + len(n) + 2 <= label else "\n"
            table.add_row(f"{escape(name)};{between}{n}", *next(texts)[:count])
    if wide:
        needed = console.measure(table, options=console.options.update(max_width=room)).maximum
        console.width = max(console.width, needed)
    console.print(table)
    hidden = f"{len(shown) - count} more columns: --wide, or --out DIR" if count < len(shown) else ""
    for line in (hidden, *closing_lines(collection), *remark_lines(collection)):
        if line:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def fitting(columns: Sequence[Sequence[str]], room: int) -> int:
    """How many of the columns, from the first on, fit into so many characters, with the lines between them."""
    widths = (3 + max(len(line) for cell in column for line in cell.split("\n")) for column in columns)
    return sum(end <= room for end in accumulate(widths))


def closing_lines(collection: Collection) -> Iterator[str]:
    """What came out of each study with the command that repeats its best, and stale batch-norm statistics."""
    for found in headlines(collection):
        yield f"{found.study}: {found.lead}. {' '.join(found.sentences)}"
        yield f"  to repeat it: {found.command}" if found.command else ""
    yield lag_line(collection)


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
    return records_csv([csv_row(c, collection.thresholds, references) for c in collection.configurations])


def csv_row(c: Configuration, thresholds: Sequence[str], references: References | None) -> dict[str, Any]:
    """The configuration's cells; mean_curve_to_*: the epoch at which the mean over its seeds reaches a threshold."""
    row = {"study": c.study, "configuration": c.name, "label": c.label, "n": c.n}
    row |= {"seeds": " ".join(str(run.seed) for run in c.runs)} | {key: c.setting(key) for key in ("subset", *SETTINGS)}
    for metric in (column.metric for column in columns(thresholds)):
        found = c.interval(metric) or MeanInterval(0, float("nan"))
        cells = {"mean": found.mean if found.n else None, "sd": found.sd, "n": found.n}
        cells |= {"low_95": found.low, "high_95": found.high}
        if references is not None:
            values = references[c.key].values.get(metric) if c.key in references else None
            cells |= {"published": fmean(values) if values else None, "sd_from_published": None}
            if values and found.sd and metric not in COSTS:
                cells["sd_from_published"] = (found.mean - fmean(values)) / found.sd
        row |= {f"{metric}_{part}": value for part, value in cells.items()}
    return row | {f"mean_curve_to_{name}": c.crossing(name) for name in thresholds}


def pairs_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison, its p values at full precision."""
    rows = [
        [
            *(c.first.study, c.metric, c.key, c.first.name, c.second.name, *c.counts),
            *(c.difference, c.welch_p, c.permutation_p, c.adjusted, c.verdict, *(c.paired or [None] * 5)),
        ]
        for c in comparisons
    ]
    return csv_text([PAIR_COLUMNS, *rows])


def table_md(collection: Collection, references: References | None) -> str:
    """The metrics that any run has, mean ± sd and the interval; below it the runs that are skipped."""
    shown = measured_columns(collection)
    heads = ["study", "configuration", "n", *(column.heading for column in shown), *SETTINGS.values()]
    lines = [md_row(heads), md_row(["---"] * len(heads))]
    for c in collection.configurations:
        cells = [cell(c, column, (references or {}).get(c.key)) for column in shown]
        texts = [f"{found.text} ({'; '.join(found.notes)})" if found.notes else found.text for found in cells]
        settings = [c.setting_text(key) for key in SETTINGS]
        lines.append(md_row([c.study, marked(c), count_text(c.n, c.planned), *texts, *settings]))
    lines += ["", MEANING]
    if remarks := [f"- {text}" for text in remark_lines(collection)]:
        lines += ["", "Not used, or not all of it:", "", *remarks]
    return "\n".join([*lines, ""])


def md_row(cells: Sequence[str]) -> str:
    escaped = (text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for text in cells)
    return "| " + " | ".join(escaped) + " |"
