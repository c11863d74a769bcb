"""Interpolation against the closed form of a linear model, and against the metrics of the checkpoints at its ends."""

import csv
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import tiny
from resnetlab import DataError, run
from resnetlab.cli import main
from resnetlab.config.schema import Config
from resnetlab.runs.files import read_rows
from resnetlab.training.interpolate import alphas, between, evaluate_parts, interpolate, negative_variances


def two_epochs(*overrides: str) -> tuple[Config, Path, Path]:
    """A finished run of three epochs, and its snapshots after the first and the third."""
    config = tiny("snapshots=[1,3]", "model.bn_momentum=0.5", "lr=3e-3", *overrides)
    run(config)
    folder = config.folder
    return config, folder.snapshot(1), folder.snapshot(3)


def test_a_linear_models_losses_are_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=generator), torch.randn(50, 1, generator=generator)
    models = [nn.Linear(6, 1) for _ in range(3)]
    a, b = models[0].state_dict(), models[1].state_dict()
    errors = [(model(x) - y).detach().double().numpy().ravel() for model in models[:2]]
    for alpha in (-0.5, 0.0, 0.3, 1.0, 1.5):
        models[2].load_state_dict(between(a, b, alpha))
        loss = ((models[2](x) - y) ** 2).mean().item()
        mixed = alpha * errors[0] + (1 - alpha) * errors[1]  # of a linear model the errors lie on the line as well
        assert loss == pytest.approx(np.mean(mixed**2), rel=1e-5)  # float32


def test_the_ends_are_the_states_themselves_and_counters_are_not_mixed() -> None:
    a = {"w": torch.tensor([0.1, 0.7]), "n": torch.tensor(7)}
    b = {"w": torch.tensor([0.3, -9.0]), "n": torch.tensor(9)}
    assert between(a, b, 1.0) is a
    assert between(a, b, 0.0) is b
    assert between(a, b, 0.25)["n"] == 7


def test_alpha_0_and_1_reproduce_the_snapshots_own_metrics() -> None:
    config, first, last = two_epochs("recalibrate_bn=true")
    metrics = read_rows(config.folder.metrics)
    rows = list(interpolate(last, first, [0.0, 0.5, 1.0]))
    for name in ("loss", "ce", "acc"):
        assert rows[0][f"val/{name}"] == metrics[0][f"val/{name}"]
        assert rows[2][f"val/{name}"] == metrics[2][f"val/{name}"]
        assert rows[0][f"val/{name}_recal"] == metrics[0][f"val/{name}_recal"]
        assert rows[2][f"val/{name}_recal"] == metrics[2][f"val/{name}_recal"]
    assert rows[1]["val/ce"] not in (rows[0]["val/ce"], rows[2]["val/ce"])
    assert [row["negative_variances"] for row in rows] == [0, 0, 0]


def test_far_outside_the_variances_turn_negative_and_only_re_estimated_ones_give_a_loss() -> None:
    _, first, last = two_epochs()
    near, far = interpolate(last, first, [1.0, -50.0])
    assert far["negative_variances"] > 0
    assert all(isnan(far[f"{part}/{name}"]) for part in ("train", "val") for name in ("loss", "ce", "acc"))
    assert np.isfinite([far["val/ce_recal"], far["train/ce_recal"], near["val/ce"]]).all()


def test_negative_variances_are_counted() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(2))
    model[0].eps = 1e-3
    model[0].running_var.copy_(torch.tensor([-1.0, 0.0, -9e-4, -2e-3]))  # type: ignore[operator, union-attr]
    assert negative_variances(model) == 2
    assert torch.isfinite(model[0].eval()(torch.zeros(1, 4, 1, 1))).flatten().tolist() == [False, True, True, False]


def test_without_batch_norm_there_is_one_answer() -> None:
    _, first, last = two_epochs("model.norm=group")
    rows = list(interpolate(last, first, [0.5]))
    assert not any(key.endswith("_recal") for key in rows[0])
    assert "negative_variances" not in rows[0]


def test_different_networks_are_refused() -> None:
    _, first, _ = two_epochs()
    _, other, _ = two_epochs("model.depth=20")
    with pytest.raises(DataError, match=r"differ in model.depth \(11 and 20\)"):
        list(interpolate(first, other, [0.5]))
    _, other, _ = two_epochs("data.normalize=channel")
    with pytest.raises(DataError, match=r"differ in data.normalize \(mean_image and channel\)"):
        list(interpolate(first, other, [0.5]))


def test_the_command_writes_a_picture_and_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    _, first, last = two_epochs()
    assert main(["interpolate", str(last), str(first), "--alpha", "-0.5:1.5:3", "--limit", "30"]) == 0
    folder = first.parent.parent / "interpolation-epoch=3-epoch=1"
    with (folder / "interpolation.csv").open() as file:
        assert [float(row["alpha"]) for row in csv.DictReader(file)] == [-0.5, 0.5, 1.5]
    assert (folder / "interpolation.png").stat().st_size > 10_000
    assert "3 alphas, 30 train and 6 val images each: a subset" in capsys.readouterr().out


def test_an_interrupted_interpolation_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first, last = two_epochs()
    calls: list[int] = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # two for each alpha
            raise KeyboardInterrupt
        return evaluate_parts(*args)

    monkeypatch.setattr("resnetlab.training.interpolate.evaluate_parts", interrupted)
    assert main(["interpolate", str(last), str(first), "--out", "found"]) == 130
    with Path("found/interpolation.csv").open() as file:
        assert [float(row["alpha"]) for row in csv.DictReader(file)] == [-0.5, -0.45]
    assert "interrupted; what was measured is written" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "numbers"), [("-0.5:1.5:5", [-0.5, 0, 0.5, 1, 1.5]), ("0,0.25,1", [0, 0.25, 1])])
def test_alphas_are_ranges_or_numbers(text: str, numbers: list[float]) -> None:
    assert alphas(text) == numbers


def test_the_ends_of_a_range_are_exact() -> None:
    assert {0.0, 1.0} <= set(alphas("-0.1:1.1:13"))


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:x", "0:1:1", "nan", "0:inf:3", "0:1:0", "0,1:2:3", "0:1:2.5"])
def test_other_alphas_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpolate", "a.ckpt", "b.ckpt", "--alpha", text]) == 2
    assert f"--alpha (={text}) must" in capsys.readouterr().err


def test_one_file_twice_and_a_folder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.ckpt").touch()
    assert main(["interpolate", "a.ckpt", "./a.ckpt", "--alpha", "0,1"]) == 2
    assert "are one file" in capsys.readouterr().err
    assert main(["interpolate", ".", "a.ckpt", "--alpha", "0,1"]) == 1
    assert capsys.readouterr().err.startswith("error: . is a folder; name a checkpoint")


def test_a_missing_checkpoint_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpolate", "a.ckpt", "b.ckpt", "--alpha", "0,1"]) == 1
    assert capsys.readouterr().err == "error: a.ckpt is not there; a run's are in its checkpoints/ folder\n"


def test_metrics_name_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(module: Any, data: Any, images: str, device: Any) -> tuple[dict[str, float], None]:
        return {"loss": 2.0, "ce": float("nan") if images == "bad" else 1.0, "acc": 0.5}, None

    monkeypatch.setattr("resnetlab.training.interpolate.evaluate", fake)
    row = evaluate_parts(None, None, {"train": "bad", "val": "good"}, torch.device("cpu"))  # type: ignore[arg-type, dict-item]
    assert isnan(row["train/acc"])
    assert row["val/acc"] == 0.5
