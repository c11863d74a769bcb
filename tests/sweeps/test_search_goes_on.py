"""A search after a kill at any moment, beside another one, on every launcher, and chosen by a preset."""

import math
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from filelock import FileLock
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from conftest import TINY
from resnetlab import ConfigError
from resnetlab.cli import train_main as main
from resnetlab.errors import RunLocked
from resnetlab.sweeps import command, launchers
from resnetlab.sweeps import parallelism as machine
from resnetlab.sweeps.launchers import LAUNCHERS
from resnetlab.sweeps.search import journal as storage
from resnetlab.sweeps.search.journal import asked_trials, count_trials
from resnetlab.sweeps.search.loop import Search
from resnetlab.sweeps.search.plan import SearchPlan, make_plan

SEARCH = (*TINY, "hydra/sweeper=optuna", "hydra.sweeper.startup_trials=2", "hydra.sweeper.n_trials=5")
SPACE = ("lr=tag(log,interval(1e-4,1e-1))", "wd=range(0.1,0.2,0.1)", "momentum=interval(0.1,0.9)")
CHOICES = ("schedule=constant,cosine",)


class Known(Search):
    """Whose runs take no time, because their objective is a formula; some fail for a reason of the machine's."""

    def run_batch(self, trials, failing=(1,)) -> None:
        for number in trials:
            params = self.study.trials[number].params
            self.plan.space.job(params)
            if number in failing and "schedule" not in params:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, params["momentum"] - abs(math.log10(params["lr"]) + 2))


def go_on(plan: SearchPlan) -> optuna.Study:
    search = Known(plan)
    with search.opened():
        search.run(None, None)
    return search.study


def after_every_line(search: SearchPlan) -> Iterator[optuna.Study]:
    """The search as it ends when it was killed after each line of its journal: two launches then."""
    lines = search.storage.read_bytes().splitlines(keepends=True)
    assert len(lines) > 30
    for count in range(len(lines)):
        search.storage.write_bytes(b"".join(lines[:count]))
        go_on(search)
        yield go_on(search)


def test_a_search_killed_after_any_line_of_its_journal_gives_the_same_trials() -> None:
    search = make_plan([*SEARCH, *SPACE, *CHOICES])
    undisturbed = [(t.params, t.state, t.value) for t in go_on(search).trials]
    assert [state for _, state, _ in undisturbed] == [TrialState.COMPLETE] * 5
    half_asked = 0
    for study in after_every_line(search):
        assert [(t.params, t.state, t.value) for t in asked_trials(study)] == undisturbed
        half_asked += len(study.trials) > len(undisturbed)
    assert half_asked > 10


def test_what_is_tried_again_after_a_kill_is_what_failed() -> None:
    """Two at once, of which the second fails the first time."""
    search = make_plan([*SEARCH, *SPACE, "hydra.sweeper.at_once=2"])
    assert dict(count_trials(go_on(search))) == {"complete": 4, "failed": 1}
    assert dict(count_trials(go_on(search))) == {"complete": 5}
    for study in after_every_line(search):
        assert dict(count_trials(study)) == {"complete": 5}
        again = [t for t in asked_trials(study) if "again" in t.user_attrs]
        assert [t.params for t in again] == [study.trials[t.user_attrs["again"]].params for t in again]


def test_trials_are_counted_by_one_rule(capsys: pytest.CaptureFixture[str]) -> None:
    search = Search(make_plan([*SEARCH, "wd=interval(0,1)", "hydra.sweeper.n_trials=9"]))
    states = (
        *((TrialState.COMPLETE, {}), (TrialState.PRUNED, {}), (TrialState.FAIL, {"refused": "no"})),
        *((TrialState.FAIL, {}), (TrialState.COMPLETE, {"again": 3})),
        *((TrialState.FAIL, {}), (TrialState.WAITING, {"again": 5}), (TrialState.RUNNING, {})),
    )
    with search.opened():
        for state, attributes in states:
            value = 0.5 if state == TrialState.COMPLETE else None
            given = {"params": {"wd": 0.1}, "distributions": {"wd": FloatDistribution(0, 1)}}
            search.study.add_trial(create_trial(state=state, value=value, user_attrs=attributes, **given))
        assert search.trials_left == 4
        search.conclude()
    said = "search: 2 complete, 1 pruned, 1 refused, 1 failed, 1 not ended of 9 trials; "
    assert said in capsys.readouterr().out


def test_the_storage_is_opened_and_judged_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Known(make_plan([*SEARCH, *SPACE, *CHOICES])) for _ in range(2))
    assert not first.plan.storage.exists()
    with first.opened():
        assert first.unfinished
        monkeypatch.setattr(storage, "LOCK_TIMEOUT", 0.1)
        with pytest.raises(RunLocked, match="in another process"):
            second.opened().__enter__()
        first.run(None, None)
    with FileLock(f"{first.plan.storage}.running", timeout=0):  # released
        pass
    with second.opened():
        assert not second.unfinished
        assert len(second.study.trials) == 5


@pytest.mark.parametrize(
    ("launcher", "values", "expected"),
    [
        ("basic", [], 1),
        ("processes", ["hydra.launcher.jobs=3"], 3),
        ("joblib", ["hydra.launcher.n_jobs=5"], 5),
        ("joblib", [], 8),
        ("ray", [], 8),
        ("ray", ["hydra.launcher.num_cpus=3"], 2),
        ("submitit_local", [], 8),
        ("submitit_slurm", ["hydra.launcher.array_parallelism=6"], 6),
        ("ray", ["hydra.launcher.num_cpus=99"], r"num_cpus \(=99\)"),
        ("ray", ["hydra.launcher.address=auto", "hydra.sweeper.at_once=7"], 7),
        ("ray", ["hydra.launcher.address=auto"], r"hydra\.sweeper\.at_once must be given: .*address \(=auto\)"),
        ("submitit_slurm", ["hydra.launcher.array_parallelism=0"], r"array_parallelism \(=0\)"),
    ],
)
def test_as_many_trials_are_asked_for_as_the_launcher_runs(
    launcher: str, values: list[str], expected: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(LAUNCHERS[launcher].get("module", "hydra"))
    for module in (launchers, machine):
        monkeypatch.setattr(module, "cores", lambda: 8)
    monkeypatch.setattr(launchers, "which", lambda name: name)
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: False)
    command = [*SEARCH, "wd=range(0.1,0.2,0.1)", f"hydra/launcher={launcher}", *values]
    if isinstance(expected, int):
        assert make_plan(command).at_once == expected
        return
    with pytest.raises(ConfigError, match=expected):
        make_plan(command)


def test_what_a_preset_chooses_is_checked_like_what_the_command_line_chooses(
    preset, sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = preset("defaults:", "  - override /hydra/launcher: processes", "hydra: {launcher: {jobs: -1}}")
    status, out, err = sweep(mine, "wd=0.1,0.2")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "hydra.launcher.jobs (=-1)" in err
    preset("defaults:", "  - override /hydra/launcher: ray")
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    status, out, err = sweep(mine, "wd=0.1,0.2")
    assert (status, out) == (2, "")
    assert err == "error: hydra/launcher=ray needs a package that is not here: pip install ray\n"
    assert not any(Path().iterdir())


@pytest.mark.parametrize(
    ("choice", "overrides_", "called"),
    [
        ("launcher: submitit_local", ["-m", "wd=0.1,0.2"], ("run_sweep", "submitit_local")),
        ("sweeper: optuna", ["wd=interval(0.1,0.2)"], ("run_search", "basic")),
    ],
)
def test_a_preset_may_choose_a_launcher_and_a_search(
    choice: str, overrides_: list[str], called: tuple[str, str], preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "submitit" in choice:
        pytest.importorskip("submitit")
    mine, function = preset("defaults:", f"  - override /hydra/{choice}"), Mock(return_value=0)
    monkeypatch.setattr(command, called[0], function)
    assert main([*TINY, mine, *overrides_]) == 0
    assert function.call_args.args[-1] == called[1]
