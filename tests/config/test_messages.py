"""Errors of Hydra and OmegaConf as one line: each kind of message that is rewritten, and the exit statuses."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from resnetlab import ConfigError, compose
from resnetlab.config.help_and_completion import key_owners
from resnetlab.config.messages import (
    FOREIGN,
    OURS,
    USAGE_ERRORS,
    error_message,
    override_message,
    print_error,
)
from resnetlab.config.schema import GROUPS
from resnetlab.console import interrupted

TOP = (
    "model, data, optimizer, schedule, regularization, averaging, trainer, logger, study, outputs, seed, "
    "epochs, batch_size, lr, wd, l2, momentum, ema_momentum, shift, thresholds, objective, threads, engine, "
    "recalibrate_bn, flip_tta, init, freeze, callbacks, snapshots, predictions, trunk, force"
)
ADAM = "norm_bias_lr, sam, beta2, eps, fused"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment=dem", "experiment (=dem) is not there; did you mean demo?"),
        ("experiment=xyzzy", "experiment (=xyzzy) is not there; `resnetlab options experiment` lists them"),
        ("averaging=emma", "averaging (=emma) must be one of ema, none, swa; did you mean ema?"),
        ("wdd=0.1", f"unknown key wdd; did you mean wd? valid: {TOP}"),
        ("+wdd=0.1", f"unknown key wdd; did you mean wd? valid: {TOP}"),
        ("patience=1", "unknown key patience; did you mean schedule.patience or trainer.patience?"),
        ("optimizer.bta2=1", f"unknown key optimizer.bta2; did you mean optimizer.beta2? valid: {ADAM}"),
        ("+optimizer.bta2=1", f"unknown key optimizer.bta2; did you mean optimizer.beta2? valid: {ADAM}"),
        ("epochs=many", "epochs (=many) must be a whole number"),
        ("trainer.devices=2.5", "trainer.devices (=2.5) must be a whole number"),
        ("wd=abc", "wd (=abc) must be a number"),
        ("thresholds=[high]", "thresholds[0] (=[high]) must be a number"),
        ("data.flip=perhaps", "data.flip (=perhaps) must be true or false"),
        ("snapshots=3", "snapshots (=3) must be a list, such as [1,2]"),
        ("lr=null", "lr (=null) must not be null"),
        ("lr", "lr is not of the form KEY=VALUE, without spaces around ="),
        ("lr=1e-3,", "lr=1e-3, ends in a comma; a value is missing behind it"),
        ("epochs = 3", "'epochs = 3' has spaces around =; write epochs=3"),
        ("wd=1,2", "wd (=1,2) has several values; add -m for a sweep of them, or brackets for a list: [1,2]"),
        ("schedule=lambda", "schedule.function must be given"),
        *(
            (f"{group}.{key}=1", f"unknown key {group}.{key}; did you mean {key}?")
            for group in ("data", "optimizer", "trainer")
            for key in ("batch_size", "lr", "seed", "epochs", "study")
        ),
        ("data.root=${nothing}", "data.root: Interpolation key 'nothing' not found"),
        (
            "schedule.final=0.1",
            "schedule.final is a key of schedule=cosine or cosine_restarts or polynomial or wsd; choose one, such as "
            "schedule=cosine",
        ),
    ],
)
def test_a_message_in_one_line(override: str, message: str) -> None:
    with pytest.raises(USAGE_ERRORS) as caught:
        compose(override)
    assert error_message(caught.value) == message


@pytest.mark.parametrize(
    ("end", "override", "meant"),
    [
        *(("did you mean", f"schedule={name}", "one_cycle") for name in ("onecycle", "OneCycleLR")),
        ("did you mean", "schedule=StepLR", "step"),
        ("did you mean", "schedule=CosineAnnealingLR", "cosine"),
        ("did you mean", "schedule=ReduceLROnPlateau", "reduce_on_plateau"),
        ("did you mean", "optimizer=AdamW", "adam or adamw"),
        ("did you mean", "model=ResNet-18", "resnet18"),
        ("did you mean", "data=CIFAR-100", "cifar10"),
        *(("here:", override, "epochs") for override in ("max_epochs=3", "trainer.max_epochs=3")),
        *(("here:", override, "wd") for override in ("weight_decay=0.1", "optimizer.weight_decay=0.1")),
        *(("here:", override, "nothing") for override in ("num_workers=4", "data.num_workers=4")),
        *(("here:", *case) for case in (
            ("learning_rate=0.1", "lr"), ("scheduler=x", "schedule="), ("optim=sgd", "optimizer="),
            ("data.data_dir=x", "data.root"), ("early_stopping=3", "trainer.patience"), ("+gpus=1", "trainer.devices"),
            ("precision=16", "trainer.precision=16-mixed"), ("trainer=gpu", "trainer.accelerator=cuda"),
            ("trainer.fp16=true", "trainer.precision"), ("T_max=10", "schedule.length"),
            ("fast_dev_run=true", "epochs=1"), ("use_wandb=true", "logger=wandb"), ("ckpt_path=x", "the same command"),
            ("sampler=tpe", "hydra.sweeper.sampler"),
        )),
    ],
)  # fmt: skip
def test_a_name_of_another_library_is_recognized(end: str, override: str, meant: str) -> None:
    with pytest.raises(USAGE_ERRORS) as caught:
        compose(override)
    assert f"; {end} {meant}" in error_message(caught.value)


def test_no_translated_name_is_a_key_of_the_lab_and_each_translation_begins_with_one() -> None:
    keys = {key.name for key in key_owners()} | {*GROUPS, "hydra.launcher.jobs", "hydra.sweeper.n_trials"}
    keys |= {"hydra.sweeper.sampler", "trainer.precision", "trainer.accelerator", "trainer.progress"}
    ends = {key.rpartition(".")[2] for key in keys} - {"precision", "n_trials", "sampler", "jobs", "device"}
    assert not ends & set(FOREIGN)
    for ours in OURS:
        named = re.match(r"nothing|the same command|a smaller|([\w.]+)", ours)
        assert named is not None
        assert named[1] is None or named[1] in keys, ours


@pytest.mark.parametrize(
    "text", ["/a=b", "/a/[b]", "/a/{b}", "/数据", "/a'b", '/a"b', "/a(b)", "/a\\", "~x", "/ü~", "/a,b c"]
)
def test_a_text_that_the_grammar_cannot_read_is_shown_as_it_must_be_quoted(text: str) -> None:
    """The cure is what a shell hands on as one argument that is read as the text."""
    (argument,) = shlex.split(override_message(f"data.root={text}").rpartition("quoted twice: ")[2])
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert override.value() == text


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
        "interrupted",
        "interrupted; epoch 3 is kept",
    ]
