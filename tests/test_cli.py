"""The resnetlab command: its tables, its refusals, its bench."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from conftest import tiny
from resnetlab import run
from resnetlab.cli import main
from resnetlab.folders import run_folder
from resnetlab.report.collect import collect
from resnetlab.report.table import mean_sd


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd([0.92, 0.93, 0.94], of=3) == "0.93 ± 0.01"  # the sd of a sample: n - 1
    assert mean_sd([0.5], of=1, digits=4) == "0.5000"
    assert mean_sd([0.5], of=2) == "0.5 (1 of 2)"
    assert mean_sd([], of=2) == "\N{EN DASH}"


def test_the_report_counts_seeds_and_names_what_is_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        run(tiny(f"seed={seed}", "epochs=1"))
    for seed, text in (
        (2, None),
        (3, "{"),
        (4, '{"status": "diverged", "study": "s", "diverged_epoch": 5}'),
        (5, "[]"),
    ):
        folder = run_folder(tiny(f"seed={seed}", "epochs=1"))
        folder.path.mkdir()
        folder.config.write_text("")
        if text is not None:
            folder.summary.write_text(text)
    collection = collect([Path("outputs")])
    (configuration,) = collection.configurations
    assert [run.seed for run in configuration.runs] == [0, 1]
    assert [unused.reason.split(" (")[0].split(": ")[0] for unused in collection.unused] == [
        "not finished", "summary.json cannot be read", "diverged in epoch 5", "summary.json is not a run's"
    ]  # fmt: skip
    assert main(["report"]) == 0
    assert "seed=4: diverged in epoch 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["report", "nowhere"], "nowhere is not a folder"),
        (["evaluate", "nothing.ckpt"], "nothing.ckpt is not there"),
        (["evaluate", "text.ckpt"], "text.ckpt is not a checkpoint"),
        (["evaluate", "object.ckpt"], "object.ckpt is not a checkpoint"),
        (["evaluate", "number.ckpt"], "number.ckpt is not a checkpoint"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.ckpt").write_text("hello")
    torch.save({"config": argparse.Namespace()}, "object.ckpt")
    torch.save({"config": 1}, "number.ckpt")
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert wanted in printed.err


def test_evaluate_prints_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(tiny("epochs=1"))
    best = str(run_folder(tiny("epochs=1")).best)
    assert main(["evaluate", best]) == 0
    assert f"acc  {summary['best_val_acc']:.5f}" in capsys.readouterr().out
    assert main(["evaluate", best, "--on", "test"]) == 1
    assert "no untouched test images" in capsys.readouterr().err


def test_bench_writes_the_contracts_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--steps", "12", "--turn", "2", "--batch-size", "4", "--model", "resnet20v2"]
    assert main([*arguments, "--out", "bench.json"]) == 0
    content = json.loads(Path("bench.json").read_text())
    assert {row["name"] for row in content["rows"]} == {"lab_eager", "bare", "pipeline"}
    for row in content["rows"]:
        assert {"batch_size", "precision", "images_per_second", "ratio_to_bare", "rounds"} <= set(row)
        assert (row["rounds"], row["steps_per_round"]) == (6, 2)
        assert row["ratio_95"][0] <= row["ratio_to_bare"] <= row["ratio_95"][1]
    bare = next(row for row in content["rows"] if row["name"] == "bare")
    assert bare["ratio_to_bare"] == 1.0
    assert {"device", "cores", "threads", "torch"} <= set(content["machine"])
    assert content["seconds_between_epochs"] > 0
    assert not Path("outputs").exists()
