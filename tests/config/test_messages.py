"""Errors of Hydra and OmegaConf as one line: each kind of message that is rewritten, and the exit statuses."""

import pytest

from resnetlab import ConfigError, compose
from resnetlab.config.messages import USAGE_ERRORS, error_message, interrupted, print_error

TOP = (
    "model, data, optimizer, schedule, regularization, averaging, trainer, study, seed, epochs, batch_size, lr, wd, "
    "l2, momentum, ema_momentum, shift, thresholds, objective, threads, engine, recalibrate_bn, snapshots, force"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment=dem", "experiment (=dem) is not there; did you mean demo?"),
        ("experiment=xyzzy", "experiment (=xyzzy) is not there; `resnetlab options experiment` lists them"),
        ("optimizer=adamx", "optimizer (=adamx) must be one of adam, adamw, muon, nadam, radam, sgd"),
        ("wdd=0.1", f"unknown key wdd; did you mean wd? valid: {TOP}"),
        ("+wdd=0.1", f"unknown key wdd; did you mean wd? valid: {TOP}"),
        ("patience=1", "unknown key patience; did you mean schedule.patience or trainer.patience?"),
        ("optimizer.bta2=1", "unknown key optimizer.bta2; did you mean optimizer.beta2? valid: beta2, eps, fused"),
        ("+optimizer.bta2=1", "unknown key optimizer.bta2; did you mean optimizer.beta2? valid: beta2, eps, fused"),
        (
            "epochs=many",
            "Error merging override epochs=many: Value 'many' of type 'str' could not be converted to Integer",
        ),
        ("lr=null", "Error merging override lr=null: field 'lr' is not Optional"),
        ("lr", "Error parsing override 'lr' missing EQUAL at '<EOF>'"),
        ("schedule=lambda", "Structured config of type `Lambda` has missing mandatory value: function"),
        ("data.root=${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
def test_a_message_in_one_line(override: str, message: str) -> None:
    with pytest.raises(USAGE_ERRORS) as caught:
        compose(override)
    assert error_message(caught.value) == message


def test_the_first_cause_is_said_unless_it_is_there_already() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert error_message(error) == "outer: 'inner'"
    error.__cause__ = KeyError("out")
    error.__cause__.__context__ = ValueError("ter")
    assert error_message(error) == "outer"
    error.__cause__, error.__context__ = None, KeyError("handled")
    assert error_message(error) == "outer"  # raised from None
    error.__suppress_context__ = False
    assert error_message(error) == "outer: 'handled'"


def test_the_exit_status_says_whose_fault_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_error(ConfigError("lr (=-1) must be above 0")) == 2
    assert print_error(OSError("no space left")) == 1
    assert interrupted(KeyboardInterrupt()) == 130
    assert interrupted(KeyboardInterrupt("interrupted; epoch 3 is kept")) == 130
    assert capsys.readouterr().err.splitlines() == [
        "error: lr (=-1) must be above 0",
        "error: no space left",
        "interrupted; nothing was written",
        "interrupted; epoch 3 is kept",
    ]
