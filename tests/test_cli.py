"""The resnetlab command: its tables and its errors."""

import argparse
import inspect
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch

from conftest import tiny
from resnetlab import run
from resnetlab.cli import COMMANDS, TABLE, add_arguments, main
from resnetlab.config.compose import to_plain
from resnetlab.report.columns import mean_sd
from resnetlab.report.groups import collect
from resnetlab.report.statistics import mean_interval


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd(mean_interval([0.92, 0.93, 0.94]), of=3) == "0.93 ± 0.01"  # the sd of a sample: n - 1
    assert mean_sd(mean_interval([0.5]), of=1, digits=4) == "0.5000"
    assert mean_sd(mean_interval([0.5]), of=2) == "0.5 (1 of 2)"
    assert mean_sd(None, of=2) == "\N{EN DASH}"


def test_the_report_counts_seeds_and_names_what_is_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        run(tiny(f"seed={seed}", "epochs=1"))
    for seed, text in (
        (2, None),
        (3, "{"),
        (4, '{"status": "diverged", "study": "s", "diverged_epoch": 5}'),
        (5, "[]"),
    ):
        folder = tiny(f"seed={seed}", "epochs=1").folder
        folder.path.mkdir()
        folder.config.write_text("")
        if text is not None:
            folder.summary.write_text(text)
    collection = collect([Path("outputs")])
    (configuration,) = collection.configurations
    assert [run.seed for run in configuration.runs] == [0, 1]
    assert [unused.reason.split(" (")[0].split(": ")[0] for unused in collection.skipped] == [
        "not finished", "summary.json cannot be read", "diverged in epoch 5", "summary.json is not a run's"
    ]  # fmt: skip
    assert main(["report"]) == 0
    assert "seed=4: diverged in epoch 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["evaluate", "nothing.ckpt"], "nothing.ckpt is not there"),
        (["evaluate", "text.ckpt"], "text.ckpt is damaged or no checkpoint of the lab (it is cut off, or another kind"),
        (["evaluate", "half.ckpt"], "half.ckpt is damaged or no checkpoint of the lab (it is cut off, or another kind"),
        (["evaluate", "empty.ckpt"], "empty.ckpt is damaged or no checkpoint of the lab (it is empty)"),
        (["evaluate", "object.ckpt"], "object.ckpt is damaged or no checkpoint of the lab (UnpicklingError: Weights"),
        (["evaluate", "number.ckpt"], "number.ckpt is damaged or no checkpoint of the lab (TypeError: "),
        (["evaluate", "blank.ckpt"], "blank.ckpt is damaged or no checkpoint of the lab (KeyError: 'state_dict')"),
        (["evaluate", "other.ckpt"], "other.ckpt is damaged or no checkpoint of the lab (its weights are of another"),
        (["interpolate", "half.ckpt", "text.ckpt"], "half.ckpt is damaged or no checkpoint of the lab (it is cut off"),
    ],
)
def test_errors_are_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.ckpt").write_text("hello")
    torch.save({"config": argparse.Namespace()}, "object.ckpt")
    torch.save({"config": 1, "epoch": 0}, "number.ckpt")
    torch.save({"config": to_plain(tiny()), "epoch": 0}, "blank.ckpt")
    torch.save({"config": to_plain(tiny()), "state_dict": {"w": torch.zeros(500)}, "epoch": 0}, "other.ckpt")
    Path("half.ckpt").write_bytes(Path("other.ckpt").read_bytes()[:-500])
    Path("empty.ckpt").touch()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert wanted in printed.err
    assert "miniz" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("report nowhere", "nowhere is not a folder"),
        ("report nowhere --out out", "nowhere is not a folder"),
        ("status nowhere", "nowhere is not a folder"),
        ("published --claims nowhere", "nowhere is not a folder"),
        ("-m train data=digits", "write it first: resnetlab train"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(
    arguments: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert wanted in printed.err
    assert not any(Path().iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        *(["report", "--out", ""], ["report", ""], ["status", "--once", ""], ["published", "--claims", ""]),
        *(["evaluate", ""], ["options", ""]),
        *(["evaluate", "x", word] for word in ("", "--out=", "--root=", "--model=", "--on=")),
        *(["predict", "x", "y", word] for word in ("", "--csv=", "--root=")),
        *(["export", "x", "--to", "onnx", word] for word in ("--out=", "--images=")),
        *(["interpolate", "x", "y", word] for word in ("--alpha=", "--limit=", "--out=")),
        *(["published", word] for word in ("--post=", "--id=", "--format=")),
        *(["schedule", "data=digits", word] for word in ("", "--out=")),
    ],
    ids=" ".join,
)
def test_an_empty_argument_of_an_unset_variable_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "an argument is empty; give it a value" in capsys.readouterr().err
    assert not any(Path().iterdir())


def test_an_interrupt_before_anything_was_done_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    for name in ("evaluate.open_checkpoint", "plots.jobs_of", "lr_range.jobs_of", "interpolate.interpolate"):
        monkeypatch.setattr(f"resnetlab.training.{name}", interrupted)
    for command in ("evaluate a.ckpt", "schedule", "lr-range", "interpolate a.ckpt b.ckpt --alpha 0,1"):
        assert main(command.split()) == 130
        assert capsys.readouterr().err == "interrupted\n"
    assert not any(Path().iterdir())


def test_an_interrupted_report_is_not_said_to_be_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    Path("outputs").mkdir()
    monkeypatch.setattr("resnetlab.report.write.page", interrupted)
    assert main(["report", "--out", "out"]) == 130
    assert capsys.readouterr().err == "interrupted; the report in out is not complete\n"


def test_evaluate_prints_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(tiny("epochs=1"))
    best = str(tiny("epochs=1").folder.best)
    assert main(["evaluate", best]) == 0
    assert f"acc  {summary['best_val_acc']:.5f}" in capsys.readouterr().out
    assert main(["evaluate", best, "--on", "test"]) == 2
    printed = capsys.readouterr().err
    assert "no untouched test images" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_function_takes_the_arguments_that_the_table_gives_it(name: str) -> None:
    about = COMMANDS[name]
    assert about.keys() == {"help", "run", "arguments"}
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser, about["arguments"])
    given = {action.dest: None for action in parser._actions}
    inspect.signature(resolve_name(f"resnetlab.{about['run']}")).bind(**given)


def test_every_shared_argument_is_one_of_several_commands() -> None:
    for name in TABLE["shared"]:
        assert sum(name in about["arguments"] for about in COMMANDS.values()) > 1


@pytest.mark.parametrize("arguments", [["report", "--ou", "x"], ["status", "--onc"], ["published", "--form", "csv"]])
def test_an_abbreviation_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is meant today: tomorrow it may mean another option."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_options_explains_every_key_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for keys in (["wd"], ["lr"], ["wd", "lr=0.1"]):
        assert main(["options", *keys]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[2] == texts[0] + texts[1]
    assert main(["options", "wd", "schedule=cosine"]) == 0
    assert capsys.readouterr().out.startswith(texts[0])
