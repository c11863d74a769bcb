"""Prints the published rows with their presets, as a table, CSV or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from resnetlab.errors import require_one_of
from resnetlab.published.configuration import preset_of
from resnetlab.published.results import Published
from resnetlab.report.table import fitting
from resnetlab.runs.files import csv_text

FORMATS = ("table", "csv", "json")
COLUMNS = (  # as many as there is room for, the first of them first
    *("id", "best", "wd", "l2", "epoch@threshold", "optimizer", "epochs", "schedule", "lr", "batch", "model"),
    *("val_acc there", "preset", "confidence"),
)


def print_rows(rows: Sequence[Published], form: str = "table", wide: bool = False) -> None:
    """Prints the rows; CSV and JSON have every column of published.csv, and preset. Raises ConfigError for the form."""
    require_one_of("--format", form, FORMATS)
    found = [{"preset": preset_of(row.id), **asdict(row)} for row in rows]
    if form == "table":
        _print_table(rows, wide)
    elif form == "json":
        print(json.dumps(found, indent=2))
    else:
        names = ["preset", *(field.name for field in fields(Published))]
        print(csv_text([names, *([_cell(row[name]) for name in names] for row in found)]), end="")


def _print_table(rows: Sequence[Published], wide: bool = False) -> None:
    """As many columns as a terminal has room for; wide, and elsewhere: all."""
    columns = list(zip(COLUMNS, *map(_cells, rows), strict=True))
    room = Console().width if Console().is_terminal and not wide else 10**6
    shown = columns[: fitting(columns, room - 1)]
    rest = "" if len(shown) == len(columns) else f" {len(columns) - len(shown)} more columns: --wide."
    note = f"wd ?: lost in print. Epochs count from 1. (epoch@threshold): not reached by then.{rest}"
    table = Table(*(name for name, *_ in shown), caption=note)
    for cells in zip(*(cells for _, *cells in shown), strict=True):
        table.add_row(*cells)
    needed = 1 + sum(3 + max(map(len, column)) for column in shown)
    Console(width=min(room, needed)).print(table)


def _cells(row: Published) -> list[str]:
    preset = preset_of(row.id)
    wd = "?" if row.wd is None else _number(row.wd)
    best = _number(row.val_acc_best) + ("" if row.epoch_best is None else f" @ {row.epoch(row.epoch_best)}")
    recipe = [row.optimizer, _number(row.epochs), row.schedule or "-", _number(row.lr), _number(row.batch_size)]
    rest = [row.model, _number(row.val_acc_at_threshold), "" if preset == row.id else preset, row.confidence]
    return [row.id, best, wd, _number(row.l2), _threshold(row), *recipe, *rest]


def _threshold(row: Published) -> str:
    if row.reached is None:
        return "-" if row.threshold is None else f"(-@{row.threshold:g})"
    text = f"{row.bound or ''}{row.epoch(row.epoch_at_threshold)}@{row.threshold:g}"
    return text if row.reached else f"({text})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _cell(value: Any) -> str:
    return "" if value in (None, {}, ()) else value if isinstance(value, str) else json.dumps(value)
