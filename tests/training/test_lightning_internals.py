"""Lightning's internals that a run depends on: these fail, by name, when a new version of Lightning changes one."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.exceptions import SIGTERMException

import resnetlab
from conftest import tiny
from resnetlab import build
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.lightning_internals import (
    INTERRUPTIONS,
    advance_global_step,
    exit_at_sigterm,
    gradient_scaler,
    python_interrupts,
)


def test_the_path_to_the_global_step_exists_and_it_advances() -> None:
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    path = "fit_loop.epoch_loop.manual_optimization.optim_step_progress"
    value: Any = trainer
    for name in path.split("."):
        assert hasattr(value, name), f"Lightning {L.__version__} has no trainer.{path}: see advance_global_step"
        value = getattr(value, name)
    module, _, _ = build(tiny())
    trainer.strategy.connect(module)  # manual optimization
    trainer.fit_loop.epoch_loop.trainer.strategy._lightning_module = module
    assert trainer.global_step == 0
    advance_global_step(trainer, 3)
    advance_global_step(trainer, 4)
    assert trainer.global_step == 7
    assert value.total.ready == value.current.completed == 7


def test_the_gradient_scaler_is_the_precision_plugins() -> None:
    scaler = torch.amp.GradScaler("cpu")
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    assert gradient_scaler(SimpleNamespace(precision_plugin=plugin)) is scaler  # type: ignore[arg-type]
    assert gradient_scaler(build(tiny())[2]) is None


def end_as_lightning_does() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(1)


def test_an_interrupt_is_a_keyboard_interrupt_again() -> None:
    """Lightning raises SystemExit(1) while it handles the KeyboardInterrupt, and ignores SIGINT from then on."""
    with preserve_process_state():
        with pytest.raises(KeyboardInterrupt), python_interrupts():
            end_as_lightning_does()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_termination_has_the_exit_status_of_its_signal_and_others_keep_theirs() -> None:
    assert isinstance(SIGTERMException(), INTERRUPTIONS)
    for raised, status in ((SIGTERMException(), 143), (SystemExit(5), 5)):
        with pytest.raises(SystemExit) as end, python_interrupts():
            raise raised
        assert end.value.code == status


def test_sigterm_can_end_a_process_at_once() -> None:
    with preserve_process_state():
        exit_at_sigterm()
        with pytest.raises(SystemExit) as end:
            signal.raise_signal(signal.SIGTERM)
        assert end.value.code == 143


def test_no_other_module_uses_them() -> None:
    internals = ("optim_step_progress", "precision_plugin", "SIGTERMException", "torch.optim._", "fit_loop")
    for path in Path(resnetlab.__file__).parent.rglob("*.py"):
        if path.name != "lightning_internals.py":
            found = [name for name in internals if name in path.read_text()]
            assert not found, f"{path.name}: {found}"
