"""trainer.profile: a trace that a browser opens, a table, and a run that is the same to the bit."""

import gzip
import json
from collections import Counter
from typing import Any

import pytest
import torch
from test_run import stop_after

from conftest import rows_of, tiny
from resnetlab import Config, run
from resnetlab.errors import ConfigError
from resnetlab.training.callbacks.checkpoints import read_checkpoint
from resnetlab.training.callbacks.profiler import recorded_steps, steps_warning

# 8 steps an epoch; dropout, an average and a penalty, so that a number drawn or a tensor touched would show
BUSY = (
    *("batch_size=8", "epochs=2", "schedule=one_cycle", "averaging=ema", "regularization=l2_weight_decay"),
    *("model=resnet56v1_concat", "model.depth=8"),
)


def events(config: Config) -> list[dict[str, Any]]:
    """The trace's complete events."""
    with gzip.open(config.folder.trace, "rt") as file:
        return [e for e in json.load(file)["traceEvents"] if e["ph"] == "X" and e["cat"] != "overhead"]


def count(config: Config) -> Counter[str]:
    """Events of each name."""
    return Counter(event["name"] for event in events(config))


def result(config: Config) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    folder = config.folder
    return rows_of(folder), read_checkpoint(folder.last)["state_dict"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The result of the run without a profile."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plain"))
        run(tiny(*BUSY))
        assert not tiny(*BUSY).folder.trace.parent.exists()
        return result(tiny(*BUSY))


@pytest.mark.parametrize("more", [(), ("trainer.chunk=3",)], ids=["one", "chunks"])
def test_a_profiled_run_is_the_same_run_and_leaves_a_trace(
    plain: Any, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Three steps of 8: each in its mark, with its forward and backward pass in it, and the convolutions in those."""
    profiled = tiny(*BUSY, *more, "trainer.profile=3", "trainer.progress=lines")
    run(profiled)
    rows, weights = zip(plain, result(profiled), strict=True)
    assert rows[0] == rows[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    found = count(profiled)
    assert found["resnetlab.step"] == found["resnetlab.forward"] == found["resnetlab.backward"] == 3
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in profiled.model.build(10, torch.Generator()).modules())
    assert found["aten::convolution"] == 3 * convolutions
    assert found["aten::convolution_backward"] == 3 * convolutions
    assert [name for name in found if name.startswith("Optimizer.step#")]
    marks = [event for event in events(profiled) if event["name"] == "resnetlab.step"]
    for event in events(profiled):
        if event["name"] == "aten::convolution":
            assert sum(mark["ts"] <= event["ts"] <= mark["ts"] + mark["dur"] for mark in marks) == 1
    folder = profiled.folder
    table = folder.operations.read_text()
    assert "3 steps" in table
    assert "conv" in table
    assert f"profile: {folder.trace}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_records_the_first_epoch_that_it_trains(plain: Any) -> None:
    broken = tiny(*BUSY, "trainer.profile=2")
    stop_after(broken, epochs=1)
    broken.folder.trace.unlink()
    run(broken)
    assert plain[0] == result(broken)[0]
    assert count(broken)["resnetlab.step"] == 2


def test_a_run_that_ends_while_it_is_recorded_leaves_no_recording() -> None:
    """It diverges; the next one, which would find a profiler still running, is recorded."""
    config = tiny("batch_size=8", "wd=1e30", "trainer.profile=7")  # from the second step on, whose loss is infinite
    summary = run(config)
    assert (summary["status"], summary["diverged_step"]) == ("diverged", 1)
    assert not config.folder.trace.exists()
    following = tiny(*BUSY, "trainer.profile=2")
    run(following)
    assert count(following)["resnetlab.step"] == 2


def test_an_epoch_that_is_too_short_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("epochs=1", "trainer.profile=5", "trainer.progress=lines")
    run(config)
    assert "note: trainer.profile=5: an epoch has 2 steps, 1 of them are recorded" in capsys.readouterr().out
    assert count(config)["resnetlab.step"] == 1
    run(config)
    assert "records nothing: nothing is trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "per_epoch", "wanted"),
    [
        (3, 8, (5, 3)),
        (20, 782, (5, 20)),
        (5, 8, (3, 5)),
        (8, 8, (1, 7)),
        (5, 2, (1, 1)),
        (1, 1, (0, 1)),
        (9, 1, (0, 1)),
    ],
)
def test_which_steps_are_recorded(steps: int, per_epoch: int, wanted: tuple[int, int]) -> None:
    assert recorded_steps(steps, per_epoch) == wanted
    assert (steps_warning(steps, per_epoch) is None) == (wanted[1] == steps)
    assert steps_warning(None, per_epoch) is None


def test_a_number_of_steps_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.profile \(=0\) must be in 1..1,000 steps"):
        tiny("trainer.profile=0")
