"""Any optimizer with any schedule with any regularization: composed, built, one step taken, or refused by name."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from conftest import TINY
from resnetlab import ConfigError, compose
from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.optimizers.base import set_lr_momentum
from resnetlab.optim.regularization import REGULARIZATIONS, conv_kernels
from resnetlab.optim.schedules import SCHEDULES
from resnetlab.training.build import build_module

NEEDED = {"lambda": ["schedule.function=math.exp", "lr=1e-4"], "reduce_on_plateau": []}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return ImageData(compose(*TINY).data, 8, 0.07, 0)


def take_one_step(config: Config, data: ImageData) -> tuple[float, float]:
    """(loss before, loss after) one step on one batch, as the module takes it, without a Trainer."""
    module = build_module(config, data)
    module.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))
    module.kernels = conv_kernels(module.model) if config.l2 else []
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    x, y = next(data.batches(1, torch.device("cpu")))
    losses = []
    for _ in range(2):
        set_lr_momentum(optimizer, *map(float, module.lr_momentum_table[0]))
        loss, ce = module.losses(module.model(x), y)
        assert (loss > ce) == bool(config.l2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], losses[1]


def every_pair() -> list[Any]:
    """All triples, those marked slow without which each two of the three still meet."""
    kinds = list(REGULARIZATIONS)
    return [
        pytest.param(o, s, r, marks=[] if kinds[(i + j) % len(kinds)] == r else pytest.mark.slow)
        for i, o in enumerate(OPTIMIZERS)
        for j, s in enumerate(SCHEDULES)
        for r in kinds
    ]


@pytest.mark.parametrize(("optimizer", "schedule", "regularization"), every_pair())
def test_every_triple_composes_builds_and_takes_a_step(
    optimizer: str, schedule: str, regularization: str, data: ImageData
) -> None:
    overrides = [f"optimizer={optimizer}", f"schedule={schedule}", f"regularization={regularization}"]
    overrides += NEEDED.get(schedule, []) + (
        ["optimizer.function=torch.optim.RMSprop"] if optimizer == "custom" else []
    )
    if (optimizer, regularization) == ("muon", "coupled"):
        with pytest.raises(ConfigError, match=optimizer):
            compose(*TINY, *overrides)
        return
    before, after = take_one_step(compose(*TINY, *overrides, "epochs=2"), data)
    assert math.isfinite(after)
    assert after != before
