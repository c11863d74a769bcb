"""resnetlab campaign: its list, its estimates, and small campaigns on a CPU that are cut, killed and gone on with."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import TINY
from processes import environment
from resnetlab import compose
from resnetlab.campaign.estimate import START_SECONDS, Pace, epochs_left
from resnetlab.campaign.listing import read
from resnetlab.campaign.tasks import LAB
from resnetlab.campaign.tasks import environment as with_packages
from resnetlab.campaign.work import Clock, fitting
from resnetlab.cli import main
from resnetlab.errors import ConfigError
from resnetlab.files import read_rows, write_rows
from resnetlab.folders import run_folder
from test_run import deterministic

SHORT = "model=resnet20v2 model.depth=11 data=digits"
TINY_LINE = " ".join(TINY[:-1])  # without trainer.progress, which the campaign's processes set


def write(text: str) -> Path:
    path = Path("list.txt")
    path.write_text(text.replace("TINY", TINY_LINE))
    return path


# --- the list


def test_a_stage_runs_every_line_with_the_first_seed_first() -> None:
    path = write(
        "# all\nbench 60\n[one]\nTINY wd=0.1 seeds=2 # two\nTINY wd=0.2 seeds=3\n\n[two's]\nTINY seed=7\nTINY wd=0.3\n"
    )
    plan = read(path)
    assert [(task.name, task.seconds) for task in plan.tasks] == [("bench", 60.0)]
    found = [(job.config.wd, job.config.seed) for job in plan.jobs]
    assert found == [(0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1), (0.2, 2), (0.2, 7), (0.3, 0)]


@pytest.mark.slow
def test_the_campaign_of_the_lab_is_of_presets_that_there_are() -> None:
    """54 runs: the series' tables, each with three seeds; and none of them twice."""
    plan = read(None)
    assert [task.name for task in plan.tasks] == ["bench", "gpu-tests"]
    seeds = [job.config.seed for job in plan.jobs]
    assert len(plan.jobs) == 54
    assert all(seeds.count(seed) == 18 for seed in range(3))
    assert {job.config.wd for job in plan.jobs if "table1" in job.label} >= {
        0.0005,
        0.1,
        0.15,
        0.2,
        0.25,
        0.3,
        0.4,
        None,
    }
    assert all(job.config.recalibrate_bn for job in plan.jobs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names nothing to do"),
        ("bench", "line 1: bench: bench wants the seconds"),
        ("\nTINY wdd=1", "line 2: .*wdd"),
        ("TINY wd=-1", "line 1: wd"),
        ("TINY wd='0.1", "line 1: No closing quotation"),
        ("TINY seeds=0", "line 1: seeds \\(=0\\)"),
        ("TINY seeds=2 seed=1", "line 1: seeds \\(=2\\)"),
        ("TINY seeds=2\nTINY seed=1", "names a run twice: .* seed=1"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_before_any_work(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(text))
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "--budget (=0.0)"),
        ([], "--budget (=None)"),
        (["--budget", "9", "--list", "none.txt"], "--list (=none.txt): No such file"),
        (["--budget", "9", "--runs-per-device", "0"], "--runs-per-device (=0)"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["campaign", *arguments]) == 2
    assert message in capsys.readouterr().err


# --- estimates


def trained(seconds: list[float], *overrides: str) -> None:
    rows = [{"epoch": n, "val/acc": 0.5, "time/epoch": s} for n, s in enumerate(seconds, start=1)]
    write_rows(run_folder(compose(*overrides)).metrics, rows)


def test_a_run_is_estimated_by_the_epochs_seen_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    """The same work by its median without the first epoch; other work by its images; nothing is known at first."""
    path = write("TINY epochs=10 seeds=2\nTINY epochs=4 batch_size=16\nTINY epochs=4 data.limit=120\n")
    jobs = read(path).jobs
    assert Pace(jobs).of_run(jobs[0]) is None
    trained([9.0, 2.0, 4.0, 3.0], *jobs[0].overrides)
    pace = Pace(jobs)
    assert [epochs_left(job) for job in jobs] == [6, 4, 4, 10]
    assert pace.of_run(jobs[0]) == pytest.approx(START_SECONDS + 1.05 * 6 * 3.0)
    assert pace.of_run(jobs[3]) == pytest.approx(START_SECONDS + 1.05 * 10 * 3.0)
    assert pace.of_run(jobs[1]) == pytest.approx(START_SECONDS + 1.05 * 4 * 3.0)
    assert pace.of_run(jobs[2]) == pytest.approx(START_SECONDS + 1.05 * 4 * 6.0)
    assert main(["campaign", "--list", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "open     0:00:39    6 epochs" in said
    assert "0 of 4 runs are done; left: 4 runs, 24 epochs, about" in said


def test_what_fits_is_begun_and_of_a_call_that_fits_nothing_the_first() -> None:
    jobs = read(write("TINY epochs=100\nTINY epochs=10\nTINY epochs=10 wd=0.1\n")).jobs
    assert fitting(jobs, jobs, Clock(1.0), begun=True) is jobs[0]  # nobody knows how long it takes
    trained([3.0, 3.0], *jobs[2].overrides)
    assert fitting(jobs, jobs, Clock(1000.0), begun=True) is jobs[0]  # 20 + 1.05 * 300
    assert fitting(jobs, jobs, Clock(100.0), begun=True) is jobs[1]  # 20 + 1.05 * 30
    assert fitting(jobs, jobs, Clock(53.0), begun=True) is jobs[2]  # two epochs of ten are done
    assert fitting(jobs, jobs, Clock(40.0), begun=True) is None
    assert fitting(jobs, jobs, Clock(40.0), begun=False) is jobs[0]
    assert fitting([], jobs, Clock(40.0), begun=False) is None


# --- real ones


def command(*arguments: str) -> list[str]:
    return [*LAB, "campaign", "--list", "list.txt", "--out", "kept", *arguments]


def call(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(**with_packages()), timeout=400
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def kept() -> dict[str, list[dict[str, float]]]:
    return {str(path.parent): deterministic(read_rows(path)) for path in sorted(Path("kept").rglob("metrics.csv"))}


# 30 steps an epoch, some 9 s a run on an idle core
LONG = "data.limit=240 batch_size=8 epochs=25"


@pytest.mark.slow
def test_a_campaign_in_two_calls_is_complete_and_the_runs_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is too small for the first run even, which is interrupted; what fits no more is not begun."""
    text = f"{SHORT} {LONG}\nTINY epochs=1\n"
    results = []
    for name in ("whole", "cut"):
        Path(name).mkdir(exist_ok=True)
        monkeypatch.chdir(name)
        write(text)
        if name == "cut":
            said = call("--budget", "10")
            assert "0 of 2 runs are done; left: 2 runs" in said
            assert "interrupted by the budget" in said
            assert not list(Path("outputs").rglob("summary.json"))
        assert "2 of 2 runs are done" in call("--budget", "400")
        results.append(kept())
        assert len(results[-1]) == 2
        assert {path.name for path in Path("kept").rglob("seed=0/*")} == {
            "config.yaml", "metrics.csv", "manifest.json", "summary.json",
        }  # fmt: skip
        assert "resnet20v2" in Path("kept/report/table.csv").read_text()
        assert Path("kept/report/report.html").stat().st_size > 10_000
        assert "2 of 2 runs are done" in call("--budget", "400")  # and trains nothing
        assert kept() == results[-1]
        monkeypatch.chdir("..")
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_campaign_that_is_killed_goes_on() -> None:
    """SIGKILL in the middle of the second of two at once; no process of it lives on."""
    write(f"{SHORT} {LONG} seeds=2\n")
    with open("log", "w") as log:
        process = subprocess.Popen(
            command("--budget", "400", "--runs-per-device", "2"), stdout=log, stderr=log,
            env=environment(**with_packages()),
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(Path("outputs").rglob("metrics.csv"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, Path("log").read_text()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "2 of 2 runs are done" in call("--budget", "400", "--runs-per-device", "2")
    assert len(kept()) == 2


@pytest.mark.slow
def test_a_run_that_fails_ends_neither_the_others_nor_the_campaign() -> None:
    path = write("TINY epochs=1 seeds=2\n")
    folder = read(path).jobs[0].run.path
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    said = call("--budget", "200", status=1)
    assert "failed: " in said
    assert "1 of 2 runs are done; left: 1 runs" in said
    folder.unlink()
    assert "2 of 2 runs are done" in call("--budget", "200")
