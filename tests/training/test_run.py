"""One run: its files, its end, its resumption within a process, and what it leaves alone."""

import json
import math
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data
from torch import Tensor

from conftest import rows_of, tiny
from resnetlab import Config, build, load_model, run
from resnetlab.config.compose import from_plain
from resnetlab.errors import RunLocked
from resnetlab.optim.schedules import RunLength
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.training import conclude
from resnetlab.training.callbacks.checkpoints import read_checkpoint, resume_point
from resnetlab.training.callbacks.loggers import Loggers
from resnetlab.training.conclude import applied_rates
from resnetlab.training.evaluate import evaluate, evaluate_checkpoint
from resnetlab.training.result import objective
from resnetlab.training.run import run_lock, train

CONTRACT = {
    "status", "study", "seed", "epochs", "batch_size", "lr", "wd", "l2", "momentum", "shift", "epoch_to_0.92",
    "val_acc_at_0.92", "best_epoch", "best_val_acc", "final_val_acc", "final_train_loss", "final_train_ce",
    "final_val_loss", "final_val_ce", "val_loss_fluctuation", "improvements", "seconds_per_epoch",
    "images_per_second", "energy_wh", "power_w", "gpu_load", "parameters",
}  # fmt: skip


def summary_of(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config.folder.summary.read_text())
    return found


def test_a_run_writes_the_files_of_the_contract(finished: Config) -> None:
    folder = finished.folder
    names = {path.name for path in folder.path.iterdir()}
    assert {"config.yaml", "metrics.csv", "summary.json", "manifest.json", "curves.png", "checkpoints"} <= names
    assert {path.name for path in folder.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt", "last.prev.ckpt"}
    summary = summary_of(finished)
    assert set(summary) >= CONTRACT
    assert (summary["status"], summary["energy_wh"]) == ("finished", None)
    rows = read_rows(folder.metrics)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:  # training's share of the time alone
        assert row["time/train"] * row["time/images_per_second"] == pytest.approx(60)
        assert row["time/train"] < row["time/epoch"]
    assert list(rows[0])[:9] == [
        "epoch", "lr", "momentum", "train/loss", "train/ce", "train/acc", "val/loss", "val/ce", "val/acc"
    ]  # fmt: skip
    manifest = json.loads(folder.manifest.read_text())
    assert from_plain(manifest["config"]) == finished
    assert manifest["precision"] == "32-true"
    assert manifest["threads"] == 1
    assert sum(group["parameters"] for group in manifest["optimizer_groups"]) == summary["parameters"]


def test_tensorboard_has_scalars_over_epochs_pictures_and_hparams(finished: Config) -> None:
    events = EventAccumulator(str(finished.folder.path)).Reload()
    scalars = events.Scalars("accuracy/val")
    assert [point.step for point in scalars] == [1, 2, 3]
    assert scalars[-1].value == pytest.approx(summary_of(finished)["final_val_acc"])
    tags = sorted(events.Tags()["scalars"])
    assert {"lr", "momentum", "loss/train_ce"} <= set(tags)
    assert "epoch" not in tags  # it is the axis
    groups = list(dict.fromkeys(tag.split("/")[0] for tag in tags))
    assert (groups[:3], groups[-1]) == (["accuracy", "loss", "lr"], "result")
    single = [tag for tag in tags if len(events.Scalars(tag)) == 1]
    assert single == tags[-len(single) :]  # the last of the alphabet, in which TensorBoard orders its cards
    pictures = {f"pictures/{name}, validation" for name in ("confusion matrix", "mistakes", "reliability")}
    pictures |= {"pictures/first batch, augmented"}
    assert set(events.Tags()["images"]) == pictures
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = parse_session_start_info_plugin_data(content).hparams
    assert {"lr", "wd", "model.depth", "data.limit"} <= set(values)  # nested keys that differ from their defaults too
    assert values["lr"].number_value == finished.lr
    # TensorBoard would take the first run's list of columns for all runs
    assert "_hparams_/experiment" not in events.summary_metadata


def test_checkpoints_are_plain_data_and_hold_the_history(finished: Config) -> None:
    checkpoint = torch.load(finished.folder.last, weights_only=True)
    rows = checkpoint["callbacks"]["Recorder"]["rows"]
    assert len(rows) == 3
    assert checkpoint["config"]["optimizer"]["name"] == "adamw"
    assert checkpoint["global_step"] == 6
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert not any(key.startswith("_orig_mod") for key in checkpoint["state_dict"])


def test_validation_is_in_float32_whatever_the_precision_of_training() -> None:
    run(config := tiny("trainer.precision=bf16-mixed", "epochs=1"))
    # the same batches in float32: another accumulation; in bfloat16 they would differ by 1e-3
    assert evaluate_checkpoint(config.folder.last)["ce"] == pytest.approx(summary_of(config)["final_val_ce"], rel=1e-6)


def test_evaluate_reproduces_the_runs_own_figures(finished: Config) -> None:
    summary = summary_of(finished)
    metrics = evaluate_checkpoint(finished.folder.last)
    assert metrics["epoch"] == 3
    assert metrics["acc"] == summary["final_val_acc"]
    # the same batches through the same network: equal up to the rounding of another accumulation
    assert metrics["ce"] == pytest.approx(summary["final_val_ce"], rel=1e-6)
    best = evaluate_checkpoint(finished.folder.best)
    assert (best["epoch"], best["acc"]) == (summary["best_epoch"], summary["best_val_acc"])


def test_the_same_seed_is_the_same_run_and_another_seed_is_another(finished: Config) -> None:
    """The other is stretched, from 60 epochs to three: the lr of epochs 1, 2, 3 is f(0), f(20), f(40)."""
    again, other = tiny("study=again"), tiny("seed=1", "schedule.stretch=true")
    for config in (again, other):
        stop_after(config, epochs=3)
    assert rows_of(again) == rows_of(finished)
    assert [row["lr"] for row in rows_of(other)] == pytest.approx([8e-4, 8e-4, 8e-5], rel=1e-12)
    assert rows_of(other)[0]["train/loss"] != rows_of(finished)[0]["train/loss"]


def test_a_run_leaves_the_process_alone_and_takes_no_more_of_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would refuse devices=1 in a cluster's allocation for two tasks, of which only one may be ours."""
    for key, value in {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(key, value)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    assert run(tiny("epochs=1", "threads=1", "logger=tensorboard"))["status"] == "finished"
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(3), expected)


def test_what_is_finished_is_not_trained_again_unless_forced(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.folder
    stamp = folder.metrics.stat().st_mtime_ns
    assert run(tiny("trainer.progress=lines")) == summary_of(finished)
    assert "already finished" in capsys.readouterr().out
    assert folder.metrics.stat().st_mtime_ns == stamp
    summary = run(tiny("force=true", "trainer.progress=lines"))
    assert folder.metrics.stat().st_mtime_ns > stamp
    said = capsys.readouterr().out
    assert f"final_val_acc {summary['final_val_acc']:.4g}" in said
    for path in (folder.curves, folder.best):
        assert str(path) in said
        assert path.exists()


def test_a_run_that_another_process_trains_is_refused_and_left_alone() -> None:
    config = tiny("epochs=1")
    folder = config.folder
    with run_lock(folder):
        with pytest.raises(RunLocked, match="another process"):
            run(config)
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert run(config)["status"] == "finished"


def test_a_lock_that_is_let_go_in_time_is_waited_for_and_what_was_finished_meanwhile_is_taken(
    finished: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_to_wait(*arguments: Any) -> Any:
        threading.Timer(0.3, lock.release).start()
        return run_lock(*arguments)

    folder = finished.folder
    stamp = folder.manifest.stat().st_mtime_ns
    lock = FileLock(folder.lock, thread_local=False)
    lock.acquire()
    monkeypatch.setattr("resnetlab.training.run.run_lock", begin_to_wait)
    assert train(finished) == summary_of(finished)
    assert folder.manifest.stat().st_mtime_ns == stamp


def test_thresholds_are_read_off_a_finished_run_without_training(finished: Config) -> None:
    rows = read_rows(finished.folder.metrics)
    summary = run(tiny("thresholds=[0.0001,0.999]"))
    assert summary["epoch_to_0.0001"] == next((r["epoch"] for r in rows if r["val/acc"] >= 0.0001), None)
    assert summary["epoch_to_0.999"] is None


class Stop(L.Callback):
    """Ends training after `epochs` epochs, as abruptly as an exception in the callbacks can."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.epochs:
            raise RuntimeError("pulled the plug")


def stop_after(config: Config, epochs: int) -> None:
    """Trains like run(), but stops after `epochs` epochs, and writes no summary."""
    module, data, trainer = build(config)
    trainer.callbacks.append(Stop(epochs))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="plug") if epochs < config.epochs else nullcontext():
        trainer.fit(module, datamodule=data)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("optimizer=sgd", "schedule=one_cycle", "regularization=l2_weight_decay"),
        ("optimizer=muon", "schedule=cyclic"),
        ("optimizer=radam", "schedule=reduce_on_plateau", "schedule.patience=0"),
        ("optimizer=nadam", "model.norm=group", "data.translate=pad_crop", "regularization.label_smoothing=0.1"),
    ],
)
def test_an_interrupted_run_ends_like_an_undisturbed_one(overrides: tuple[str, ...]) -> None:
    whole, broken = tiny("study=whole", *overrides), tiny("study=broken", *overrides)
    stop_after(whole, epochs=3)
    stop_after(broken, epochs=2)
    assert not broken.folder.summary.exists()
    run(broken)
    assert rows_of(whole) == rows_of(broken)
    weights = [read_checkpoint(config.folder.last)["state_dict"] for config in (whole, broken)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tiny("study=broken", "trainer.progress=lines")
    stop_after(broken, epochs=2)
    folder = broken.folder
    folder.last.write_bytes(folder.last.read_bytes()[:1000])
    leftover = folder.last.with_name("last.ckptx1y2.part")  # of a kill in the middle of writing
    leftover.write_bytes(b"half a checkpoint")
    capsys.readouterr()
    run(broken)
    assert not leftover.exists()
    said = capsys.readouterr().out
    assert "last.ckpt cannot be used" in said
    assert "resuming after epoch 1 from" in said
    assert read_checkpoint(folder.previous)["epoch"] == 1  # a good one again, not the damaged one
    assert rows_of(broken) == rows_of(finished)


def test_a_checkpoint_of_another_run_is_not_continued(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = tiny("study=mine", "trainer.progress=lines"), tiny("lr=1e-3")
    stop_after(mine, epochs=2)
    stop_after(other, epochs=1)
    mine.folder.last.write_bytes(other.folder.last.read_bytes())
    summary = run(mine)
    assert "belongs to another run" in capsys.readouterr().out
    assert summary["final_val_ce"] == summary_of(finished)["final_val_ce"]


def test_with_no_readable_checkpoint_a_run_starts_over_and_says_so(tmp_path: Path) -> None:
    folder, config = RunFolder(tmp_path / "run"), tiny()
    assert resume_point(folder, config) == (None, [])
    folder.checkpoints.mkdir(parents=True)
    folder.last.write_bytes(b"nothing")
    path, remarks = resume_point(folder, config)
    assert path is None
    assert "starting from the beginning" in remarks[-1]


def test_killed_between_the_last_epoch_and_the_summary_and_resumed_under_other_conditions(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained; the other conditions are said, and the earlier manifest is kept."""
    first, folder = summary_of(finished), finished.folder
    manifest = json.loads(folder.manifest.read_text()) | {"threads": 7}
    folder.manifest.write_text(json.dumps(manifest))
    folder.summary.unlink()
    assert run(tiny("trainer.progress=lines")) == first
    assert "threads 7 -> 1" in capsys.readouterr().out
    assert json.loads(folder.manifest.read_text())["earlier"] == [manifest]


def test_a_damaged_file_of_a_finished_run_is_made_again(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.folder
    before = {path: path.read_text() for path in (folder.summary, folder.metrics)}
    damage = [(folder.summary, "[]"), (folder.summary, '{"status": "finished"}'), (folder.metrics, "epoch\n1\n")]
    for path, text in damage:
        path.write_text(text)
        run(tiny("trainer.progress=lines"))
        assert "or manifest.json is another run's or is damaged; made again" in capsys.readouterr().out
        assert {path: path.read_text() for path in before} == before


def test_a_run_that_diverges_ends_in_order_and_keeps_its_rows() -> None:
    """Plain SGD survives an epoch at a tiny lr, then jumps to 1e30: the loss overflows in epoch 2 or 3."""
    config = tiny(
        "optimizer=sgd", "regularization=l2", "schedule=piecewise_constant",
        "schedule.milestones=[[1,1e-6],[2,1e30]]", "schedule.relative=false", "logger=tensorboard",
    )  # fmt: skip
    summary = run(config)
    assert summary["status"] == "diverged"
    assert summary["diverged_quantity"] in ("train/loss", "val/loss")
    assert summary["diverged_epoch"] == 2
    assert summary["diverged_step"] in (2, 3)
    assert [row["epoch"] for row in read_rows(config.folder.metrics)] == [1]
    assert objective(config, summary) == 0.0
    assert run(config) == summary


def test_a_run_that_diverges_at_once_is_finished_too() -> None:
    """At lr 1e30 the second step's loss is not finite: no epoch is complete, and the same command trains no more."""
    config = tiny("optimizer=sgd", "schedule=constant", "lr=1e30", "regularization=none", "logger=tensorboard")
    summary = run(config)
    assert (summary["status"], summary["diverged_epoch"], summary["epochs_trained"]) == ("diverged", 1, 0)
    stamp = config.folder.manifest.stat().st_mtime_ns
    assert run(config) == summary
    assert config.folder.manifest.stat().st_mtime_ns == stamp


def test_early_stopping_is_a_rule_about_the_rows() -> None:
    """With lr 1e-12 the accuracy stays what it was in epoch 1 or soon after: patience 1 ends before epoch 9."""
    config = tiny("epochs=9", "lr=1e-12", "trainer.patience=1", "model.norm=group")
    summary = run(config)
    assert summary["epochs_trained"] == summary["best_epoch"] + 1 < 9
    config.folder.summary.unlink()
    assert run(config)["epochs_trained"] == summary["epochs_trained"]


def test_recalibration_leaves_the_run_as_it_is(finished: Config) -> None:
    config = tiny("study=twice", "recalibrate_bn=true", "trainer.recalibration_images=32")
    stop_after(config, epochs=3)
    plain, twice = rows_of(finished), rows_of(config)
    assert all({"val/acc_recal", "val/loss_recal", "val/ce_recal"} <= set(row) for row in twice)
    assert [{k: row[k] for k in plain[0]} for row in twice] == plain
    assert any(row["val/loss_recal"] != row["val/loss"] for row in twice)


def test_reported_loss_is_cross_entropy_and_penalty() -> None:
    """Keras' loss and val_loss include the penalty: with lr ~ 0 it is 1e-2 * sum(w^2) over kernels."""
    config = tiny("regularization=l2", "l2=1e-2", "epochs=1", "lr=1e-12")
    stop_after(config, epochs=1)
    (row,) = read_rows(config.folder.metrics)
    module, _, _ = build(config)
    penalty = 1e-2 * sum(
        float((p.detach().double() ** 2).sum()) for n, p in module.model.named_parameters() if p.ndim == 4
    )
    # float32 sums of 300,000 squares: relative error below 1e-5
    assert row["val/loss"] - row["val/ce"] == pytest.approx(penalty, rel=1e-5)
    assert row["train/loss"] - row["train/ce"] == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize("averaging", [(), ("averaging=ema", "objective=best_val_acc")])
def test_holdout_touches_the_test_set_once_of_each_weights_and_official_has_none(
    averaging: tuple[str, ...], finished: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth epoch ruins the weights by an lr of 5, so the best epoch is not the last one."""
    touched = []

    def counted(module: Any, data: Any, images: Any, device: Any) -> Any:
        touched.append(len(images) == len(data.test_images))
        return evaluate(module, data, images, device)

    monkeypatch.setattr(conclude, "evaluate", counted)
    spoilt = "optimizer=sgd", "lr=0.05", "schedule=multistep", "schedule.milestones=[3]", "schedule.gamma=100"
    recipe = "data.split=holdout", "data.limit=300", "model.bn_momentum=0.5", "epochs=4"
    held = run(config := tiny(*recipe, *spoilt, *averaging))
    assert sum(touched) == (3 if averaging else 2)
    assert held["best_epoch"] < 4
    parts = {"best_test_acc": config.folder.best, "final_test_acc": config.folder.last}
    accuracies = {key: evaluate_checkpoint(path, "test", weights="raw")["acc"] for key, path in parts.items()}
    assert {key: held[key] for key in parts} == accuracies
    assert accuracies["best_test_acc"] != accuracies["final_test_acc"]
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loaded = load_model(config.folder.best)(pixels)
    assert torch.equal(loaded, load_model(config.folder.best, "last")(pixels))
    if averaging:
        assert held["averaged_test_acc"] == evaluate_checkpoint(config.folder.last, "test", weights="averaged")["acc"]
        assert not torch.equal(loaded, load_model(config.folder.best, "averaged")(pixels))
    assert summary_of(finished)["final_test_acc"] is None


def test_the_loss_is_that_of_smoothed_labels_and_ce_is_not() -> None:
    """Szegedy et al.: 0.9 of the label and 0.1 of all classes alike."""
    module, _, _ = build(tiny("regularization.label_smoothing=0.1"))
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 10, generator=generator), torch.arange(50) % 10
    log = logits.log_softmax(1)
    ce = -log[torch.arange(50), labels]
    smoothed, weights = 0.9 * ce - 0.1 * log.mean(1), torch.linspace(0.5, 2, 10)
    # means of 50 float32 of about 3
    for given, wanted in ((None, smoothed), (weights, weights[labels] * smoothed)):
        loss, plain = module.losses(logits, labels, weights=given)
        torch.testing.assert_close((loss, plain), (wanted.mean(), ce.mean()), rtol=1e-6, atol=0)


def weights_of(module: L.LightningModule) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in module.model.parameters()])


@pytest.mark.parametrize("batch_size", [60, 32])
def test_weight_norm_and_relative_update_are_those_of_the_checkpoints_weights(batch_size: int) -> None:
    config = tiny(f"batch_size={batch_size}", "epochs=1", "schedule=constant", "optimizer=sgd", "momentum=0", "lr=0.1")
    module, data, trainer = build(config)
    weights = [weights_of(module)]
    module.step_hooks.append(lambda: weights.append(weights_of(module)))
    trainer.fit(module, datamodule=data)
    row = read_rows(config.folder.metrics)[0]
    module.load_state_dict(read_checkpoint(config.folder.last)["state_dict"])
    end = weights_of(module)
    assert row["weight_norm"] == pytest.approx(float(end.norm()), rel=1e-5)  # sums of float32
    before = weights[-2]  # the epoch's last step, of one or two
    update = float((end - before).norm() / before.norm())
    assert row["relative_update"] == pytest.approx(update, rel=1e-4)  # differences of float32 numbers near 0.1


@pytest.mark.parametrize(("norm", "said"), [("batch", True), ("group", False)])
def test_a_run_whose_statistics_lag_says_so(
    norm: str, said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lag_note finds in its rows is in test_misleading; group norm has no statistics."""
    monkeypatch.setattr("resnetlab.training.conclude.lag_note", lambda rows, classes: f"{len(rows)} of {classes}")
    run(tiny("epochs=1", f"model.norm={norm}", "trainer.progress=lines"))
    assert ("note: 1 of 10" in capsys.readouterr().out) == said


def test_figures_are_made_where_they_are_shown_and_loggers_end_before_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    original, held = Loggers.close, []

    def close(loggers: Loggers) -> None:
        with pytest.raises(RunLocked), run_lock(loggers.config.folder):
            pass
        held.append(loggers)
        original(loggers)

    monkeypatch.setattr(Loggers, "close", close)
    monkeypatch.setattr("resnetlab.training.conclude.evaluate", lambda *_: pytest.fail("nobody sees it"))
    assert run(tiny("epochs=1", "logger=none"))["status"] == "finished"
    assert len(held) == 1


@pytest.mark.parametrize("steps", [1, 1999, 2000, 2001, 3999, 4001])
def test_the_drawn_learning_rates_are_2000_at_most(steps: int) -> None:
    module = SimpleNamespace(span=RunLength(steps, 1), config=tiny(), lr_momentum_table=np.ones((steps, 2)))
    points = applied_rates(SimpleNamespace(module=module), 1)  # type: ignore[arg-type]
    assert points is not None
    assert min(steps, 1000) <= len(points[0]) - 1 <= 2000
