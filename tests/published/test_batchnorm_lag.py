"""The report's section on batch-norm lag, against fluctuations that are written into the rows by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from resnetlab.published.batchnorm_lag import TEXTS, configurations_with_fluctuation, findings
from resnetlab.published.series_report import write_series_report
from resnetlab.report.groups import Configuration, collect
from resnetlab.runs.files import read_rows, write_json, write_rows
from resnetlab.runs.summary import best_and_final
from synthetic import write_run

RUNS = Path("runs")


def planted(running: float, recal: float | None, seed: int = 0, train: float = 0.1, **settings: object) -> None:
    """A run whose cross-entropies fall evenly over epochs 10 to 20, but for a spike in the middle, and leap where
    nobody looks. A spike in the middle leaves the slope of the straight line alone, so it is the fluctuation."""
    validated_twice = {} if recal is None else {"recalibrate_bn": True}
    folder = write_run(RUNS, seed=seed, epochs=20, **settings, **validated_twice)
    rows = read_rows(folder / "metrics.csv")
    for row in rows:
        fall, spike = (99.0, 0.0) if row["epoch"] < 10 else (3 - 0.05 * row["epoch"], float(row["epoch"] == 15))
        row |= {"val/ce": fall + running * spike, "train/ce": fall - train * spike, "weight_norm": 30.0}
        row |= {} if recal is None else {"val/ce_recal": fall + recal * spike, "val/acc_recal": 0.7}
        row |= {"relative_update": 0.001 * row["epoch"]}
    write_rows(folder / "metrics.csv", rows)
    write_json(folder / "summary.json", json.loads((folder / "summary.json").read_text()) | best_and_final(rows))


def found() -> list[Configuration]:
    return configurations_with_fluctuation(collect([RUNS]).configurations)


def test_fluctuations_are_those_of_the_window_and_means_of_it_stand_beside() -> None:
    for seed, running in enumerate((1.8, 2.2, 2.0)):
        planted(running, 0.2, seed)
    (c,) = found()
    assert c.values("fluctuation_running") == pytest.approx([1.8, 2.2, 2.0])
    assert c.values("fluctuation_recal") == pytest.approx([0.2, 0.2, 0.2])
    assert c.values("fluctuation_train") == pytest.approx([0.1, 0.1, 0.1])
    assert c.values("weight_norm") == [30.0, 30.0, 30.0]
    assert c.values("relative_update") == pytest.approx([0.015, 0.015, 0.015])  # epochs 10 to 20
    assert c.values("least_val_acc_recal") == [0.7, 0.7, 0.7]
    said, decided = findings([c])
    assert decided
    assert "leaves 10% of it" in said
    assert "Most of it is the running statistics', not the loss surface's (n = 3)" in said
    assert "annot tell" not in said


@pytest.mark.parametrize(
    ("runs", "conclusion", "decided"),
    [
        ([{"recal": 1.9}], "Cannot tell at n = 1", False),
        ([{"recal": 0.1, "seed": seed} for seed in (0, 1)], "Cannot tell at n = 2", False),
        ([{"recal": recal, "seed": seed} for seed, recal in enumerate((0.1, 1.9, 0.5))], "Cannot tell at n = 3", False),
        ([{"recal": recal, "seed": seed} for seed, recal in enumerate((1.9, 1.8, 1.7))], "do not explain it", True),
        (
            [{"recal": r + s / 50, "seed": s, "wd": w} for r, w in ((0.1, 0.3), (1.5, 0.1)) for s in (0, 1, 2)],
            r"Most of it .* in 1 of 2 \(n = 3\)",
            True,
        ),
        ([{"running": 0.15, "recal": 0.1}], "nothing to explain", True),
        ([{"running": 0.12, "recal": None, "model.norm": "group"}], "the cause cannot be told", False),
    ],
)
def test_the_conclusion_is_what_the_fluctuations_allow(
    runs: list[dict[str, Any]], conclusion: str, decided: bool
) -> None:
    for keys in runs:
        planted(**({"running": 2.0} | keys))
    said, told = findings(found())
    assert re.search(conclusion, said)
    assert told == decided


def test_group_norm_is_the_control_of_its_counterpart() -> None:
    planted(2.0, 0.2, wd=0.3)
    planted(0.12, None, wd=0.3, **{"model.norm": "group"})
    said, _ = findings(found())
    assert "In 1 of these" in said
    assert "leaves 10% of it, norms without them 6%." in said


def test_an_even_fall_is_no_fluctuation_and_a_stretched_schedule_has_none() -> None:
    planted(2.0, 0.1, **{"schedule.stretch": True})
    assert found() == []
    planted(0.0, 0.0, train=0.0)
    assert found()[0].values("fluctuation_running") == [pytest.approx(0.0, abs=1e-12)]


@pytest.mark.parametrize("recal", [None, 0.2])
def test_the_page_has_table_plot_and_conclusion_where_runs_have_either(recal: float | None) -> None:
    for seed in range(3):
        planted(2.0, recal, seed)
    assert bool(found()) == bool(recal)
    write_series_report(collect([RUNS]), Path("out"))
    page = Path("out/report.html").read_text()
    assert ('id="batchnorm-lag"' in page) == ("<b>In 1 of these" in page) == bool(recal)
    assert ("needs recalibrate_bn=true or model.norm=group" not in page) == bool(recal)
    assert bool(list(Path("out/figures").glob("*-batchnorm-lag.png"))) == bool(recal)


@pytest.mark.parametrize("n", [1, 2])
def test_no_conclusion_is_bold_at_an_n_at_which_the_claims_cannot_tell(n: int) -> None:
    for seed in range(n):
        planted(2.0, 0.2, seed)
    write_series_report(collect([RUNS]), Path("out"))
    page = Path("out/report.html").read_text()
    assert "In 1 of these" in page
    assert "<b>In 1 of these" not in page


def test_the_columns_of_the_section_are_metrics_that_runs_have() -> None:
    for seed in range(2):
        planted(2.0, 0.2, seed)
    known = found()[0].runs[0].metrics.keys() | {"weight_norm", "relative_update"}  # of a run that was trained
    for metric, *texts, digits in TEXTS["columns"]:
        assert metric in known
        assert len(texts) == 2
        assert all(texts)
        assert digits in (1, 3, 5)
