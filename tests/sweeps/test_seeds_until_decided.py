"""seeds=auto: which runs are trained, what is printed, and that the same command goes on after any end."""

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import TINY
from processes import command, environment
from resnetlab.cli import main as cli
from resnetlab.config.compose import hydra_context
from resnetlab.config.overrides import normalize_arguments
from resnetlab.errors import LabError
from resnetlab.report.groups import collect
from resnetlab.report.sequential import half_widths
from resnetlab.runs.sweep_records import Outcome, SweepFolder, read_plan
from resnetlab.sweeps.launchers import checked_settings
from resnetlab.sweeps.run_job import SweepTask
from resnetlab.sweeps.seeds import SeedRounds

MEANS = {"wd=0.1": 0.90, "wd=0.2": 0.93, "wd=0.3": 0.60}


def value_of(label: str) -> Outcome:
    """The result of a run that takes no time: a normal value around the configuration's mean, sd 0.01."""
    configuration = label.partition(",")[0]
    noise = random.Random(label).gauss(0, 0.01)
    return Outcome("finished", MEANS[configuration] + noise)


class Launcher:
    """Hydra's launcher, whose runs take no time. ended: {label: outcome} of all launches; stop: ends at that run."""

    def __init__(self, result: Callable[[str], Outcome] = value_of) -> None:
        self.result, self.ended, self.trained, self.stop = result, dict[str, Outcome](), list[str](), 10**9
        self.rounds = list[list[str]]()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        self.rounds.append([])
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            label = self.task.labels[number]
            assert label.split(", ") == [o for o in overrides if o.startswith(("wd=", "seed="))]
            assert not [o for o in overrides if o.startswith("hydra")]
            self.rounds[-1].append(label)
            if label not in self.ended:
                if len(self.trained) == self.stop:
                    raise KeyboardInterrupt
                self.trained.append(label)
                self.ended[label] = self.result(label)
            self.task.folder.record(number, self.ended[label])


@cache
def rounds_of(*arguments: str) -> SeedRounds:
    """To be copied."""
    overrides = [a for a in normalize_arguments([*TINY, "seeds=auto", *arguments]) if a != "-m"]
    with hydra_context():
        settings = checked_settings(overrides)
    return SeedRounds(overrides, settings.sweeper)


def play(launcher: Launcher, *arguments: str) -> SeedRounds:
    rounds = deepcopy(rounds_of(*arguments))
    launcher.task = SweepTask(SweepFolder.open("default"), {}, 0, rounds)
    given = [a for a in (*TINY, *arguments) if not a.startswith("hydra")]
    rounds.run(SimpleNamespace(launcher=launcher, arguments=given), launcher.task)
    return rounds


def table(rounds: SeedRounds, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    rounds.conclude()
    return [re.sub("  +", " | ", line) for line in capsys.readouterr().out.splitlines()]


def assert_interval(rounds: SeedRounds, line: str, alpha: float) -> None:
    """That of wd=0.1 less wd=0.2 at its n, for a pair's share of alpha."""
    n = int(line.rpartition(" = ")[2])
    differences = np.subtract(rounds.values[0][:n], rounds.values[1][:n])
    mean, half = differences.mean(), half_widths(alpha, 20)[n - 1] * differences.std(ddof=1)
    assert f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})" in line


def test_only_configurations_that_are_not_told_apart_get_further_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    rounds = play(launcher, "wd=0.1,0.2,0.3")
    first, *others = launcher.rounds
    assert first == [f"wd={wd}, seed={seed}" for wd in ("0.1", "0.2", "0.3") for seed in range(4)]
    counts = Counter(label.partition(",")[0] for label in launcher.trained)
    assert counts["wd=0.3"] < counts["wd=0.1"] == counts["wd=0.2"] <= 20
    for number, labels in enumerate(others, 4):
        assert {label.partition("seed=")[2] for label in labels} == {str(number)}
    assert [len(values) for values in rounds.values.values()] == [counts[label] for label in MEANS]
    lines = table(rounds, capsys)
    assert lines[0].split(" | ") == ["alpha 0.05", "verdict", "final_val_acc"]
    assert lines[2] == "wd=0.2 | best"
    assert re.fullmatch(rf"wd=0\.1 \| lower than wd=0\.2 \| -0\.0\d+ \(.+\) \| n = {counts['wd=0.1']}", lines[1])
    assert_interval(rounds, lines[1], 0.05 / 3)
    assert re.fullmatch(
        rf"wd=0\.3 \| lower than wd=0\.2 \| -0\.3\d+ \(-.+ to -.+\) \| n = {counts['wd=0.3']}", lines[3]
    )
    assert [job.run.rpartition("=")[2] for job in read_plan(launcher.task.folder.path)] == [
        *(label.rpartition("=")[2] for labels in launcher.rounds for label in labels)
    ]


def test_a_small_difference_is_said_to_be_small_and_the_most_seeds_are_the_most(capsys) -> None:
    launcher = Launcher(lambda label: Outcome("finished", 0.9 + random.Random(label).gauss(0, 0.01)))
    lines = table(play(launcher, "wd=0.1,0.2", "hydra.sweeper.least_difference=0.03"), capsys)
    assert re.search(
        r"no difference of 0\.03 from wd=0\.[12] \| [+-]0\.0\d+ \(-.+ to \+.+\) \| n = \d", "\n".join(lines)
    )
    lines = table(play(Launcher(launcher.result), "wd=0.1,0.2", "hydra.sweeper.max_seeds=5"), capsys)
    assert re.search(r"not told apart from wd=0\.[12] .* n = 5$", "\n".join(lines))


def test_a_baseline_is_compared_with_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = play(Launcher(), "wd=0.1,0.2,0.3", 'hydra.sweeper.baseline="wd=0.1"')
    lines = table(rounds, capsys)
    assert lines[1] == "wd=0.1 | baseline"
    assert lines[2].startswith("wd=0.2 | higher than wd=0.1 | +0.0")
    assert lines[3].startswith("wd=0.3 | lower than wd=0.1 | -0.3")


def test_one_that_diverged_or_failed_is_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """What failed is tried again by the same command, and then compared like the others."""

    def result(label: str) -> Outcome:
        ends = {
            "wd=0.3, seed=1": Outcome("diverged", 0.0, diverged=True),
            "wd=0.2, seed=5": Outcome("failed", None, "full"),
        }
        return ends.get(label) or value_of(label)

    launcher = Launcher(result)
    lines = table(play(launcher, "wd=0.1,0.2,0.3"), capsys)
    assert lines[1:] == ["wd=0.1 | best", "wd=0.2 | dropped: seed 5: full", "wd=0.3 | dropped: seed 1: diverged"]
    assert max(launcher.trained) == "wd=0.3, seed=3"
    del launcher.ended["wd=0.2, seed=5"]
    launcher.result = value_of
    lines = table(play(launcher, "wd=0.1,0.2,0.3"), capsys)
    assert lines[2:] == ["wd=0.2 | best", "wd=0.3 | dropped: seed 1: diverged"]
    assert lines[1].startswith("wd=0.1 | lower than wd=0.2")
    lines = table(play(Launcher(lambda label: Outcome("failed", reason="x")), "wd=0.1,0.2"), capsys)
    assert lines[1:] == ["wd=0.1 | dropped: seed 0: x", "wd=0.2 | dropped: seed 0: x"]


def test_the_same_command_after_an_end_at_any_run_trains_none_twice_and_decides_the_same(capsys) -> None:
    whole = Launcher()
    wanted = table(play(whole, "wd=0.1,0.2,0.3"), capsys)
    for stop in range(0, len(whole.trained), 3):
        launcher = Launcher()
        launcher.stop = stop
        with pytest.raises(KeyboardInterrupt):
            play(launcher, "wd=0.1,0.2,0.3")
        launcher.stop = 10**9
        assert table(play(launcher, "wd=0.1,0.2,0.3"), capsys) == wanted
        assert launcher.trained == whole.trained
    assert table(play(launcher, "wd=0.1,0.2,0.3"), capsys) == wanted  # nothing is left to do
    assert launcher.trained == whole.trained
    more = Launcher()
    more.ended = {
        label: value_of(label) for label in (f"wd={wd}, seed={s}" for wd in (0.1, 0.2, 0.3) for s in range(30))
    }
    assert table(play(more, "wd=0.1,0.2,0.3"), capsys) == wanted  # runs that are there already change nothing
    assert more.trained == []


def test_a_presets_sweep_is_decided_too(preset) -> None:
    mine = preset("epochs: 1", 'hydra: {sweeper: {params: {wd: "0.1,0.2"}}}')
    launcher = Launcher()
    play(launcher, mine)
    assert {label.partition(",")[0] for label in launcher.trained} == {"wd=0.1", "wd=0.2"}


def verdicts(out: str) -> list[str]:
    lines = out.splitlines()
    return lines[next(n for n, line in enumerate(lines) if line.startswith("alpha ")) :]


def test_real_runs_are_decided_and_neither_status_nor_report_calls_them_unfinished(sweep, capsys) -> None:
    arguments = ("epochs=1", "wd=0.1,1e30", "seeds=auto")
    status, out, _ = sweep(*arguments)
    assert status == 0
    assert re.search(r"^wd=0\.1 +\S+ ± \S+ +n = 4$", out, re.MULTILINE)  # the table over seeds
    assert verdicts(out)[1:] == ["wd=0.1      best", "wd=1e+30    dropped: seed 0: diverged"]
    again = sweep(*arguments)
    assert again[0] == 0
    assert verdicts(again[1]) == verdicts(out)
    assert "8 skipped of 8 jobs" in again[1]
    assert cli(["status", "--once", "outputs"]) == 0
    assert capsys.readouterr().out.startswith("8 runs: 4 finished, 4 diverged; sorted by")
    (configuration,) = collect([Path("outputs")]).configurations
    assert (configuration.n, configuration.planned) == (4, 4)


def test_a_run_that_another_process_trains_leaves_it_undecided() -> None:
    locked = Outcome("skipped", reason="is being trained by another process")
    launcher = Launcher(lambda label: locked if label == "wd=0.2, seed=2" else value_of(label))
    with pytest.raises(LabError, match=r"wd=0.2, seed=2 is being trained by another process: nothing is decided"):
        play(launcher, "wd=0.1,0.2,0.3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [[], ["hydra/launcher=processes", "hydra.launcher.jobs=2"]], ids=["basic", "processes"]
)
def test_after_kills_the_decision_is_the_same_and_no_run_is_trained_twice(launcher: list[str], tmp_path: Path) -> None:
    words = [*TINY, "epochs=1", "-m", "schedule=constant,one_cycle", "seeds=auto", *launcher]
    words += ["hydra.sweeper.max_seeds=5", "hydra.sweeper.least_difference=0.05"]

    def start(name: str) -> "subprocess.Popen[str]":
        (tmp_path / name).mkdir(exist_ok=True)
        line, kind = command(*words), {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        options: Any = {**kind, "env": environment(), "cwd": tmp_path / name, "start_new_session": True}
        return subprocess.Popen(line, **options)

    whole, _ = start("whole").communicate(timeout=600)
    chance, written = random.Random(1), dict[Path, int]()
    for count in (1, 4, 8):  # the first round has eight runs
        process = start("killed")
        while process.poll() is None and len([*(tmp_path / "killed").rglob("summary.json")]) < count:
            time.sleep(0.3)
        time.sleep(chance.uniform(0, 2))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in (tmp_path / "killed").rglob("summary.json"):
            assert written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    killed, _ = start("killed").communicate(timeout=600)
    assert verdicts(killed) == verdicts(whole)
    assert len(written) >= 8
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    runs = {
        name: {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("summary.json")}
        for name in ("whole", "killed")
    }
    assert runs["whole"] == runs["killed"]
