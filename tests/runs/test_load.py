"""One validator of summary.json, for training, status and report; the rest of it is tested with the report."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.optim.schedules import SCHEDULES
from resnetlab.runs.load import UnusableRun, planned_epochs, read_manifest, read_run, read_summary
from resnetlab.runs.state import StateReader
from resnetlab.runs.sweep_records import SweepFolder, read_end, read_plan
from resnetlab.training.result import finished
from synthetic import begin_run, change_summary, ten_epochs, write_run


def kind_of(path: Path) -> str:
    with pytest.raises(UnusableRun) as caught:
        read_run(path)
    return caught.value.kind


def test_a_diverged_run_has_a_summary_and_is_in_no_statistic() -> None:
    folder = begin_run(2, "diverged")
    assert read_summary(folder.path)["status"] == "diverged"
    assert kind_of(folder.path) == "diverged"
    done = finished(folder, ten_epochs())
    assert done is not None
    assert done["epochs_trained"] == 2


@pytest.mark.parametrize("change", [{"best_val_acc": "high"}, {"status": "trained"}, {"epochs": -1}, {"model": 3}])
def test_a_summary_that_the_report_cannot_read_is_not_skipped_by_training(change: dict[str, object]) -> None:
    folder = begin_run(10, "finished")
    assert finished(folder, ten_epochs()) is not None
    change_summary(folder.path, **change)
    assert kind_of(folder.path) == "unreadable"
    assert finished(folder, ten_epochs()) is None


@pytest.mark.parametrize("text", ["epoch,lr\n1,0.1\n", "", "epoch\n1,2,3\n", "epoch,val/acc\n1,high\n", "\0"])
def test_a_damaged_metrics_file_is_not_skipped_by_training(text: str) -> None:
    folder = begin_run(1, "diverged")
    assert finished(folder, ten_epochs()) is not None
    folder.metrics.write_text(text)
    assert finished(folder, ten_epochs()) is None


def test_planned_epochs_are_the_manifests_or_those_of_config_yaml() -> None:
    folder = begin_run(3)
    folder.config.write_text("epochs: 7\n")
    assert planned_epochs(folder.path, read_manifest(folder.path)) == 10
    manifest = json.loads(folder.manifest.read_text())
    del manifest["config"]
    folder.manifest.write_text(json.dumps(manifest))
    assert planned_epochs(folder.path, read_manifest(folder.path)) == 7
    folder.config.unlink()
    assert planned_epochs(folder.path, read_manifest(folder.path)) is None


BROKEN = ['"text"', "NaN", "null", "3", "[]", "{}", "[" * 100_000, '{"status":' * 100_000, '{"status": "finished"}', ""]


@pytest.mark.parametrize("text", [*BROKEN, None], ids=lambda text: "fifo" if text is None else text[:12])
def test_no_content_of_a_file_is_a_traceback_or_a_hang_for_training_status_and_report(text: str | None) -> None:
    for name in ("summary.json", "manifest.json", "metrics.csv", "config.yaml"):
        folder = begin_run(10, "finished", seed=len(name))
        (folder.path / name).unlink(missing_ok=True)
        os.mkfifo(folder.path / name) if text is None else (folder.path / name).write_text(text)
        done = finished(folder, ten_epochs())
        assert done is None or name in ("manifest.json", "config.yaml")
        if name in ("summary.json", "metrics.csv"):
            assert kind_of(folder.path) == "unreadable"
        (run,) = StateReader([folder.path]).read(0.0).runs
        assert run.state in ("damaged", "finished", "interrupted")


@pytest.mark.parametrize("text", [*BROKEN, '{"folder": 1}', '{"jobs": {}}', '{"jobs": [null, {"run": 3}]}', None])
def test_no_content_of_a_sweeps_files_is_a_traceback_or_a_hang(text: str | None) -> None:
    folder = SweepFolder.open("some")
    for name in ("sweep.json", "job-0.json"):
        os.mkfifo(folder.path / name) if text is None else (folder.path / name).write_text(text)
    assert read_plan(folder.path) == []
    assert read_end(folder.path / "job-0.json") is None
    assert set(folder.outcomes()) <= {0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.9", [0.9], {}, True])
@pytest.mark.parametrize("objective", ["final_val_acc", "best_val_acc", "final_test_acc"])
def test_a_run_whose_objective_is_no_number_is_not_finished(value: object, objective: str) -> None:
    folder = begin_run(10, "finished")
    config = replace(ten_epochs(), objective=objective)
    assert finished(folder, config) is not None
    change_summary(folder.path, **{objective: value})
    assert finished(folder, config) is None
    summary = json.loads(folder.summary.read_text())
    del summary[objective]
    folder.summary.write_text(json.dumps(summary))
    assert finished(folder, config) is None


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_manifest_of_any_schedule_is_read(schedule: str, tmp_path: Path) -> None:
    """multistep's was taken for damaged at its default milestones, and its finished run trained again."""
    folder = write_run(tmp_path, schedule=schedule)
    assert read_manifest(folder)["differs_from_defaults"]["schedule"] == schedule
