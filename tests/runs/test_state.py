"""The state of runs, read from their files, their locks and the records of sweeps."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnetlab import compose
from resnetlab.config.compose import to_plain
from resnetlab.runs import state as state_module
from resnetlab.runs.layout import RunFolder, run_key
from resnetlab.runs.load import settings_of
from resnetlab.runs.state import RunState, RunStates, StateReader, is_locked, seconds_left
from resnetlab.runs.summary import CHOICES, SETTINGS, summarize
from resnetlab.runs.sweep_records import Outcome, SweepFolder, planned_seeds
from synthetic import begin_run, ten_epochs, trained

OUTPUTS = Path("outputs")


def states(now: float = 0.0) -> RunStates:
    return StateReader([OUTPUTS]).read(now)


def test_a_plan_of_a_machine_without_the_gpu_of_those_that_train_becomes_theirs() -> None:
    """The login node plans five seeds in 32-true; the jobs run as another configuration, three have come to an end."""
    planned = [replace(ten_epochs(), seed=seed) for seed in range(5)]
    there = replace(ten_epochs().trainer, precision="16-mixed")
    sweep = SweepFolder.open("some")
    sweep.write_plan((f"seed={config.seed}", config) for config in planned)
    for seed in range(3):
        folder = begin_run(10, "finished", seed=seed, trainer=there)
        assert folder.path.parent != planned[seed].folder.path.parent
        sweep.record(seed, Outcome("finished", folder=str(folder.path)))
    running = begin_run(2, seed=3, trainer=there)
    reader = StateReader([OUTPUTS])
    waiting = reader.read(0.0).waiting
    assert [job.run.split("/")[1:] for job in waiting] == [[running.path.parent.name, "seed=4"]]
    assert planned_seeds([running.path]) == {("some", running.path.parent.name): {0, 1, 2, 3, 4}}
    for seed in (3, 4):
        folder = begin_run(10, "finished", seed=seed, trainer=there)
        sweep.record(seed, Outcome("finished", folder=str(folder.path)))
    found = reader.read(0.0)
    assert not found.waiting
    assert found.counts() == {"finished": 5}


def test_a_lock_is_held_while_its_process_lives() -> None:
    folder = begin_run(1)
    folder.lock.unlink()
    assert is_locked(folder.lock) is False
    assert not folder.lock.exists()
    with trained(folder) as process:
        assert is_locked(folder.lock) is True
        assert states().counts() == {"running": 1}
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert is_locked(folder.lock) is False
    assert states().counts() == {"interrupted": 1}
    with trained(folder):  # the look has let go of it
        assert is_locked(folder.lock) is True


def test_a_lock_that_one_may_not_write_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_access(*_: object, **__: object) -> None:
        raise PermissionError("read-only folder")

    begin_run(4)
    monkeypatch.setattr(state_module, "FileLock", no_access)
    assert states().counts() == {"unfinished": 1}


@pytest.mark.parametrize("overrides", ["", "data.limit=50 study=2026 momentum=0.95 averaging=ema lr=1e-4"])
def test_the_settings_of_a_manifest_are_those_of_the_summary_to_come(overrides: str) -> None:
    config = compose("data=digits", *overrides.split())
    summary = summarize(config, [], status="diverged")
    assert settings_of(to_plain(config)) == {key: summary[key] for key in (*CHOICES, *SETTINGS, "subset")}


def test_a_run_from_before_manifests_held_the_config_has_its_folders_name_and_its_epochs() -> None:
    folder = begin_run(4, wd=0.2)
    text = folder.manifest.read_text()
    folder.manifest.write_text(text[: text.index(',\n  "config"')] + "}")
    (run,) = states().runs
    assert (run.manifest.keys(), run.summary) == ({"differs_from_defaults"}, {})
    assert (run.label, run.study, run.seed) == (folder.path.parent.name, "some", 0)
    assert (run.done, run.epochs) == (4, 10)


def test_time_left_by_hand() -> None:
    reader = StateReader([OUTPUTS])
    one, other = (reader.run_at(begin_run(4, wd=wd).path) for wd in (0.1, 0.2))
    assert one
    assert other

    def left(run: RunState, passed: float) -> float | None:
        return seconds_left(run, (run.changed or 0.0) + passed)

    assert left(one, 0.0) == 180.0
    assert left(one, 12.0) == 168.0
    assert left(one, 500.0) == 150.0  # the sixth epoch may end at any moment, and is not over
    assert left(one, -500.0) == 180.0  # a clock that was set
    assert left(replace(one, epochs=None), 0.0) is None
    assert left(replace(one, seconds=None), 0.0) is None
    running = replace(one, state="running", left=180.0)
    two = [running, replace(other, state="running", seconds=10.0, left=60.0)]
    configs = [replace(ten_epochs(), wd=wd) for wd in (0.1, 0.2, 0.3, 0.4)]
    SweepFolder.open("some").write_plan(("", config) for config in configs)
    waiting = states().waiting
    assert [job.run for job in waiting] == [run_key(config.folder.path) for config in configs[2:]]
    assert RunStates(two).left() == 180.0  # the longer one
    assert RunStates(two, waiting).left() == (180 + 60 + 2 * 10 * 20) / 2
    assert RunStates([*two, replace(running, left=None)]).left() is None


def test_only_what_has_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [begin_run(3, wd=wd) for wd in (0.1, 0.2, 0.3)]
    reads: list[Path] = []
    original = state_module.read_run_state

    def read(path: Path, found: state_module.Stamps) -> RunState:
        reads.append(path)
        return original(path, found)

    monkeypatch.setattr(state_module, "read_run_state", read)
    reader = StateReader([OUTPUTS])
    reader.read(0.0)
    reader.read(0.0)
    assert len(reads) == 3
    begin_run(4, wd=0.2)
    assert {run.done for run in reader.read(0.0).runs} == {3, 4}
    assert reads[3:] == [folders[1].path]
    shutil.rmtree(folders[0].path)
    assert len(reader.read(0.0).runs) == 2
    assert reader.run_at(folders[0].path) is None
    assert len(reads) == 4


@pytest.mark.parametrize(
    "config",
    [{"epochs": "many", "seed": [1], "study": {}, "model": 3}, {"data": {}, "model": {}}, {"epochs": 10**30}, {}],
)
def test_a_manifest_with_an_odd_config_is_no_traceback(config: dict[str, Any]) -> None:
    folder: RunFolder = begin_run(4)
    text = folder.manifest.read_text()
    folder.manifest.write_text(text[: text.index('"config"')] + f'"config": {config!r}}}'.replace("'", '"'))
    assert states().counts() == {"interrupted": 1}
