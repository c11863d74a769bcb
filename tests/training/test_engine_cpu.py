"""What the tests of a captured step do on a GPU, with the same step run plainly; and the gradient scaler."""

import math

import pytest
import torch

from conftest import tiny
from rig import CYCLING, HUNDRED, Rig, assert_same_state, resumed


@pytest.mark.slow  # float16 on a CPU
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_first_steps_with_a_scaler_are_skipped_by_both(optimizer: str) -> None:
    """In float16 a scale of 2^24 overflows, as 2^16, torch's initial one, often does: nothing moves until it fits.

    Sums in float16 part ways soon, where rounding grows: the losses are compared while the skips last, and loosely.
    """
    config = tiny(*HUNDRED, *CYCLING, f"optimizer={optimizer}")
    rigs = [Rig(config, "cpu", engine, scale=2.0**24, half=True) for engine in ("eager", "timed")]
    before = [p.detach().clone() for p in rigs[1].lab.model.parameters()]
    for rig in rigs:
        rig.train(1)
    assert all(torch.equal(a, b) for a, b in zip(before, rigs[1].lab.model.parameters(), strict=True))
    losses = [rig.train(11) for rig in rigs]
    scales = [float(rig.state()["scaler/scale"]) for rig in rigs]
    assert scales[0] == scales[1] < 2.0**20
    assert all(map(math.isfinite, losses[1]))
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


@pytest.mark.parametrize("engines", [("timed", "timed"), ("timed", "eager"), ("eager", "timed")])
def test_a_resumed_run_equals_an_undisturbed_one(engines: tuple[str, str]) -> None:
    config = tiny(*HUNDRED, *CYCLING)
    undisturbed = Rig(config, "cpu", engines[1], scale=1024.0)
    whole = undisturbed.train(24)
    found, state = resumed(config, "cpu", engines, (16, 8), scale=1024.0)
    if engines == ("timed", "timed"):
        assert found == whole
        assert_same_state(state, undisturbed.state(), rtol=0, atol=0)
    assert found[:18] == pytest.approx(whole[:18], rel=1e-4)
    assert found == pytest.approx(whole, rel=0.05)


def test_the_state_of_a_rig_is_all_of_it() -> None:
    rig = Rig(tiny(*HUNDRED, *CYCLING), "cpu", "timed", scale=1024.0)
    rig.advance()
    before = rig.state()
    rig.advance()
    changed = {key for key, value in rig.state().items() if not torch.equal(value, before[key])}
    for part in (
        "model.",
        "average.module.",
        "optimizer/",
        "scaler/_growth_tracker",
        "position",
        "global_step",
        "sums",
    ):
        assert any(key.startswith(part) for key in changed), part
    assert any("running_mean" in key for key in changed)
