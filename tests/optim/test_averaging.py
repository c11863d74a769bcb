"""Re-estimated batch-norm statistics against torch's update_bn and a closed form; EMA and SWA against hand averages."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_captured_step import NoReadBack
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from conftest import rows_of, tiny
from resnetlab import Config, ConfigError, run
from resnetlab.models import ResNetV1, ResNetV2
from resnetlab.optim.averaging import EMA, SWA, Averaging, reestimated_statistics
from resnetlab.optim.schedules import RunLength
from resnetlab.training.callbacks.checkpoints import read_checkpoint
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.result import objective


def network(**options: Any) -> ResNetV2:
    """A network whose running statistics are neither fresh nor those of `inputs`."""
    generator = torch.Generator().manual_seed(0)
    model = ResNetV2(11, generator=generator, **options)
    with torch.no_grad():
        model.train()(5 + 3 * torch.randn(8, 3, 8, 8, generator=generator))
    return model


def inputs(sizes: tuple[int, ...] = (6, 6, 3)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 8, 8, generator=generator) for size in sizes]


def state(model: nn.Module) -> dict[str, Any]:
    """All that must be as it was: tensors, momenta, and the mode of every module."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    momenta = {name: m.momentum for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    modes = {name: m.training for name, m in model.named_modules()}
    return {"tensors": tensors, "momenta": momenta, "modes": modes}


def check_same(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after["momenta"] == before["momenta"]
    assert after["modes"] == before["modes"]
    assert list(after["tensors"]) == list(before["tensors"])
    for name, tensor in after["tensors"].items():
        assert torch.equal(tensor, before["tensors"][name]), name


def test_inside_the_statistics_are_those_of_torchs_update_bn() -> None:
    model = network()
    twin = copy.deepcopy(model)
    update_bn(inputs(), twin)
    before = state(model)["tensors"]
    with NoReadBack(), reestimated_statistics(model, inputs()):
        inside = state(model)["tensors"]
    changed = [name for name in inside if not torch.equal(inside[name], before[name])]
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert sum(name.endswith("running_var") for name in changed) == 10
    for name, expected in twin.state_dict().items():
        # The same operations in the same order, hence to the bit.
        assert torch.equal(inside[name], expected), name


def test_the_statistics_are_the_plain_mean_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.01))
    norm: Any = model[0]
    batches = [x + 2 for x in inputs()]
    means = torch.stack([x.double().mean((0, 2, 3)) for x in batches]).mean(0)
    variances = torch.stack([x.double().var((0, 2, 3)) for x in batches]).mean(0)
    with reestimated_statistics(model, batches):
        # float32 means of some hundred values of size 2: 1e-6 is 4 units in the last place.
        torch.testing.assert_close(norm.running_mean.double(), means, rtol=0, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variances, rtol=0, atol=1e-6)
        assert norm.num_batches_tracked == 3


@pytest.mark.parametrize("training", [True, False])
def test_inside_the_model_is_in_evaluation_and_outside_everything_is_as_it_was(training: bool) -> None:
    model: Any = network().train(training)
    model.stem_norm.eval()  # a mode of its own, to be found again
    before, twin, recorded = state(model), copy.deepcopy(model), []
    handle = model.register_forward_hook(lambda module, x, logits: recorded.append(logits.requires_grad))
    x = inputs()[0]
    with reestimated_statistics(model, inputs()), torch.no_grad():
        assert recorded == [False, False, False]  # no graph over the inputs
        assert not any(module.training for module in model.modules())
        # One image's logits do not depend on the others. Float32 sums in another order: 1e-5 of logits of size 1.
        torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=0, atol=1e-5)
    check_same(state(model), before)
    handle.remove()
    assert torch.equal(model(x), twin(x))  # its own training goes on as if nothing had been
    check_same(state(model), state(twin))


def test_after_an_exception_inside_or_of_the_inputs_everything_is_as_it_was() -> None:
    def broken() -> Iterator[Tensor]:
        yield inputs()[0]
        raise OSError("unplugged")

    model = network().train()
    before = state(model)
    with pytest.raises(ZeroDivisionError), reestimated_statistics(model, inputs()):
        raise ZeroDivisionError
    check_same(state(model), before)
    with pytest.raises(OSError, match="unplugged"), reestimated_statistics(model, broken()):
        pytest.fail("the block must not run on half an estimate")
    check_same(state(model), before)


def test_no_random_number_is_drawn_and_dropout_stays_off() -> None:
    """With a head that has norms of (N, C) and two dropouts."""

    def with_dropout(p: float) -> nn.Module:
        torch.manual_seed(0)
        return ResNetV1(8, head="concat", dropout=p).train()

    model, twin = with_dropout(0.5), with_dropout(0.0)
    update_bn(inputs(), twin)
    before = torch.get_rng_state()
    with NoReadBack(), reestimated_statistics(model, inputs()):
        for name, expected in twin.state_dict().items():
            assert torch.equal(model.state_dict()[name], expected), name
    assert torch.equal(torch.get_rng_state(), before)


def test_without_running_statistics_the_model_passes_through_unchanged() -> None:
    model = network(norm="group").train()
    before = state(model)
    with reestimated_statistics(model, inputs()):
        assert not model.training
    check_same(state(model), before)


# --- EMA and SWA


@pytest.mark.parametrize("averaging", [EMA(), SWA(start=1)])
def test_the_buffers_of_an_average_are_the_networks_at_the_end_of_the_epoch(averaging: Averaging) -> None:
    model, span = nn.InstanceNorm1d(3, affine=True, track_running_stats=True), RunLength(2, 2)
    average = averaging.create(model)
    assert average is not None
    for step in range(4):
        model(torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(step)))
        averaging.update(average, model, step, span, 0.9)
    assert model.running_mean is not None
    assert not torch.equal(model.running_mean, torch.zeros(3))
    for name, buffer in model.named_buffers():
        assert torch.equal(average.module.get_buffer(name), buffer)


def walk(averaging: Averaging, momentum: float | None, span: RunLength) -> tuple[list[Any], list[Any]]:
    """Random walk of a small network; (raw weights, averaged weights) after every step."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = averaging.create(model)
    assert average is not None
    raw, averaged = [], []
    for step in range(span.steps):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator))
        raw.append([p.detach().double().clone() for p in model.parameters()])
        averaging.update(average, model, step, span, momentum)
        averaged.append([p.detach().double().clone() for p in average.module.parameters()])
    return raw, averaged


def check_close(ours: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)  # float32 weights of about 5, some ten roundings


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_keras_use_ema_written_by_hand(warmup: bool) -> None:
    raw, averaged = walk(EMA(warmup=warmup), 0.9, RunLength(20, 1))
    expected = raw[0]  # Keras: not_first_step * momentum, so the first step copies
    check_close(averaged[0], expected)
    for k in range(1, 20):
        m = min(0.9, (1 + k) / (10 + k)) if warmup else 0.9
        expected = [m * old + (1 - m) * new for old, new in zip(expected, raw[k], strict=True)]
        check_close(averaged[k], expected)


def test_ema_overwrites_the_weights_every_so_many_steps_and_goes_on_from_there() -> None:
    span, averaging, model = RunLength(9, 1), EMA(overwrite_frequency=3), nn.Linear(2, 2)
    average = averaging.create(model)
    weight, expected = model.weight.detach().double().clone(), torch.zeros(2, 2, dtype=torch.float64)
    for step in range(9):
        with torch.no_grad():
            model.weight.add_(1.0)
        weight = weight + 1.0
        expected = weight.clone() if step == 0 else 0.5 * expected + 0.5 * weight
        averaging.update(average, model, step, span, 0.5)
        if step in (2, 5, 8):  # Keras: (iterations + 1) % frequency == 0
            weight = expected.clone()
        check_close([model.weight.detach().double()], [weight])


@pytest.mark.parametrize(("start", "before"), [(0.75, 6), (0.0, 0), (5.0, 5), (0.99, 7), (0.125, 1)])
def test_swa_is_the_mean_of_the_weights_after_each_epoch_beyond_start(start: float, before: int) -> None:
    span = RunLength(3, 8)
    raw, averaged = walk(SWA(start=start), None, span)
    ends = [raw[3 * epoch - 1] for epoch in range(before + 1, 9)]
    check_close(averaged[-1], [torch.stack(parts).mean(0) for parts in zip(*ends, strict=True)])
    assert len(ends) == 8 - before


def test_the_start_of_swa_is_not_a_rounding_error_early() -> None:
    assert SWA(start=0.7).epochs_before(RunLength(1, 90)) == 63
    assert SWA(start=0.29).epochs_before(RunLength(1, 100)) == 29


def test_swa_has_a_learning_rate_of_its_own_from_start_on() -> None:
    plan = np.column_stack([np.linspace(1, 0, 12), np.full(12, 0.9)])
    changed = plan.copy()
    SWA(start=2, lr=0.05).override_lr(changed, RunLength(3, 4))
    np.testing.assert_array_equal(changed[:6], plan[:6])
    np.testing.assert_array_equal(changed[6:, 0], 0.05)
    np.testing.assert_array_equal(changed[:, 1], 0.9)


def test_an_average_leaves_the_training_alone_and_is_validated_beside_it() -> None:
    configs = [tiny(), tiny("averaging=ema", "ema_momentum=0.5"), tiny("averaging=swa", "averaging.start=1")]
    summaries = [run(config) for config in configs]
    plain, ema, swa = map(rows_of, configs)
    names = {"val/loss_avg", "val/ce_avg", "val/acc_avg", "val/acc5_avg"}
    for rows in (ema, swa):
        assert [{k: v for k, v in row.items() if k not in names} for row in rows] == plain
    assert [names <= set(row) for row in ema] == [True] * 3
    assert [names <= set(row) for row in swa] == [False, True, True]
    assert ema[-1]["val/ce_avg"] != plain[-1]["val/ce"]
    last, summary = configs[1].folder.last, summaries[1]
    evaluated = evaluate_checkpoint(last, weights="averaged")
    assert (evaluated["acc"], evaluated["ce"]) == (summary["final_val_acc_avg"], summary["final_val_ce_avg"])
    assert evaluated["ce"] != evaluate_checkpoint(last)["ce"]


def test_the_average_of_one_epoch_is_that_epoch_with_re_estimated_statistics() -> None:
    config = tiny("averaging=swa", "averaging.start=2", "recalibrate_bn=true", "regularization=l2")
    run(config)
    last = rows_of(config)[-1]
    for name in ("loss", "ce", "acc"):
        assert last[f"val/{name}_avg"] == last[f"val/{name}_recal"]


@pytest.mark.parametrize("averaging", ["ema averaging.overwrite_frequency=3 ema_momentum=0.5", "swa averaging.start=1"])
def test_a_resumed_average_equals_an_undisturbed_one(averaging: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(*f"epochs=4 averaging={averaging}".split())
    run(config)
    expected, weights = rows_of(config), read_checkpoint(config.folder.last)["state_dict"]
    run_interrupted(config, monkeypatch)
    assert rows_of(config) == expected
    resumed = read_checkpoint(config.folder.last)["state_dict"]
    assert [key for key in weights if not torch.equal(resumed[key], weights[key])] == []
    assert any(key.startswith("average.module.") for key in weights)
    if averaging.startswith("ema"):  # trains on the average
        plain = tiny("epochs=4")
        run(plain)
        losses, others = ([row["train/ce"] for row in rows] for rows in (rows_of(plain), expected))
        assert losses[0] == others[0]  # two steps: not overwritten yet
        assert losses[2:] != others[2:]


@pytest.mark.parametrize("warmup", [1, 2, 2.5, 3])
def test_a_plateau_after_a_warmup_resumes_to_the_bit(warmup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = f"schedule=reduce_on_plateau schedule.warmup={warmup} schedule.patience=0 schedule.threshold=9 epochs=6"
    config = tiny(*keys.split())
    run(config)
    expected = rows_of(config)
    assert expected[-1]["lr"] < max(row["lr"] for row in expected)  # it was reduced
    run_interrupted(config, monkeypatch)  # after two epochs: in the warmup, at its end, or behind it
    assert rows_of(config) == expected


def run_interrupted(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the run over, interrupts it after two epochs, and resumes it."""
    config.force = True
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_end", interrupted_after(2))
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert not config.folder.summary.exists()
    config.force = False
    run(config)


def interrupted_after(epochs: int) -> Any:
    """A recorder's on_train_epoch_end that is interrupted at the start of the one after that many."""
    original = Recorder.on_train_epoch_end

    def hook(self: Recorder, trainer: Any, module: Any) -> None:
        if len(self.rows) == epochs:
            raise KeyboardInterrupt
        original(self, trainer, module)

    return hook


def test_the_averages_test_figure_is_that_of_the_last_epoch_trained() -> None:
    config = tiny("averaging=ema", "data.split=holdout", "trainer.patience=1", "lr=1e-9", "epochs=6")
    summary = run(config)
    assert summary["epochs_trained"] < 6
    figures = evaluate_checkpoint(config.folder.last, "test", weights="averaged")
    assert figures["acc"] == summary["averaged_test_acc"]


def test_a_run_that_stops_before_its_average_has_the_objective_zero() -> None:
    config = tiny("averaging=swa", "averaging.start=5", "trainer.patience=1", "lr=1e-9", "epochs=7")
    config.objective = "final_val_acc_avg"
    summary = run(config)
    assert summary["final_val_acc_avg"] is None
    assert objective(config, summary) == 0.0


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ("ema_momentum=0.9", "ema_momentum (=0.9) is not used by averaging=none"),
        ("averaging=swa ema_momentum=0.9", "ema_momentum (=0.9) is not used by averaging=swa"),
        ("averaging=ema ema_momentum=1.0", "ema_momentum (=1.0) must be in [0, 1)"),
        ("averaging=ema averaging.overwrite_frequency=0", "averaging.overwrite_frequency (=0) must be at least 1"),
        ("averaging=swa averaging.start=3", "averaging.start (=3) must be below the 3 epochs"),
        ("averaging=swa averaging.start=1.5", "averaging.start (=1.5) must be a fraction below 1 or a whole number"),
        ("averaging=swa averaging.lr=0", "averaging.lr (=0.0) must be a finite number above 0"),
        ("averaging=swa averaging.lr=0.1 schedule=reduce_on_plateau", "averaging.lr (=0.1) cannot go with"),
        (
            "averaging=swa averaging.lr=1e-3 averaging.anneal_epochs=1",
            "averaging.anneal_epochs (=1) must be less than the",
        ),
        (
            "averaging=swa averaging.start=1 averaging.lr=1e-3 averaging.anneal_epochs=100",
            "averaging.anneal_epochs (=100",
        ),
        ("objective=final_val_acc_avg", "objective (=final_val_acc_avg) needs an average"),
        ("snapshots=[4]", "snapshots (=[4]) must be epochs of the run, in 1..3"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny(*overrides.split())
    assert str(caught.value).startswith(wanted)
