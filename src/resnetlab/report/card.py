"""A model card: Markdown with the front matter of model hubs, about an exported network and the seeds beside it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnetlab.report.groups import interval_of
from resnetlab.runs.load import UnusableRun, read_run
from resnetlab.runs.summary import Row, best_row

COLUMNS = {"raw": "val/acc", "averaged": "val/acc_avg", "reestimated": "val/acc_recal"}


def model_card(run_folder: Path, about: dict[str, Any], rows: Sequence[Row], ranked: str) -> str:
    """Data, recipe, accuracy over the finished seeds in the run's folder, split, selection, limits.

    about: model.json. rows: of the checkpoint. ranked: the column that best.ckpt is the best of.
    """
    column, best = COLUMNS[about["weights"]], best_row(rows, ranked) == about["figures"]
    final = {"raw": "final_test_acc", "averaged": "averaged_test_acc"}.get(about["weights"])
    test = final if not best else "best_test_acc" if column == ranked else None  # which was of other weights
    values, tests = [], []
    for folder in sorted(run_folder.absolute().parent.glob("seed=*")):
        with suppress(UnusableRun):
            run = read_run(folder)
            row = (best_row(run.rows, ranked) if best else run.rows[-1]) or {}
            values += [row[column]] if column in row else []
            tests += [run.metrics[test]] if test in run.metrics else []
    intervals = {"seeds": interval_of(column, values), "test": interval_of(str(test), tests)}
    figures = {"accuracy": about["figures"].get(column), **intervals}
    environment = Environment(loader=PackageLoader("resnetlab.report", "."), undefined=StrictUndefined)
    return environment.get_template("card.md.jinja").render(about=about, ranked=ranked, best=best, **figures) + "\n"
