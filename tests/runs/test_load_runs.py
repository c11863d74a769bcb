"""load_runs against the files themselves, read with csv and json."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pandas
import pytest

from resnetlab import ConfigError, load_runs
from resnetlab.runs import load_runs as module
from synthetic import begin_run

SEEDS = {"finished": 0, "diverged": 1, "unfinished": 2, "unreadable": 3}


@pytest.fixture
def folders() -> dict[str, Path]:
    """A run of each status, in outputs/ of an empty folder, the last with a damaged summary."""
    ends = {"finished": "finished", "diverged": "diverged", "unfinished": "", "unreadable": "finished"}
    found = {name: begin_run(10 if end == "finished" else 4, end, seed=SEEDS[name]).path for name, end in ends.items()}
    (found["unreadable"] / "summary.json").write_text("{")
    return found


def test_a_row_a_run_holds_its_settings_and_its_summary(folders: Mapping[str, Path]) -> None:
    table = load_runs("outputs").set_index("status")
    assert sorted(table.index) == sorted(folders)
    for status, path in folders.items():
        row = table.loc[status]
        config = json.loads((path / "manifest.json").read_text())["config"]
        assert (row["path"], row["seed"], row["configuration"]) == (str(path), SEEDS[status], path.parent.name)
        assert (row["schedule"], row["schedule.interval"]) == (
            config["schedule"]["name"],
            config["schedule"]["interval"],
        )
        assert row["trainer.precision"] == config["trainer"]["precision"]
    assert table.loc["diverged"]["epochs_trained"] == 4
    assert table.loc["diverged"]["wd"] == table.loc["finished"]["wd"] == 0.2
    summary = json.loads((folders["finished"] / "summary.json").read_text())
    row = table.loc["finished"]
    assert {key: row[key] for key in ("best_val_acc", "final_val_acc", "best_epoch")} == {
        key: summary[key] for key in ("best_val_acc", "final_val_acc", "best_epoch")
    }
    assert "not finished: 4 of 10 epochs" in table.loc["unfinished"]["reason"]
    assert "summary.json cannot be read" in table.loc["unreadable"]["reason"]


def test_a_row_an_epoch_is_metrics_csv(folders: Mapping[str, Path]) -> None:
    table = load_runs("outputs", epochs=True)
    for status in ("finished", "unfinished", "unreadable"):
        mine = table[table["status"] == status]
        with (folders[status] / "metrics.csv").open(newline="") as file:
            assert list(mine["val/acc"]) == [float(row["val/acc"]) for row in csv.DictReader(file)]
        assert set(mine["seed"]) == {SEEDS[status]}
        with (folders[status] / "metrics.csv").open(newline="") as file:
            assert list(mine["epoch/lr"]) == [float(row["lr"]) for row in csv.DictReader(file)]
        assert set(mine["lr"]) == {8e-4}  # the setting


def test_without_pandas_it_is_a_list_with_the_same_rows(
    folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_runs("outputs")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    rows = load_runs(*(path.parents[1] for path in folders.values()))  # each run once
    assert isinstance(rows, list)
    assert pandas.DataFrame(rows).equals(table)


@pytest.mark.parametrize("text", ["", "epoch\n1,2,3\n", "epoch,val/acc\n1,high\n", "\0"])
def test_damaged_rows_of_a_run_without_a_result_cost_no_other_run(folders: Mapping[str, Path], text: str) -> None:
    (folders["unfinished"] / "metrics.csv").write_text(text)
    assert set(load_runs("outputs")["status"]) == set(folders)
    assert "unfinished" not in set(load_runs("outputs", epochs=True)["status"])


def test_what_is_no_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        load_runs("nowhere")


def test_a_number_too_large_for_any_computer_costs_no_other_run(folders: Mapping[str, Path]) -> None:
    file = folders["finished"] / "metrics.csv"
    lines = file.read_text().splitlines()
    lines[1] = ",".join(["1", "9" * 400, *lines[1].split(",")[2:]])
    file.write_text("\n".join(lines) + "\n")
    table = load_runs("outputs").set_index("path")
    assert table.loc[str(folders["finished"])]["reason"] == "a number in it is too large for any computer"
    assert len(table) == 4
