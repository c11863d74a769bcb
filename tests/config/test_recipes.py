"""The presets fast12-* and acc60-*: each is the recipe as it was proposed, and its lr runs as said there."""

from math import cos, pi

import pytest

from resnetlab import compose
from resnetlab.config.option_files import options

FAST = ("epochs=12", "recalibrate_bn=true")
P1 = (
    *("optimizer=sgd", "optimizer.nesterov=true", "lr=0.1", "regularization=coupled", "wd=5e-4", "recalibrate_bn=true"),
    *(
        "regularization.label_smoothing=0.1",
        "schedule.interval=step",
        "data.normalize=channel",
        "model.bn_momentum=0.1",
    ),
    "data.translate=pad_crop",
)
SIXTY = (*P1, "epochs=60", "schedule=cosine", "schedule.warmup=5", "data.padding=4")
RECIPES: dict[str, tuple[str, ...]] = {
    "fast12-p1": (
        *(*FAST, *P1, "schedule=piecewise_linear", "schedule.milestones=[[0,0.2],[2.4,1.0],[12,0.0]]"),
        *("data.padding=2", "averaging=ema", "ema_momentum=0.995"),
    ),
    "fast12-p2": (
        *(*FAST, "optimizer=nadam", "lr=2e-3", "regularization=weight_decay", "wd=0.05"),
        *("schedule=cosine", "schedule.warmup=1"),
    ),
    "fast12-p3": (
        *(*FAST, "optimizer=muon", "lr=0.02", "momentum=0.95", "regularization=weight_decay", "wd=0.05"),
        *("schedule=polynomial", "schedule.warmup=1", "optimizer.renormalize=true", "optimizer.adamw_lr=2e-3"),
    ),
    "fast12-p4": (
        *(*FAST, "optimizer=adamw", "lr=8e-4", "regularization=weight_decay", "wd=0.2", "schedule=cosine"),
        *("schedule.shape=quarter", "schedule.constant=10", "schedule.length=21", "schedule.stretch=true"),
    ),
    "acc60-ema": (*SIXTY, "averaging=ema", "ema_momentum=0.9995"),
    "acc60-sam": (*SIXTY, "averaging=ema", "ema_momentum=0.9995", "optimizer.sam=0.1"),
    "acc60-cutout": (*SIXTY, "averaging=ema", "ema_momentum=0.9995", "data.cutout=8"),
    "acc60-swa": (*SIXTY, "averaging=swa", "averaging.start=0.8"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_is_its_recipe(name: str) -> None:
    assert compose(f"experiment={name}").identity == compose("model=resnet56v2", *RECIPES[name]).identity


def test_every_one_of_them_is_here() -> None:
    named = {preset.name for preset in options("experiment")}
    assert {name for name in named if name.startswith(("fast12-", "acc60-"))} == set(RECIPES)


@pytest.mark.parametrize(
    ("name", "epoch", "lr"),
    [
        *(("fast12-p1", 0, 0.02), ("fast12-p1", 1.2, 0.06), ("fast12-p1", 7.2, 0.05), ("fast12-p1", 12, 0.0)),
        *(("fast12-p2", 0.5, 0.55 * 2e-3), ("fast12-p2", 6, 1e-3), ("fast12-p3", 3, 0.015)),
        *(("fast12-p4", 5, 8e-4), ("fast12-p4", 10, 8e-4 * cos(pi / 2 * (10 * 21 / 12 - 10) / 11))),
        *(("acc60-ema", 0, 0.01), ("acc60-ema", 30, 0.05), ("acc60-swa", 45, 0.05 * (1 + cos(0.75 * pi)))),
    ],
)
def test_its_lr_at_an_epoch(name: str, epoch: float, lr: float) -> None:
    config = compose(f"experiment={name}")
    step = round(epoch * config.span.steps_per_epoch)
    assert config.schedule.lr(step, config.lr, config.span) == pytest.approx(lr, abs=2e-3 * config.lr)
