"""scripts/gpu_campaign.sh, with a Python that only writes down what it is asked: nothing is trained."""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab import Config
from resnetlab.config.overrides import compose_jobs, normalize_arguments
from resnetlab.optim.schedules.decay_and_piecewise import PiecewiseLinear
from resnetlab.training.result import completed

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_campaign.sh"
STANDIN = """#!/bin/sh
case "$*" in "-c import"*) echo "NVIDIA H200"; exit;; esac
printf "%s\\n" "$*" >>"$CALLS"
case "$*" in "-m pytest"*) echo passed;; "-m benchmarks"*) echo '{"seconds": 1}' >"$OUT/bench.json";; esac
case "$*" in *study=profile*) exit 1;; esac
"""


def calls(*parts: str, budget: int = 600) -> list[list[str]]:
    """What the script has the stand-in do, one list of arguments a call."""
    python, log = Path("python").absolute(), Path("calls").absolute()
    python.write_text(STANDIN)
    python.chmod(0o755)
    log.write_text("")
    told = {"PYTHON": str(python), "CALLS": str(log), "OUT": str(Path("out").absolute()), "BUDGET_S": str(budget)}
    subprocess.run(["bash", SCRIPT, *parts], env=os.environ | told, check=True, timeout=60)
    return [shlex.split(line) for line in log.read_text().splitlines()]


def test_tests_come_before_the_bench_and_short_runs_before_long_ones() -> None:
    """And a part that fails, here the profile, ends nothing."""
    found = calls()
    assert [" ".join(call[:2]) for call in found[1:3]] == ["-m pytest", "-m benchmarks"]
    assert [call[0] for call in found] == ["train.py", "-m", "-m", *["train.py"] * 7, "-m"]
    keys = [{word.partition("=")[0]: word.partition("=")[2] for word in call if "=" in word} for call in found]
    assert [k.get("study") or k.get("experiment", "") for k in (keys[0], *keys[3:8])] == [
        *("smoke-${engine}", "profile", "together-processes", "together-one_process"),
        *("cifar10p2-onecycle-30", "post4-table3-25"),
    ]  # fmt: skip
    assert keys[8]["experiment"].count(",") == 17


def test_the_second_campaign_skips_what_is_done() -> None:
    first, second = calls(), calls()
    assert first[-1][:3] == ["-m", "resnetlab", "report"]
    assert second == first[3:]
    assert Path("out/gpu-tests.txt").read_text() == "passed\n"
    assert not Path("out/gpu-tests.log").exists()


def test_named_parts_are_the_only_ones() -> None:
    assert [call[1] for call in calls("smoke", "bench")] == ["data=digits", "benchmarks", "resnetlab"]
    with pytest.raises(subprocess.CalledProcessError) as found:
        calls("smoke", "benhc")
    assert found.value.returncode == 2
    assert Path("calls").read_text() == ""


def test_more_time_has_the_whole_bench_and_all_tests() -> None:
    short, whole = (calls("tests", "bench", budget=budget) for budget in (1799, 1800) if not shutil.rmtree("out", True))
    assert "not compiled" in " ".join(short[0])
    assert "compiled" not in " ".join(whole[0])
    assert ("--batch-sizes" in short[1], "--batch-sizes" in whole[1]) == (True, False)


def test_what_a_run_has_written_so_far_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that was cut off, whose profile there is, and no summary."""
    monkeypatch.setenv("RESNETLAB_OUTPUTS", str(Path("runs").absolute()))
    run = Path("runs/profile/a/seed=0")
    (run / "profile").mkdir(parents=True)
    for name in ("metrics.csv", "config.yaml", "profile/operations.txt", "curves.png"):
        (run / name).write_text(name)
    calls("smoke")
    there = {path.name for path in Path("out/profile/a/seed=0").iterdir()}
    assert there == {"metrics.csv", "config.yaml", "operations.txt"}


def test_a_new_machine_takes_up_what_the_results_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is finished there is put where a run is looked for, and what is there already stays."""
    monkeypatch.setenv("RESNETLAB_OUTPUTS", str(Path("runs").absolute()))
    files = ("config.yaml", "metrics.csv", "manifest.json", "summary.json")
    for folder, text in (
        ("out/published/a/seed=0", "old"),
        ("out/campaign/b/seed=1", "old"),
        ("runs/campaign/b/seed=1", "new"),
    ):
        Path(folder).mkdir(parents=True)
        for name in files:
            Path(folder, name).write_text(text)
    Path("out/report").mkdir()
    calls()
    assert [Path("runs/published/a/seed=0", name).read_text() for name in files] == ["old"] * 4
    assert [Path("runs/campaign/b/seed=1", name).read_text() for name in files] == ["new"] * 4
    assert Path("out/campaign/b/seed=1/summary.json").read_text() == "new"


def test_a_finished_run_of_the_results_is_not_trained_again(finished: Config, empty_folder: Path) -> None:
    """The four files that results/ has of it are enough."""
    there = empty_folder / "other"
    config = replace(finished, outputs=str(there))
    config.folder.path.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "manifest.json", "summary.json"):
        shutil.copy(finished.folder.path / name, config.folder.path)
    assert completed(config) == json.loads(finished.folder.summary.read_text())


@pytest.mark.parametrize("part", ["smoke", "profile", "together", "short"])
def test_the_other_parts_commands_are_valid(part: str) -> None:
    for call in calls(part)[:-1]:
        arguments = normalize_arguments([a for a in call[1:] if a not in ("-m", "force=true")])
        jobs = compose_jobs(arguments, multirun="-m" in call)
        assert (
            len({config.folder.path for _, config in jobs})
            == {"smoke": 8, "profile": 1, "together": 4, "short": 2}[part]
        )


def test_without_time_there_is_the_report_alone() -> None:
    assert [call[2] for call in calls(budget=0)] == ["report"]


def test_the_campaigns_runs_are_of_presets_that_there_are() -> None:
    """19 configurations with two seeds each, all with seed 0 first; composed with one, in half the time."""
    found = calls("published")
    sweeps = [normalize_arguments([a for a in call[1:] if a != "-m"]) for call in found if call[0] == "train.py"]
    assert all(arguments[0] == "seed=range(0,2)" for arguments in sweeps)
    jobs = [job for arguments in sweeps for job in compose_jobs(["seed=range(0,1)", *arguments[1:]], multirun=True)]
    assert len({label for label, _ in jobs[:-1]}) == len(jobs) - 1 == 18
    assert all(config.recalibrate_bn for _, config in jobs)
    axis = [config for label, config in jobs if "table1" in label]
    knots = [[20, 1.0], [40, 0.1], [50, 0.0125]]  # of post IV's table 1; the last one differs
    common = [c.wd for c in axis if isinstance(c.schedule, PiecewiseLinear) and c.schedule.milestones[:-1] == knots]
    assert common == [None, 0.0005, 0.004, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]
    assert len(axis) == 1 + len(common)  # 05, the other one at 0.1
    published, ours = (vars(config) for _, config in jobs[-2:])
    assert {key for key in ours if ours[key] != published[key]} == {"study", "model"}
