"""The command line of train.py: errors in one line before anything is done, -m in any place, sweeps."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from conftest import TINY, tiny
from processes import command, environment, train
from resnetlab import ConfigError
from resnetlab.cli import train_main as main
from resnetlab.config.overrides import normalize_arguments
from resnetlab.training.run import run_lock

QUICK = ("model=resnet20v2", "model.depth=11", "data=digits", "data.limit=60", "epochs=1", "schedule=constant")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a=1", "-m", "b=2,3"], ["-m", "a=1", "b=2,3"]),
        (["a=1", "b=2,3", "--multirun"], ["-m", "a=1", "b=2,3"]),
        (["a=1"], ["a=1"]),
        (["seeds=3", "wd=0.1"], ["-m", "seed=range(0,3)", "wd=0.1"]),
        (["hydra/sweeper=optuna"], ["-m", "hydra/sweeper=optuna"]),
        (["wd=1,2", "seeds=auto"], ["-m", "wd=1,2", "hydra/sweeper=seeds"]),
    ],
)
def test_the_flag_may_stand_anywhere_and_seeds_is_short_for_a_sweep(arguments: list[str], expected: list[str]) -> None:
    assert normalize_arguments(arguments) == expected


@pytest.mark.parametrize("wrong", ["seeds=none", "seeds=0", "seeds=3 seed=5", "--config-name=mine"])
def test_arguments_that_are_refused_by_name(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        normalize_arguments(wrong.split())


@pytest.mark.slow
def test_a_reader_that_goes_away_costs_nothing() -> None:
    """train.py | head -1: the run goes on in silence to its end."""
    arguments = [*command(*TINY, "epochs=2", "trainer.progress=lines")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(120)
    (summary,) = Path("outputs").rglob("summary.json")
    assert json.loads(summary.read_text())["epochs_trained"] == 2


def test_a_file_in_place_of_a_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs").write_text("not a folder")
    assert main([*QUICK, "trainer.progress=off"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "outputs" in printed


def test_missing_data_is_one_line_and_status_1_and_creates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = "http://127.0.0.1:9"  # the discard port: refused at once, so the download fails without leaving the machine
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # made at the first use, with the proxies of that time
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert main(["epochs=1", f"data.root={tmp_path / 'nowhere'}", "trainer.progress=off"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    for word in ("CIFAR10", str(tmp_path / "nowhere"), "data.root", "CIFAR_ROOT"):
        assert word in lines[0]
    assert not (tmp_path / "outputs").exists()


def test_the_main_experiments_command_runs_as_written_on_a_small_set() -> None:
    done = train(
        "optimizer=adamw", "schedule=piecewise_linear", "schedule.stretch=true", "epochs=2", "trainer.progress=lines",
        "-m", "wd=0.1,0.2,0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(path.read_text()) for path in Path("outputs").rglob("summary.json")]
    assert sorted(summary["wd"] for summary in summaries) == [0.1, 0.2, 0.3]
    assert all(summary["status"] == "finished" for summary in summaries)
    assert "val_acc improved from" in done.stdout
    assert "a subset" in done.stdout
    assert sorted(os.listdir()) == ["outputs"]


def test_a_job_that_cannot_run_does_not_stop_the_others(sweep) -> None:
    with run_lock(tiny("epochs=1", "wd=0.1").folder):
        status, out, err = sweep("epochs=1", "wd=0.1,0.2")
    assert (status, err) == (0, "")
    assert re.search(r"^0 +wd=0.1 +skipped +- +is being trained by another process$", out, re.MULTILINE)
    assert re.search(r"^1 +wd=0.2 +finished +0\.\d{4}$", out, re.MULTILINE)
    assert "1 finished, 1 skipped of 2 jobs" in out
    (summary,) = Path("outputs").rglob("summary.json")
    assert json.loads(summary.read_text())["wd"] == 0.2


def test_hydra_still_shows_the_configuration(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert main(["wd=0.3", "--cfg", "job", "lr=0.1"]) == 0
    shown = capsys.readouterr().out
    assert "wd: 0.3" in shown
    assert "lr: 0.1" in shown
    assert not any(Path().iterdir())
