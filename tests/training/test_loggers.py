"""The loggers: what they hold is what the run wrote, and what they throw costs nothing."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from conftest import TINY, rows_of, tiny
from resnetlab import ConfigError, run
from resnetlab.cli import train_main as main
from resnetlab.config.compose import to_plain
from resnetlab.errors import RunPruned
from resnetlab.report.statistics import mean_interval
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.training.callbacks import loggers
from resnetlab.training.callbacks.checkpoints import read_checkpoint
from resnetlab.training.run import train


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    return accumulator.Reload()


def test_loggers_are_no_part_of_a_run_and_stay_out_of_its_checkpoints() -> None:
    config, plain = tiny("logger=[csv,tensorboard]", "logger.project=mine", "outputs=elsewhere"), tiny()
    assert sorted(config.logger.chosen) == ["csv", "tensorboard"]
    assert config.identity == plain.identity
    assert config.folder.path == Path("elsewhere", *plain.folder.path.parts[1:])
    assert tiny("logger=none").logger.chosen == []
    run(tiny("logger=none", "outputs=elsewhere", "epochs=1"))
    folder = tiny("outputs=elsewhere", "epochs=1").folder
    assert not list(folder.path.glob("events.*"))
    assert {*to_plain(plain)} - {*read_checkpoint(folder.last)["config"]} == {"outputs", "logger"}


def test_the_csv_logger_holds_the_rows_of_a_run_that_was_interrupted_and_went_on() -> None:
    config = tiny("logger=[csv,tensorboard]")
    with pytest.raises(RunPruned):
        train(config, epoch_hook=lambda rows: True)
    run(config)
    with (config.folder.path / "csv" / "metrics.csv").open() as file:
        found = [{k: float(v) for k, v in row.items() if v and k != "step"} for row in csv.DictReader(file)]
    assert found == read_rows(config.folder.metrics)
    scalars = events(config.folder.path).Scalars("accuracy/val")
    assert [point.value for point in scalars] == pytest.approx([row["val/acc"] for row in found])


def test_tensorboard_has_the_layout_and_the_steps() -> None:
    config = tiny(
        "logger=tensorboard", "logger.every=2", "batch_size=20", "epochs=2"
    )  # three steps an epoch: logged after 2, 4 and 6
    run(config)
    found = events(config.folder.path)
    layout = layout_pb2.Layout.FromString(found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {name: [f"{name}/train", f"{name}/val"] for name in ("accuracy", "loss")}
    assert {tag for tags in charts.values() for tag in tags} <= {*found.Tags()["scalars"]}
    steps, means = found.Scalars("steps/loss"), read_rows(config.folder.metrics)
    assert [point.step for point in steps] == [2, 4, 6]
    # of epoch 2: step 4 alone, then the mean of 5 and 6
    assert (steps[1].value + 2 * steps[2].value) / 3 == pytest.approx(means[1]["train/loss"], rel=1e-5)
    assert [point.value for point in found.Scalars("steps/lr")] == pytest.approx([8e-4] * 3, rel=1e-6)


@pytest.mark.parametrize("method", ["__init__", "log_metrics", "save", "finalize"])
@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_what_a_logger_throws_is_a_note_and_the_run_is_what_it_is_without(
    kind: Any,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished_outputs: Path,
) -> None:
    def throw(*_: object, **__: object) -> None:
        raise OSError("no space\nanywhere")

    monkeypatch.setattr(kind, method, throw)
    config = tiny("logger=[tensorboard,csv]")
    run(config)
    name = {CSVLogger: "csv", TensorBoardLogger: "tensorboard"}[kind]
    assert capsys.readouterr().err == f"note: logger={name} is left out from here on: OSError: no space\n"
    (before,) = finished_outputs.rglob("metrics.csv")
    assert rows_of(config) == rows_of(RunFolder(before.parent))


def test_a_server_that_does_not_answer_costs_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    config = tiny("logger=mlflow", "logger.uri=http://127.0.0.1:9", "epochs=1")
    assert run(config)["status"] == "finished"
    assert capsys.readouterr().err.count("note: logger=mlflow is left out") == 1


def test_wandb_offline_holds_the_rows_and_each_run_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")  # which the logger sets, and which is put back here
    folders = []
    for seed in (0, 1):
        config = tiny("logger=wandb", "logger.offline=true", "epochs=1", f"seed={seed}")
        run(config)
        assert wandb.run is None
        folders.append(config.folder)
    ids = [json.loads((folder.path / "loggers.json").read_text())["wandb"] for folder in folders]
    assert ids[0] != ids[1]
    for folder, name in zip(folders, ids, strict=True):
        (path,) = folder.path.glob(f"wandb/offline-run-*/run-{name}.wandb")
        content, row = path.read_bytes(), read_rows(folder.metrics)[0]
        for key in ("train/loss", "val/ce", "weight_norm"):  # as JSON, in a format of wandb's own
            assert key.encode() in content
            assert repr(row[key]).encode() in content


def test_trackio_is_sent_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with trackio 0.43's signatures: the real one needs a server of its own."""
    sent: list[Any] = []

    def init(project: str, name: str | None = None, config: dict | None = None) -> Any:
        sent.append((project, name, config))
        return types.SimpleNamespace(log=sent.append, finish=lambda: sent.append("end"))

    module = types.ModuleType("trackio")
    module.init, module.__spec__ = init, types.SimpleNamespace()  # type: ignore[attr-defined,assignment]
    monkeypatch.setitem(sys.modules, "trackio", module)
    config = tiny("logger=trackio", "epochs=1")
    run(config)
    assert sent[0][:2] == ("resnetlab", "/".join(config.folder.path.parts[-3:]))
    assert sent[0][2]["lr"] == 8e-4
    assert sent[1] == read_rows(config.folder.metrics)[0]
    assert sent[-1] == "end"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["logger=mlflow"], "pip install 'resnetlab[mlflow]'"),
        (["logger=none", "+logger.use.neptune=true"], "logger.use (=neptune) must be of tensorboard, csv, wandb"),
        (["logger.project=a/b"], "logger.project (='a/b') must be"),
        (["logger.every=0"], "logger.every (=0) must be in 1..1,000,000 steps"),
        (["outputs=' '"], "outputs (=' ') must name a folder"),
    ],
)
def test_bad_values_are_errors_in_one_line(overrides: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetlab.config.trainer.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        tiny(*overrides)
    assert wanted in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server of MLflow's on this machine."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    place = ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, *place],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_mlflow_has_a_run_for_the_sweep_and_one_below_it_for_each_job(
    server: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    study = [f"study={launcher}", f"hydra/launcher={launcher}", f"logger.project={launcher}", "epochs=1"]
    assert main([*TINY, *study, "logger=[tensorboard,mlflow]", "wd=0.1,0.2", "seeds=3", "-m"]) == 0
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(launcher)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    children = {found.info.run_name: found for found in runs if found is not parent}
    assert {found.data.tags["mlflow.parentRunId"] for found in children.values()} == {parent.info.run_id}
    assert {found.info.status for found in runs} == {"FINISHED"}
    values: dict[str, list[float]] = {}
    for path in sorted(Path("outputs", launcher).rglob("summary.json")):
        summary, child = json.loads(path.read_text()), children["/".join(path.parts[-4:-1])]
        assert child.data.metrics["final_val_acc"] == summary["final_val_acc"]
        assert child.data.params["wd"] == str(summary["wd"])
        history = client.get_metric_history(child.info.run_id, "val/acc")
        assert [point.value for point in history] == [
            row["val/acc"] for row in read_rows(path.with_name("metrics.csv"))
        ]
        values.setdefault(f"wd {summary['wd']}", []).append(summary["final_val_acc"])
    assert len(children) == 6
    assert {*values} == {"wd 0.1", "wd 0.2"}
    for label, accuracies in values.items():
        interval = mean_interval(accuracies)
        assert interval is not None
        for name in ("n", "mean", "sd", "low", "high"):
            assert parent.data.metrics[f"{label}/final_val_acc/{name}"] == pytest.approx(getattr(interval, name))
    blocked = tiny(f"study={launcher}", "epochs=1", "wd=0.3").folder.path
    blocked.parent.mkdir()
    blocked.write_text("in the way")
    assert main([*TINY, *study, "logger=[tensorboard,mlflow]", "wd=0.3", "seeds=1", "-m"]) == 1
    assert client.search_runs([experiment.experiment_id])[0].info.status == "FAILED"  # the newest comes first


def test_no_logger_is_made_before_training_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetlab import build

    monkeypatch.setattr(loggers, "make_logger", lambda *_: pytest.fail("made"))
    _, _, trainer = build(tiny("logger=[csv,tensorboard]"))
    assert trainer.loggers == []


def test_a_csv_file_is_whole_when_the_run_is_killed_behind_its_last_epoch() -> None:
    run(config := tiny("logger=csv"))
    whole = (config.folder.path / "csv" / "metrics.csv").read_text()
    config.folder.summary.unlink()
    run(config)
    assert (config.folder.path / "csv" / "metrics.csv").read_text() == whole
