"""The summary row, against figures worked out by hand."""

import pytest

from resnetlab import compose
from resnetlab.runs.summary import (
    fit_sign,
    improvements,
    out_of_patience,
    summarize,
    threshold_columns,
    validation_range,
)

VAL_ACC = [0.50, 0.91, 0.90, 0.92, 0.92, 0.935, 0.93]
ROWS = [
    {"epoch": e, "val/acc": acc, "val/ce": 10.0 - e, "val/loss": 11.0 - e}
    | {"train/acc": 0.1 * e, "train/ce": 8.0 / e, "time/epoch": 100.0 if e == 7 else float(e)}
    for e, acc in enumerate(VAL_ACC, start=1)
]


def test_thresholds_count_from_the_first_epoch_that_reaches_them() -> None:
    found = threshold_columns(ROWS, [0.92, 0.93, 0.94])
    assert found == {
        **{"epoch_to_0.92": 4, "val_acc_at_0.92": 0.92, "epoch_to_0.93": 6, "val_acc_at_0.93": 0.935},
        **{"epoch_to_0.94": None, "val_acc_at_0.94": None},
    }


def test_improvements_are_strict() -> None:
    assert improvements(ROWS) == [[1, 0.50], [2, 0.91], [4, 0.92], [6, 0.935]]


def test_the_row() -> None:
    row = summarize(compose(), ROWS, status="finished", parameters=7)
    assert (row["best_epoch"], row["best_val_acc"], row["final_val_acc"]) == (6, 0.935, 0.93)
    assert (row["final_val_loss"], row["final_val_ce"], row["final_train_acc"]) == (4.0, 3.0, pytest.approx(0.7))
    assert (row["seconds_per_epoch"], row["parameters"], row["epochs_trained"]) == (4.0, 7, 7)  # the median
    assert row["final_val_acc5"] is None  # unknown is null, never 0
    assert row["energy_wh"] is None


def test_a_run_without_an_epoch_has_a_row_of_nulls() -> None:
    row = summarize(compose(), [], status="diverged", diverged_epoch=1)
    assert row["status"] == "diverged"
    assert row["diverged_epoch"] == 1
    assert row["best_epoch"] is row["best_val_acc"] is row["final_val_acc"] is row["seconds_per_epoch"] is None
    assert row["improvements"] == []


def test_the_validation_range_is_of_epochs_10_to_36_and_needs_five() -> None:
    rows = [{"epoch": e, "val/ce": 100.0 if e in (9, 37) else float(e % 5)} for e in range(1, 61)]
    assert validation_range(rows) == 4.0
    assert validation_range(rows[:14]) == 4.0  # epochs 10 to 14
    assert validation_range(rows[:13]) is None


def test_patience_counts_epochs_without_a_new_best() -> None:
    assert [out_of_patience(ROWS[:n], 2) for n in range(8)] == [False] * 8
    assert out_of_patience(ROWS, 1)
    assert out_of_patience(ROWS[:3], 1)
    assert out_of_patience(ROWS[:5], 1)
    assert not out_of_patience(ROWS, None)


def curves(train: list[float], val: list[float], column: str = "val/ce") -> list[dict[str, float]]:
    pairs = enumerate(zip(train, val, strict=True), 1)
    return [{"epoch": e, "train/ce": t, "val/ce": 9.0, column: v} for e, (t, v) in pairs]


@pytest.mark.parametrize("column", ["val/ce", "val/ce_recal"])
@pytest.mark.parametrize(
    ("train", "val", "sign", "since"),
    [
        ([4.0, 3.0, 2.0, 1.8], [3.0, 2.5, 1.9, 1.6], "underfitting", None),  # the notebook's final run: 1.79 > 1.66
        ([2.0, 1.0, 0.5, 0.2, 0.1], [1.9, 1.2, 1.3, 1.5, 1.7], "overfitting", 2),
        ([2.0, 1.0, 0.5, 0.2, 0.1], [1.9, 1.4, 1.2, 1.1, 1.1], "balanced", None),
        ([2.0, 1.0, 0.5, 0.2, 0.1], [1.9, 1.4, 9.9, 1.1, 1.1], "balanced", None),  # one outlier is no sign
        ([2.0, 1.0, 0.5, 0.6, 0.7], [1.9, 1.4, 0.8, 1.2, 1.4], "balanced", None),  # both rise: no overfitting
        ([2.0, 1.0, 0.5], [1.9, 1.2, 1.5], None, None),  # too short to tell
    ],
)
def test_the_signs_of_under_and_overfitting(
    train: list[float], val: list[float], sign: str | None, since: int | None, column: str
) -> None:
    found = fit_sign(curves(train, val, column))
    assert (found["fit_sign"], found["overfitting_since"]) == (sign, since)


def test_the_gap_and_its_growth() -> None:
    found = fit_sign(curves([2.0, 1.0, 0.5, 0.2], [2.1, 1.3, 1.2, 1.2]))
    assert found["generalization_gap"] == pytest.approx(1.0)  # 1.2 - 0.2
    assert found["gap_growth"] == pytest.approx(1.0 - 0.7)  # in the middle, epoch 3: 1.2 - 0.5
