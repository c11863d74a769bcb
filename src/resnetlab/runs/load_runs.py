"""All runs below some folders as one table, for a notebook or a script of one's own."""

import csv
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from resnetlab.runs import load
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import METRICS
from resnetlab.runs.summary import Row


def load_runs(*folders: str | Path, epochs: bool = False) -> Any:
    """A row for each run below the folders: where it is, how it ended, its settings, and its summary.

    status: finished, diverged, unfinished or unreadable (`reason` says why). Settings have the command line's keys, as
    "schedule.final". epochs: a row for each epoch instead, with the columns of metrics.csv; lr and momentum, which are
    settings too, are "epoch/lr" and "epoch/momentum". A pandas.DataFrame where pandas is installed, else a list of
    dictionaries. Reads only. Raises ConfigError for what is no folder.
    """
    paths = [Path(folder) for folder in folders]
    load.require_folders(paths)
    rows = [row for path in load.run_paths(paths) for row in rows_of(path, epochs)]
    if find_spec("pandas") is None:
        return rows
    from pandas import DataFrame

    return DataFrame(rows)


def rows_of(path: Path, epochs: bool) -> list[dict[str, Any]]:
    """The rows of one run."""
    manifest = load.read_manifest(path)
    row: dict[str, Any] = {"configuration": load.configuration_of(path, manifest), "path": str(path)}
    row |= dict(flat(manifest.get("config", {})))
    try:
        run = load.read_run(path)
        row |= run.summary
        found = run.rows
    except load.UnusableRun as error:
        row |= load.read_summary(path, manifest) if error.kind == "diverged" else {}
        row |= {"status": error.kind, "reason": error.reason}
        found = rows_there(path)
    renamed = ({f"epoch/{k}" if k in ("lr", "momentum") else k: v for k, v in of_epoch.items()} for of_epoch in found)
    return [row | columns for columns in renamed] if epochs else [row]


def rows_there(path: Path) -> list[Row]:
    """The epochs that a run without a result has left; none where its file is missing or damaged."""
    try:
        return read_rows(path / METRICS)
    except (OSError, ValueError, AttributeError, TypeError, csv.Error):
        return []


def flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under the command line's keys: ("schedule", "cosine"), ("schedule.final", 0.1)."""
    for key, value in settings.items():
        if isinstance(value, dict) and "name" in value:
            yield key, value["name"]
            yield from flat({name: part for name, part in value.items() if name != "name"}, f"{key}.")
        else:
            yield f"{path}{key}", value
