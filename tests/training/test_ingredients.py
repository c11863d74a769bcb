"""Ingredients of fast recipes in a whole step or run: SAM, the flipped validation, a multiple of lr, all together."""

from itertools import islice
from typing import Any

import pytest
import torch
from test_run import stop_after, summary_of
from torch import Tensor, nn

from conftest import rows_of, tiny
from resnetlab import ConfigError, load_model, run
from resnetlab.data import ImageData
from resnetlab.optim.schedules import ReduceOnPlateau
from resnetlab.training.build import build
from resnetlab.training.inference.predict import probabilities_of
from rig import Rig

PLAIN = ("batch_size=8", "data.limit=30", "epochs=3", "lr=0.02", "schedule=constant")
SAM = ("optimizer=sgd", "optimizer.nesterov=true", "regularization=coupled", "optimizer.sam=0.2")
ALL = (
    *("data.flip=true", "data.alternating_flip=true", "data.translate=pad_crop", "data.padding=2", "data.fill=reflect"),
    *("data.cutout=4", "data.brightness=0.2", "data.contrast=0.2", "data.mixup=0.2", "model.zero_init_residual=true"),
    *("optimizer.sam=0.05", "optimizer.norm_bias_lr=4", "averaging=ema", "ema_momentum=0.9", "flip_tta=true"),
)


def second_gradients(model: nn.Module, x: Tensor, y: Tensor, rho: float) -> float:
    """As github.com/davda54/sam: climb by rho*g/|g|, a second pass whose norms keep their statistics, and back.

    Returns the first pass's loss.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    before = {p: p.detach().clone() for p in model.parameters()}
    with torch.no_grad():
        for p in before:
            assert p.grad is not None
            p.add_(p.grad * (rho / (norm + 1e-12)))
    model.zero_grad()
    momenta = [norm.momentum for norm in norms]
    for module in norms:
        module.momentum = 0.0
    nn.functional.cross_entropy(model(x), y).backward()
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.num_batches_tracked -= 1  # type: ignore[operator]
    for p, old in before.items():
        p.data.copy_(old)
    return float(loss.detach())


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("engine", ["eager", "timed", "fewer"])
def test_sam_is_that_of_its_paper(engine: str, parts: int) -> None:
    norm = "model.norm=group" if parts == 2 else "model.norm=batch"  # a batch norm sees the parts
    rig, twin = (Rig(tiny(*PLAIN, *SAM, norm), "cpu", how) for how in (engine, "eager"))
    rig.step.micro_batches = parts
    model = twin.lab.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for x, y in islice(twin.data.batches(1, torch.device("cpu")), 2):  # in the third rounding turns a ReLU on or off
        optimizer.zero_grad()
        loss = second_gradients(model, x, y, 0.2)
        optimizer.step()
        assert rig.next() == pytest.approx(loss, rel=1e-5)
    assert (int(rig.step.batches.position), int(rig.step.global_step)) == (16, 2)
    for (name, wanted), value in zip(model.state_dict().items(), rig.lab.model.state_dict().values(), strict=True):
        assert float((value - wanted).abs().max()) <= 1e-6 + 1e-5 * float(wanted.abs().max()), name


@pytest.mark.parametrize("half", [False, torch.bfloat16], ids=["32-true", "bf16-mixed"])
def test_sam_with_fewer_launches_climbs_with_the_weights_copies_too(half: Any) -> None:
    """At rho = 2 the second gradient is quite another than the first: a copy left behind would show in bfloat16."""
    config = tiny(*PLAIN, *SAM, "optimizer.sam=2.0", "optimizer.norm_bias_lr=8")
    losses = {engine: Rig(config, "cpu", engine, half=half).train(4) for engine in ("eager", "timed", "fewer")}
    plain = Rig(tiny(*PLAIN, *SAM, "optimizer.sam=0.0", "optimizer.norm_bias_lr=8"), "cpu", "fewer", half=half).train(4)
    # rounding, four climbs on: 1e-4 in float32; bfloat16 has 8 bits, 2^-8 = 0.004 a value
    assert losses["timed"] == pytest.approx(losses["eager"], rel=1e-4)
    assert losses["fewer"] == pytest.approx(losses["eager"], rel=0.03 if half else 1e-4)
    assert plain[0] == pytest.approx(losses["fewer"][0], rel=0.03)
    assert plain[-1] != pytest.approx(losses["fewer"][-1], rel=0.1)


def test_an_overflow_under_sam_skips_the_step() -> None:
    """The first factor makes float16 gradients infinite, so the weights climb to nan: they come back to the bit."""
    rig = Rig(tiny(*PLAIN, *SAM), "cpu", "eager", scale=1e7, half=True)
    before = {name: p.detach().clone() for name, p in rig.lab.model.named_parameters()}
    rig.next()
    assert all(torch.equal(p, before[name]) for name, p in rig.lab.model.named_parameters())
    assert all(buffer.isfinite().all() for buffer in rig.lab.model.buffers())


def test_the_flipped_accuracy_is_predicts_mean_of_both_in_a_column_of_its_own() -> None:
    keys = ("data.normalize=channel", "averaging=ema", "ema_momentum=0.5", "recalibrate_bn=true", "data.limit=200")
    config, plain = tiny("study=flips", "flip_tta=true", *keys), tiny("study=plain", *keys)
    run(config)
    run(plain)
    data = ImageData(config.data, 32, 0.0, 0)
    probabilities = probabilities_of(load_model(config.folder.last, "last"), data.val.pixels, flip=True)
    both = [{k: v for k, v in row.items() if "_flip" not in k} for row in rows_of(config)]
    assert both == rows_of(plain)
    wanted = float((probabilities.argmax(1) == data.val.labels).double().mean())
    last = rows_of(config)[-1]
    assert last["val/acc_flip"] == pytest.approx(wanted, abs=1e-9)
    assert {key for key in last if "_flip" in key} == {"val/acc_flip", "val/acc_flip_recal", "val/acc_flip_avg"}
    assert last["val/acc"] != last["val/acc_flip"] > 0.2
    assert last["val/acc_flip_avg"] == summary_of(config)["final_val_acc_flip_avg"]
    assert summary_of(config)["final_val_acc_flip"] == last["val/acc_flip"]
    assert summary_of(plain)["final_val_acc_flip"] is None
    assert (config.identity["flip_tta"], "flip_tta" in plain.identity) == (True, False)


@pytest.mark.parametrize(("kernel", "rates"), [("stem.weight,", [0.8]), ("", [0.1, 0.8])], ids=["frozen", "trained"])
def test_reduce_on_plateau_reduces_every_group_once(kernel: str, rates: list[float]) -> None:
    """Where the first group has a factor of its own, its lr is not taken for the run's."""
    frozen = f"freeze=[{kernel}stem.bias,units,head,norm.weight,stem_norm.weight]"  # all other but two norms' biases
    config = tiny("optimizer=sgd", "optimizer.norm_bias_lr=8", "schedule=reduce_on_plateau", "lr=0.1", frozen)
    module, _, _ = build(config)
    assert isinstance(config.schedule, ReduceOnPlateau)
    module.raw_optimizer = module.build_optimizer()
    groups, scheduler = module.raw_optimizer.param_groups, config.schedule.build(module.raw_optimizer)
    assert [group["lr"] for group in groups] == pytest.approx(rates)
    assert module.lr_momentum(3)[0] == pytest.approx(0.1)
    for _ in range(8):
        scheduler.step(1.0)
    assert [group["lr"] for group in groups] == pytest.approx([rate * 0.1**0.5 for rate in rates])
    assert module.lr_momentum(3)[0] == pytest.approx(0.1 * 0.1**0.5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.alternating_flip=true", "it is used with data.flip=true and data.augment=true only"),
        ("data.alternating_flip=true data.flip=true data.balance=sampling", "with data.balance=none or weights only"),
        ("data.fill=reflect", "data.fill (=reflect) is used by data.translate=pad_crop only"),
        ("optimizer.sam=-1", "optimizer.sam (=-1.0) must be a finite number of at least 0"),
        ("model.zero_init_residual=true model.norm=group_ws", "model.zero_init_residual (=true) must be false"),
        ("optimizer=muon optimizer.adamw_lr=0", "optimizer.adamw_lr (=0.0) must be a finite number above 0"),
    ],
)  # fmt: skip
def test_one_line_before_anything_is_done(words: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        tiny(*words.split())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_multiple_for_biases_that_are_not_there_is_refused() -> None:
    config = tiny("optimizer.norm_bias_lr=4")
    with pytest.raises(ConfigError, match=r"optimizer\.norm_bias_lr \(=4\.0\) must be 1: no batch or group norm"):
        config.optimizer.build(nn.Linear(2, 2), lr=0.1, momentum=0.9, wd=None, regularization=config.regularization)


def test_a_run_with_every_ingredient_goes_on_as_if_it_had_not_been_killed() -> None:
    whole, broken = tiny("study=whole", *ALL), tiny("study=broken", *ALL)
    run(whole)
    stop_after(broken, 2)
    run(broken)
    assert rows_of(whole) == rows_of(broken)
    host = tiny("study=host", "data.device=cpu", *(key for key in ALL if "mixup" not in key))
    device = tiny("study=device", *(key for key in ALL if "mixup" not in key))
    for config in (host, device):
        run(config)
    assert rows_of(host) == rows_of(device) != rows_of(whole)
    keys = {word.partition("=")[0] for word in ALL} - {"averaging", "data.flip"}
    assert keys - {*whole.identity} == set()
    off = ("data.cutout=0", "data.alternating_flip=false", "optimizer.sam=0", "optimizer.norm_bias_lr=1")
    assert tiny(*off, "flip_tta=false", "model.zero_init_residual=false").identity == tiny().identity
