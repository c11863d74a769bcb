"""Schedules on paper: what `resnetlab schedule` draws is what a real run applies at every step."""

from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.image as mpimg
import numpy as np
import pytest
import torch

from conftest import TINY, tiny
from resnetlab import build
from resnetlab.cli import main
from resnetlab.runs.files import read_rows
from resnetlab.training.lightning_internals import silence_lightning
from resnetlab.training.module import ImageClassifier, lr_momentum_table
from resnetlab.training.plots import draw_schedules

PLANS = (
    "schedule=one_cycle lr=4e-3",
    "schedule=one_cycle optimizer=sgd schedule.three_phase=true schedule.anneal=linear",
    "schedule=cyclic optimizer=sgd schedule.up=0.5",
    "schedule=piecewise_linear schedule.stretch=true schedule.warmup=6",
    "schedule=cosine averaging=swa averaging.start=1 averaging.lr=1e-4",
)


@pytest.mark.parametrize("overrides", PLANS)
def test_a_run_applies_what_was_planned_at_every_step(overrides: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(*overrides.split())
    applied: list[tuple[float, float]] = []
    original = ImageClassifier.losses

    def losses(self: ImageClassifier, *args: Any, **kwargs: Any) -> Any:  # called after lr and momentum were set
        if torch.is_grad_enabled():
            group = self.optimizers().optimizer.param_groups[0]  # type: ignore[union-attr]
            applied.append((float(group["lr"]), float(group["betas"][0] if "betas" in group else group["momentum"])))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ImageClassifier, "losses", losses)
    module, data, trainer = build(config)
    with silence_lightning():
        trainer.fit(module, datamodule=data)
    span, expected = config.span, lr_momentum_table(config, config.span)
    assert len(applied) == span.steps == 6
    np.testing.assert_array_equal(np.array(applied), expected)
    columns = [(row["lr"], row["momentum"]) for row in read_rows(config.folder.metrics)]
    np.testing.assert_array_equal(np.array(columns), expected[::2])  # of each epoch's first step


def test_the_command_draws_several_and_says_their_main_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *TINY, "epochs=10", "schedule=one_cycle,constant", "lr=0.01", "--out", "plan.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("schedule=one_cycle: 10 epochs of 2 steps; lr 0.0004 at first, at most 0.01 in epoch 3")
    assert lines[1].startswith("schedule=constant: 10 epochs of 2 steps; lr 0.01 at first, at most 0.01 in epoch 1")
    assert Path("plan.png").stat().st_size > 10_000
    assert not Path("outputs").exists()


@pytest.mark.parametrize("name", ["x.txt", "x", "x.png.gz"])
def test_a_picture_in_a_format_that_is_not_drawn_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", *TINY, "--out", f"new/{name}"]) == 2
    assert capsys.readouterr().err == f"error: --out (=new/{name}) must end in .png, .svg or .pdf\n"
    assert not any(Path().iterdir())


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<?xml"), ("a.PDF", b"%PDF"), ("a.png", b"\x89PNG")])
def test_the_picture_is_what_its_name_says(name: str, begins: bytes) -> None:
    assert main(["schedule", *TINY, "epochs=2", "--out", name]) == 0
    assert Path(name).read_bytes().startswith(begins)


def test_equal_schedules_are_all_seen() -> None:
    """Three flat lines on each other and one apart: each colour covers a part of the picture."""
    flat = np.array([(t / 10, 0.1, 0.9) for t in range(100)])
    draw_schedules(dict.fromkeys("abc", flat) | {"d": flat * (1, 0.5, 1)}, Path("plan.png"))
    ink = 1 - mpimg.imread("plan.png")[..., :3]  # a line thinner than a pixel is its colour in a lighter tint
    ink /= np.linalg.norm(ink, axis=-1, keepdims=True) + 1e-9
    shades = [1 - np.array(matplotlib.colors.to_rgb(f"C{i}")) for i in range(4)]
    seen = [int((ink @ (shade / np.linalg.norm(shade)) > 0.999).sum()) for shade in shades]
    assert min(seen) > 40
