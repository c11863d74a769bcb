"""The range test against a loop written by hand, its suggestions against brute force, and the network left alone."""

import csv
import json
from itertools import combinations, pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import TINY, tiny
from resnetlab import ConfigError, compose
from resnetlab.cli import main
from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.training.build import build_module
from resnetlab.training.lr_range import (
    Ramp,
    diverged_at,
    longest_decrease,
    preferred,
    range_test,
    steepest,
    suggestions,
    valley,
)
from resnetlab.training.module import ImageClassifier

CPU = torch.device("cpu")


def parts(config: Config) -> tuple[ImageClassifier, ImageData]:
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    return build_module(config, data), data


def test_the_ramps_are_numpys_geomspace_and_linspace() -> None:
    for shape, expected in (("exponential", np.geomspace(1e-6, 2, 37)), ("linear", np.linspace(1e-6, 2, 37))):
        ramp = Ramp(1e-6, 2, 37, shape)
        np.testing.assert_allclose([ramp.lr(k) for k in range(37)], expected, rtol=1e-12)  # a few roundings of float64


def test_a_range_test_is_plain_sgd_with_a_rising_rate() -> None:
    config = tiny("optimizer=sgd", "regularization=coupled", "wd=0.01", "momentum=0.5", "schedule=constant")
    module, data = parts(config)
    twin, _ = parts(config)
    rows = list(range_test(module, data, Ramp(1e-3, 1e-1, 10), CPU))
    optimizer = torch.optim.SGD(twin.model.parameters(), lr=1, momentum=0.5, weight_decay=0.01)
    batches = [batch for epoch in range(1, 6) for batch in data.batches(epoch, CPU)]
    mean = 0.0
    for k, (x, y) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 1e-3 * 100 ** (k / 9)
        optimizer.zero_grad()
        loss = F.cross_entropy(twin.model.train()(x), y)
        loss.backward()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * loss.item()
        # the same operations in the same order, but for the lr, which is rounded twice
        assert rows[k]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert rows[k]["smoothed"] == pytest.approx(mean / (1 - 0.9 ** (k + 1)), rel=1e-4)
    assert len(rows) == 10


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_the_network_and_the_random_numbers_are_left_as_they_were(optimizer: str) -> None:
    module, data = parts(tiny(f"optimizer={optimizer}", "schedule=constant"))
    module.model.eval()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    list(range_test(module, data, Ramp(1e-5, 1, 12), CPU))
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.model.training
    assert all(p.grad is None for p in module.model.parameters())


def test_a_ramp_is_checked_and_ends_when_the_loss_explodes() -> None:
    module, data = parts(tiny("optimizer=sgd", "regularization=none", "schedule=constant"))
    with pytest.raises(ConfigError, match="steps"):
        Ramp(steps=1)
    rows = list(range_test(module, data, Ramp(1e-3, 1e6, 60), CPU))
    assert len(rows) < 60
    least = min(row["smoothed"] for row in rows[:-1])
    assert not rows[-1]["smoothed"] <= 4 * least
    assert all(row["smoothed"] <= 4 * least for row in rows[:-1])


def brute_force(values: list[float]) -> int:
    """The length of the longest strictly decreasing subsequence, by trying all."""
    for length in range(len(values), 0, -1):
        for indices in combinations(range(len(values)), length):
            if all(values[i] > values[j] for i, j in pairwise(indices)):
                return length
    return 0


def test_the_longest_decrease_is_as_long_as_any() -> None:
    rng = np.random.default_rng(0)
    for size in [0, 1, *rng.integers(2, 10, 40)]:
        values = rng.integers(0, 6, size).astype(float).tolist()
        end, length = longest_decrease(values)
        assert length == brute_force(values)
        assert [brute_force(values[: end + 1]), brute_force(values[:end])] == [length, max(0, length - 1)]


def test_valley_is_fastais() -> None:
    """His rule by quadratic search: the first third of the longest descent and half of the second."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        losses = (3 / (1 + np.exp((np.arange(60) - 30) / 5)) + 0.2 * rng.standard_normal(60)).tolist()
        best = [1] * 60
        for i in range(60):
            best[i] = 1 + max((best[j] for j in range(i) if losses[j] > losses[i]), default=0)
        end = best.index(max(best))
        third = max(best) / 3
        assert valley(losses) == end - max(best) + int(third) + int(third / 2)


@pytest.mark.parametrize("fall", range(1, 10))
@pytest.mark.parametrize("start", [0, 1, 30])
def test_valley_is_silent_about_a_fall_of_few_steps_and_never_beyond_a_longer_one(start: int, fall: int) -> None:
    """Flat, then `fall` steps down, and up to the explosion, as after a lucky batch."""
    losses = [2.3] * (start + 1) + [2.3 - 0.1 * k for k in range(1, fall + 1)] + [2.3 * 1.2**k for k in range(1, 20)]
    rows = [{"lr": 1e-6 * 1.3**k, "smoothed": loss} for k, loss in enumerate(losses)]
    found = suggestions([{"lr": 1e-9, "smoothed": 2.3}] * (len(rows) // 9) + rows)["valley"]
    if fall < 5:
        assert found is None
    else:
        assert rows[start]["lr"] < found < rows[start + fall]["lr"]
    place = valley(losses)
    assert place is None or 0 < place < start + fall


def test_the_suggestions_on_a_curve_made_by_hand() -> None:
    losses = [5.5, 5.5, 5.5, 5.5, 9.0, 8.9, 8.5, 7.0, 6.5, 6.4, 6.3, 6.0, 6.2, 9.0, 5.0, 20.0]
    rows = [{"lr": 10.0 ** (k - 10), "smoothed": loss} for k, loss in enumerate(losses)]
    assert suggestions(rows) == {
        "steepest": pytest.approx(1e-3),  # k = 7, where (6.5 - 8.5) / 2 is the least central difference
        # the longest decrease ends at k = 14 and has 9 values: 14 - 9 + int(9 / 3) + int(9 / 6) is 9
        "valley": pytest.approx(1e-1),
        "minimum/10": pytest.approx(1e3),  # the minimum is at k = 14
    }
    assert steepest([1.0, 2.0, 3.0], [log(1), log(2), log(3)]) is None
    assert valley([1.0, 1.0]) is None
    rising = [{"lr": 10.0**k, "smoothed": 2.0 + k} for k in range(10)]
    assert set(suggestions(rising).values()) == {None}  # nothing was learned
    assert suggestions([]) == {"steepest": None, "valley": None, "minimum/10": None}


def test_the_command_overlays_several_and_writes_three_files(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [o for o in TINY if not o.startswith("trainer")]
    assert main(["lr-range", *overrides, "wd=0,0.1", "momentum=0.9", "--steps", "10", "--out", "found"]) == 0
    content: dict[str, Any] = json.loads(Path("found/lr-range.json").read_text())
    assert [run["label"] for run in content["runs"]] == ["wd=0", "wd=0.1"]
    assert content["ramp"]["steps"] == 10
    with Path("found/lr-range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["wd=0"] * 10 + ["wd=0.1"] * 10
    assert main(["lr-range", "wd=0", "--out", "again", "--steps", "10", "momentum=0.9", *overrides, "-m"]) == 0
    with Path("again/lr-range.csv").open() as file:  # overrides may stand behind options, as may -m
        assert [row["loss"] for row in csv.DictReader(file)] == [row["loss"] for row in rows[:10]]
    assert rows[0]["loss"] == rows[10]["loss"]  # the same network sees the same batch first
    assert rows[9]["loss"] != rows[19]["loss"]
    assert Path("found/lr-range.png").stat().st_size > 10_000
    assert "wd=0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--start", "0"], "--start (=0) must be above 0"),
        (["--start", "2", "--end", "1"], "--start (=2) must be above 0 and below --end (=1)"),
        *((["--steps", steps], f"--steps (={steps}) must be in 10..100,000") for steps in ("-1", "9", "100001")),
        (["--stop", "1"], "--stop (=1) must be above 1"),
        (["--stop", "inf"], "--stop (=inf) must be above 1"),
        (["wd=0.1,0.1"], "two jobs of the sweep are the same"),
        (["--out", "/proc/nope"], "--out (=/proc/nope) cannot be made"),
        (["wd=-1"], "wd (=-1.0) must be"),
        (["optimizer=adamx"], "adamx"),
        (["wd=0.1,-1"], "wd (=-1.0) must be"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lr-range", *TINY, *arguments]) == 2
    printed = capsys.readouterr()
    assert wanted in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("outputs").exists()


def test_an_interrupted_range_test_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = ImageClassifier.batch_loss, []

    def step(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(ImageClassifier, "batch_loss", step)
    arguments = ["lr-range", *TINY, "wd=0,0.1,0.2", "--steps", "10", "--out", "found"]
    assert main(arguments) == 130
    with Path("found/lr-range.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["wd=0"] * 10 + ["wd=0.1"] * 4
    assert Path("found/lr-range.png").exists()
    runs = json.loads(Path("found/lr-range.json").read_text())["runs"]
    assert [set(run["suggestions"].values()) == {None} for run in runs] == [False, True]  # of half a ramp: none
    assert "interrupted; what was measured is written" in capsys.readouterr().err


def test_an_interrupt_before_the_first_step_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetlab.training.lr_range.ImageData", interrupted)
    assert main(["lr-range", *TINY, "--steps", "10", "--out", "found"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not any(Path("found").iterdir())


def test_dropout_follows_the_seed_and_presets_with_a_cycle_are_taken() -> None:
    config = compose("experiment=nb-final-15ep", *TINY[2:], "model.depth=8")
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append([row["loss"] for row in range_test(*parts(config), Ramp(1e-5, 1e-2, 10), CPU)])
    assert losses[0] == losses[1]
    assert main(["lr-range", "experiment=nb-moms-0.99-0.90", *TINY[2:], "model.depth=8", "--steps", "10"]) == 0


def test_divergence_at_the_last_step_is_divergence() -> None:
    rows = [{"lr": 1.0, "smoothed": 1.0}, {"lr": 2.0, "smoothed": 4.1}]
    assert diverged_at(rows, Ramp()) == 2.0
    assert diverged_at(rows[:1], Ramp()) is None
    assert diverged_at([*rows, {"lr": 3.0, "smoothed": float("nan")}], Ramp()) == 3.0


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ({"steepest": 1e-2, "valley": 2e-3, "minimum/10": 4e-3}, "valley"),
        ({"steepest": 1e-2, "valley": 3.9e-2, "minimum/10": 4e-3}, "minimum/10"),  # the valley is at the least loss
        ({"steepest": None, "valley": None, "minimum/10": 4e-3}, "minimum/10"),
        ({"steepest": None, "valley": 1e-3, "minimum/10": None}, "valley"),
        ({"steepest": None, "valley": None, "minimum/10": None}, None),
    ],
)
def test_one_suggestion_is_preferred_and_why(found: dict[str, float | None], rule: str | None) -> None:
    chosen, why = preferred(found)
    assert chosen == rule
    assert bool(why) == bool(rule)


def test_the_gradient_is_clipped_as_in_training() -> None:
    found = []
    for clip in ("null", "1e-3"):
        config = tiny("optimizer=sgd", f"trainer.gradient_clip={clip}")
        rows = range_test(*parts(config), Ramp(0.1, 1.0, 10, stop=1e9), CPU)
        found.append([row["loss"] for row in rows])
    assert found[0][0] == found[1][0]
    assert max(found[1]) < 1.3 * found[1][0]  # steps of 0.1 to 1 times a thousandth teach nothing
    assert max(abs(a - b) for a, b in zip(*found, strict=True)) > 0.3
