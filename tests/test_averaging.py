"""Re-estimated batch-norm statistics against torch's update_bn and a closed form, and the model as it was after."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from resnetlab.averaging import reestimated_statistics
from resnetlab.models import ResNetV2


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
    with reestimated_statistics(model, inputs()):
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


def test_inside_the_model_is_in_evaluation() -> None:
    model = network().train()
    with reestimated_statistics(model, inputs()):
        assert not any(module.training for module in model.modules())
        x = inputs()[0]
        with torch.no_grad():
            # One image's logits do not depend on the others. Float32 sums in another order: 1e-5 of logits of size 1.
            torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_outside_everything_is_as_it_was(training: bool) -> None:
    model = network().train(training)
    before = state(model)
    with reestimated_statistics(model, inputs()), torch.no_grad():
        model(inputs()[0])
    check_same(state(model), before)


def test_a_part_that_was_frozen_in_evaluation_is_so_again() -> None:
    model: Any = network().train()
    model.stem_norm.eval()
    before = state(model)
    with reestimated_statistics(model, inputs()):
        pass
    check_same(state(model), before)


def test_after_an_exception_inside_everything_is_as_it_was() -> None:
    model = network().train()
    before = state(model)
    with pytest.raises(ZeroDivisionError), reestimated_statistics(model, inputs()):
        raise ZeroDivisionError
    check_same(state(model), before)


def test_after_an_exception_of_the_inputs_everything_is_as_it_was() -> None:
    def broken() -> Iterator[Tensor]:
        yield inputs()[0]
        raise OSError("unplugged")

    model = network().train()
    before = state(model)
    with pytest.raises(OSError, match="unplugged"), reestimated_statistics(model, broken()):
        pytest.fail("the block must not run on half an estimate")
    check_same(state(model), before)


def test_the_models_own_training_goes_on_as_if_nothing_had_been() -> None:
    model = network().train()
    twin = copy.deepcopy(model)
    with reestimated_statistics(model, inputs()):
        pass
    x = inputs()[1]
    with torch.no_grad():
        assert torch.equal(model(x), twin(x))
    check_same(state(model), state(twin))


def test_no_random_number_is_drawn_and_dropout_stays_off() -> None:
    def with_dropout(p: float) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(p), nn.BatchNorm2d(3)).train()

    torch.manual_seed(0)
    before, model, twin = torch.get_rng_state(), with_dropout(0.5), with_dropout(0.0)
    update_bn(inputs(), twin)
    with reestimated_statistics(model, inputs()):
        for name, expected in twin.state_dict().items():
            assert torch.equal(model.state_dict()[name], expected), name
    assert torch.equal(torch.get_rng_state(), before)


def test_no_graph_is_recorded_over_the_inputs() -> None:
    model, recorded = network(), []
    model.register_forward_hook(lambda module, x, logits: recorded.append(logits.requires_grad))
    with reestimated_statistics(model, inputs()):
        pass
    assert recorded == [False, False, False]
    assert model(inputs()[0]).requires_grad


def test_without_running_statistics_the_model_passes_through_unchanged() -> None:
    model = network(norm="group").train()
    before = state(model)
    with reestimated_statistics(model, inputs()):
        assert not model.training
    check_same(state(model), before)
