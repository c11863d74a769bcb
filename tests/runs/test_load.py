"""One validator of summary.json, for training, status and report; the rest of it is tested with the report."""

import json
from pathlib import Path

import pytest

from resnetlab.runs.load import UnusableRun, planned_epochs, read_manifest, read_run, read_summary
from resnetlab.training.result import finished
from synthetic import begin_run, change_summary, ten_epochs


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
