"""A table of runs: one row a configuration, mean, standard deviation and number of its seeds."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["collect", "mean_sd", "print_table"]

COLUMNS = ("final_val_acc", "best_val_acc", "final_val_ce", "seconds_per_epoch")


def collect(folders: Iterable[Path]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """({configuration: finished summaries}, one line for every run that is not in them, and why)."""
    finished: dict[str, list[dict[str, Any]]] = defaultdict(list)
    others = []
    for config in sorted(path for folder in folders for path in folder.rglob("seed=*/config.yaml")):
        run = config.parent
        try:
            summary = json.loads((run / "summary.json").read_text())
            status, study = summary["status"], summary["study"]
        except OSError:
            others.append(f"{run}: not finished")
            continue
        except (ValueError, KeyError, TypeError) as error:
            others.append(f"{run}: summary.json cannot be read ({type(error).__name__})")
            continue
        if status == "finished":
            finished[f"{study}/{run.parent.name}"].append(summary)
        else:
            others.append(f"{run}: {status} in epoch {summary.get('diverged_epoch')}")
    return dict(finished), others


def mean_sd(values: Sequence[float | None]) -> str:
    """For example "0.9231 +- 0.0012"; a dash where no run has a value, no sd for one run."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.4g}"
    return mean if len(known) == 1 else f"{mean} +- {statistics.stdev(known):.2g}"


def print_table(folders: Iterable[Path]) -> None:
    """Prints the table of all runs below `folders`, and below it what is not in it."""
    finished, others = collect(folders)
    table = Table("configuration", "n", *COLUMNS, "epochs to thresholds")
    for name, summaries in finished.items():
        reached = sorted({key for summary in summaries for key in summary if key.startswith("epoch_to_")})
        epochs = ", ".join(f"{k.removeprefix('epoch_to_')}: {mean_sd([s.get(k) for s in summaries])}" for k in reached)
        figures = [mean_sd([summary.get(column) for summary in summaries]) for column in COLUMNS]
        table.add_row(name, str(len(summaries)), *figures, epochs)
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    for line in others:
        console.print(line, markup=False, highlight=False)
