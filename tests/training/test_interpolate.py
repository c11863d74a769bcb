"""Interpolation against the closed form of a linear model, and against the metrics of the checkpoints at its ends."""

import csv
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import stop_after
from torch import nn

from conftest import tiny
from resnetlab import DataError, run
from resnetlab.cli import main
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.training.interpolate import alphas, between, evaluate_parts, interpolate, negative_variances

OVERRIDES = ("snapshots=[1,3]", "model.bn_momentum=0.5", "lr=3e-3", "recalibrate_bn=true")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of three epochs, with snapshots after the first and the third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        config = tiny(*OVERRIDES, "threads=1")
        run(config)
        return RunFolder(config.folder.path.absolute())


@pytest.fixture
def ends(run_folder: RunFolder) -> tuple[Path, Path]:
    """The checkpoints at alpha 1 and at alpha 0."""
    return run_folder.snapshot(3), run_folder.snapshot(1)


def one_epoch(*overrides: str) -> Path:
    """The checkpoint of another network or other data."""
    config = tiny(*OVERRIDES, *overrides)
    stop_after(config, epochs=1)
    return config.folder.last


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


def test_alpha_0_and_1_reproduce_the_snapshots_own_metrics(run_folder: RunFolder, ends: tuple[Path, Path]) -> None:
    metrics = read_rows(run_folder.metrics)
    rows = list(interpolate(*ends, [0.0, 0.5, 1.0]))
    for key in (f"val/{name}{kind}" for name in ("loss", "ce", "acc") for kind in ("", "_recal")):
        assert (rows[0][key], rows[2][key]) == (metrics[0][key], metrics[2][key])
    assert rows[1]["val/ce"] not in (rows[0]["val/ce"], rows[2]["val/ce"])
    assert [row["negative_variances"] for row in rows] == [0, 0, 0]


def test_far_outside_the_variances_turn_negative_and_only_re_estimated_ones_give_a_loss(
    ends: tuple[Path, Path],
) -> None:
    near, far = interpolate(*ends, [1.0, -50.0])
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
    path = one_epoch("model.norm=group", "model.bn_momentum=0.1", "recalibrate_bn=false")
    (row,) = interpolate(path, path, [0.5])
    assert not any(key.endswith("_recal") for key in row)
    assert "negative_variances" not in row


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("model.depth=20", r"differ in model.depth \(11 and 20\)"),
        ("data.normalize=channel", r"differ in data.normalize \(mean_image and channel\)"),
    ],
)
def test_different_networks_are_refused(override: str, wanted: str, ends: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=wanted):
        list(interpolate(ends[1], one_epoch(override), [0.5]))


def test_of_two_runs_the_folder_names_the_other_and_what_changes_no_run_may_differ(
    run_folder: RunFolder, ends: tuple[Path, Path]
) -> None:
    places = set()
    for seed in (1, 2):
        other = one_epoch(f"seed={seed}", "data.eval_batch_size=7")
        assert main(["interpolate", str(ends[0]), str(other), "--alpha", "0,1", "--limit", "10"]) == 0
        places |= set(run_folder.path.glob("interpolation-epoch=3-last-*"))
        assert len(places) == seed


def test_the_command_writes_a_picture_and_its_metrics(
    run_folder: RunFolder, ends: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["interpolate", *map(str, ends), "--alpha", "-0.5:1.5:3", "--limit", "30"]) == 0
    folder = run_folder.path / "interpolation-epoch=3-epoch=1"
    with (folder / "interpolation.csv").open() as file:
        assert [float(row["alpha"]) for row in csv.DictReader(file)] == [-0.5, 0.5, 1.5]
    assert (folder / "interpolation.png").stat().st_size > 10_000
    assert "3 alphas, 30 train and 6 val images each: a subset" in capsys.readouterr().out


def test_an_interrupted_interpolation_keeps_its_rows(
    ends: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # two for each alpha
            raise KeyboardInterrupt
        return evaluate_parts(*args)

    monkeypatch.setattr("resnetlab.training.interpolate.evaluate_parts", interrupted)
    assert main(["interpolate", *map(str, ends), "--out", "found"]) == 130
    with Path("found/interpolation.csv").open() as file:
        assert [float(row["alpha"]) for row in csv.DictReader(file)] == [-0.5, -0.45]
    assert "interrupted; what was measured is written" in capsys.readouterr().err


def test_alphas_are_ranges_whose_ends_are_exact_or_numbers() -> None:
    assert alphas("-0.5:1.5:5") == [-0.5, 0, 0.5, 1, 1.5]
    assert alphas("0,0.25,1") == [0, 0.25, 1]
    assert {0.0, 1.0} <= set(alphas("-0.1:1.1:13"))


@pytest.mark.parametrize("text", ["a", "0:1", "0:1:x", "0:1:1", "nan", "0:inf:3", "0:1:0", "0,1:2:3", "0:1:2.5"])
def test_other_alphas_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["interpolate", "a.ckpt", "b.ckpt", "--alpha", text]) == 2
    assert f"--alpha (={text}) must" in capsys.readouterr().err


def test_one_file_twice_a_folder_and_a_missing_file_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.ckpt").touch()
    assert main(["interpolate", "a.ckpt", "./a.ckpt", "--alpha", "0,1"]) == 2
    assert "are one file" in capsys.readouterr().err
    assert main(["interpolate", ".", "a.ckpt", "--alpha", "0,1"]) == 1
    assert capsys.readouterr().err.startswith("error: . is a folder; name a checkpoint")
    Path("a.ckpt").unlink()
    assert main(["interpolate", "a.ckpt", "b.ckpt", "--alpha", "0,1"]) == 1
    assert capsys.readouterr().err == "error: a.ckpt is not there; a run's are in its checkpoints/ folder\n"
