"""A search with Optuna: its space, its trials' outcomes, pruning, and a search that was killed."""

import json
import os
import re
import shlex
import signal
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from test_sweeps import assert_equal, table_of
from test_sweeps_killed import gone, started, wait_for, workers

from conftest import TINY, tiny
from hydra_plugins.resnetlab_sweepers import OptunaConf
from resnetlab import ConfigError, compose, run
from resnetlab.runs.files import read_rows
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps import command
from resnetlab.sweeps.run_job import run_job
from resnetlab.sweeps.search.journal import TrialReporter
from resnetlab.sweeps.search.space import Space
from resnetlab.training.callbacks.checkpoints import read_checkpoint

SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.startup_trials=2")
SPACE = ("lr=tag(log,interval(1e-4,1e-1))", "schedule=constant,cosine")


def stored(path: Path | None = None) -> optuna.Study:
    """The study as Optuna itself reads it, with its own lock."""
    (path,) = [path] if path else Path("outputs").rglob("search.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name="search", storage=storage)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def config_of(trial: optuna.trial.FrozenTrial, *overrides: str):
    return tiny(*overrides, *(f"{key}={value}" for key, value in trial.params.items()))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lr=interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("lr=interval(1,5)", FloatDistribution(1.0, 5.0)),
        ("lr=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("batch_size=int(interval(16,64))", IntDistribution(16, 64)),
        ("batch_size=tag(log,int(interval(16,64)))", IntDistribution(16, 64, log=True)),
        ("batch_size=range(16,64,16)", IntDistribution(16, 48, step=16)),
        ("batch_size=range(64,16,-16)", IntDistribution(32, 64, step=16)),
        ("wd=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("schedule=constant,cosine", CategoricalDistribution(["constant", "cosine"])),
        ("wd=0.1,null", CategoricalDistribution(["0.1", "null"])),
        ("model.norm='batch','group'", CategoricalDistribution(["'batch'", "'group'"])),
        ("+optimizer.eps=1e-8,1e-7", CategoricalDistribution(["1e-08", "1e-07"])),
    ],
)
def test_the_space_is_read_from_hydras_words(override: str, expected: BaseDistribution) -> None:
    key = override.partition("=")[0]
    space = Space.read(["epochs=3", override, "shift=0"])
    assert space.distributions == {key: expected}
    assert space.job({key: 7}) == ["epochs=3", f"{key}=7", "shift=0"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=interval(0.5,0.1)", "first number must be below"),
        ("lr=tag(log,interval(0,1))", "lr=tag"),
        ("wd=tag(log,range(0.1,0.5,0.1))", "interval"),
        ("batch_size=range(5,5)", "empty"),
        ("wd=0.1,0.1", "once"),
        ("wd=0.1", "nothing to search"),
        ("study=a,b", "study.* does not change what a run computes"),
        ("thresholds=choice([0.9],[0.92,0.93])", "cannot be searched"),
        ("snapshots=[1],[2]", "cannot be searched"),
        ("seed=0,1", "seeds=5"),
    ],
)
def test_what_is_no_space_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.read([override])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SPACE, "seeds=3"], "seeds=5"),
        (["lrr=interval(0,1)"], "lrr"),
        (["lr=interval(0,1)"], "lr=0.0"),  # the lower end
        (["momentum=interval(0.5,1.5)"], "momentum"),  # the upper end
        (["schedule=constant,cosin"], "cosin"),
        (["wd=interval(0,1)", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials (=0) must be in 1..100,000"),
        (["wd=interval(0,1)", "hydra.sweeper.warmup_epochs=0"], "hydra.sweeper.warmup_epochs (=0) must be in"),
        (["wd=interval(0,1)", "hydra.sweeper.pruner=medium"], "median, asha, hyperband, none"),
        (["wd=interval(0,1)", "hydra.sweeper.storage=sqlite:///x.db"], "must be a file of its own, not a database"),
        (["wd=interval(0,1)", "hydra.sweeper.trials=3"], "trials"),
        (["wd=interval(0,1)", "hydra/launcher=processes", "hydra.launcher.jobs=0"], "hydra.launcher.jobs"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_in_one_line(sweep, arguments: list[str], message: str) -> None:
    status, out, err = sweep(*SEARCH, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not any(Path().iterdir())


def test_what_is_missing_is_one_line(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    status, out, err = sweep(*SEARCH, *SPACE)
    assert (status, out) == (2, "")
    assert err == "error: hydra/sweeper=optuna needs Optuna: pip install 'resnetlab[optuna]'\n"
    status, out, err = sweep(*SPACE)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "hydra/sweeper=optuna" in err


def test_n_trials_is_of_all_launches_and_the_storage_says_what_the_table_says(sweep) -> None:
    arguments = ("epochs=1", *SEARCH, "hydra.sweeper.pruner=none", *SPACE)
    status, out, err = sweep(*arguments, "hydra.sweeper.n_trials=1")
    assert (status, err) == (0, "")
    first = stored().trials
    status, out, err = sweep(*arguments, "hydra.sweeper.n_trials=2")
    assert (status, err) == (0, "")
    study = stored()
    assert states(study) == ["COMPLETE"] * 2
    assert [t.params for t in study.trials[:1]] == [t.params for t in first]
    assert len(table_of(out)) == 1  # only what was missing
    for trial in study.trials:
        (rows,) = [read_rows(config_of(trial, "epochs=1").folder.metrics)]
        assert trial.value == rows[-1]["val/acc"]
        assert trial.intermediate_values == {1: trial.value}
    status, out, _ = sweep(*arguments, "hydra.sweeper.n_trials=2")
    assert status == 0
    assert "job " not in out
    (line,) = [line for line in out.splitlines() if line.startswith("  python train.py ")]
    best = compose(*shlex.split(line)[2:])
    assert json.loads(best.folder.summary.read_text())["final_val_acc"] == study.best_value


def test_the_study_has_each_trials_outcome(sweep) -> None:
    """A run that is finished before, one that diverges, and two that cannot go together."""
    before = tiny("epochs=1", "wd=0.1", "schedule=constant")
    run(before)
    written = before.folder.metrics.stat().st_mtime_ns
    arguments = ("epochs=1", *SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=6")
    space = ("wd=0.1,1e30", "momentum=null,0.9", "schedule=constant,one_cycle")
    status, out, err = sweep(*arguments, *space)
    assert status == 1
    study, seen = stored(), set()
    for trial, (outcome, rest) in zip(study.trials, rows_of(out), strict=True):
        wd, momentum, schedule = (trial.params[key] for key in ("wd", "momentum", "schedule"))
        if (momentum, schedule) == ("0.9", "one_cycle"):  # cycles it; refused for this pair only
            assert (trial.state, outcome) == (TrialState.FAIL, "failed")
            assert "momentum (=0.9) is not used" in rest
            assert "momentum (=0.9)" in trial.user_attrs["refused"]
            seen.add("refused")
        elif wd == "1e+30":
            assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
            seen.add("diverged")
        elif (momentum, schedule) == ("null", "constant"):
            assert (outcome, trial.state) == ("skipped", TrialState.COMPLETE)
            seen.add("skipped")
    assert seen == {"refused", "diverged", "skipped"}
    assert "Traceback" not in err
    assert before.folder.metrics.stat().st_mtime_ns == written
    assert sweep(*arguments, *space)[0] == 0
    assert len(stored().trials) == 6  # the refused count


def rows_of(printed: str) -> list[tuple[str, str]]:
    rows = [line for line in printed.splitlines() if re.match(r"\d+ +trial \d+: ", line)]
    lines = [re.split(r" {2,}", row, maxsplit=3) for row in rows]
    return [(line[2], line[3]) for line in lines]


@pytest.mark.slow
def test_what_failed_for_a_reason_of_the_machine_is_tried_again(sweep) -> None:
    arguments = ("epochs=1", *SEARCH, "hydra.sweeper.n_trials=1", "wd=range(0.1,0.2,0.1)")
    path = tiny("epochs=1", "wd=0.1").folder.path
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    status, _, err = sweep(*arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert states(stored()) == ["FAIL"]
    path.unlink()
    status, _, err = sweep(*arguments)
    assert (status, err) == (0, "")
    assert states(stored()) == ["FAIL", "COMPLETE"]
    assert sweep(*arguments)[0] == 0
    assert len(stored().trials) == 2


def make_pruned(path: Path) -> dict:
    """A search of one file whose next trial, the fourth, is worse than the median from its second epoch on."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    for value in (2.0, 3.0, 4.0):  # above any accuracy
        trial = study.ask()
        for epoch in (1, 2, 3):
            trial.report(value, epoch)
        study.tell(trial, value)
    study.ask()
    options = OptunaConf(n_trials=9, startup_trials=2, warmup_epochs=2)
    return {"storage": str(path), "trial": 3, "epochs": 3, "label": "", "options": vars(options)}


def test_a_pruned_run_keeps_what_it_has_and_goes_on_by_itself_to_the_same_bits(tmp_path: Path) -> None:
    config = tiny("wd=0.1", "study=pruned")
    sweep = SweepFolder(tmp_path)
    sweep.assign(0, make_pruned(tmp_path / "journal"))
    outcome = run_job(config, sweep, 0, [])
    assert (outcome.status, outcome.reason, outcome.objective) == ("pruned", "after epoch 2 of 3", None)
    folder = config.folder
    assert [row["epoch"] for row in read_rows(folder.metrics)] == [1, 2]
    assert not folder.summary.exists()
    reported = stored(tmp_path / "journal").trials[3].intermediate_values
    assert reported == {row["epoch"]: row["val/acc"] for row in read_rows(folder.metrics)}
    assert len(read_checkpoint(folder.last)["callbacks"]["Recorder"]["rows"]) == 2
    written = folder.metrics.stat().st_mtime_ns
    again = run_job(config, sweep, 0, [])  # as after a kill before it could say so
    assert (again.status, again.reason) == ("pruned", "after epoch 2 of 3")
    assert folder.metrics.stat().st_mtime_ns == written  # nothing trained
    run(config)
    run(tiny("wd=0.1", "study=undisturbed"))
    assert json.loads(folder.summary.read_text())["status"] == "finished"
    assert_equal(folder, tiny("wd=0.1", "study=undisturbed").folder)


def test_no_epoch_is_reported_twice_and_the_end_is_not_pruned(tmp_path: Path, monkeypatch) -> None:
    assignment = make_pruned(tmp_path / "journal")
    rows = [{"epoch": epoch, "val/acc": epoch / 10} for epoch in (1, 2, 3)]
    assert [TrialReporter(assignment)(rows[:n]) for n in (1, 2, 3, 2, 1)] == [False, True, True, True, False]
    assert stored(tmp_path / "journal").trials[3].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert (tmp_path / "journal").read_text().count('"step":2,"intermediate_value":0.2') == 1
    monkeypatch.setattr("resnetlab.sweeps.run_job.trial_hook", lambda folder, number: lambda rows: True)
    assert run_job(tiny("epochs=1"), SweepFolder(tmp_path), 0, []).status == "finished"


def test_a_storage_that_is_damaged_or_anothers_is_one_line(sweep, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    arguments = ("epochs=1", *SEARCH, f"hydra.sweeper.storage={path}", "hydra.sweeper.n_trials=1")
    assert sweep(*arguments, "wd=interval(0,1)")[0] == 0
    content = path.read_bytes()
    status, out, err = sweep(*arguments, "wd=interval(0,0.5)")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "another search (wd" in err
    assert path.read_bytes() == content
    path.write_bytes(content + content[:30])  # the machine went down
    assert sweep(*arguments, "wd=interval(0,1)")[0] == 0
    assert path.read_bytes() == content
    lines = content.split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], lines[2][:20], *lines[3:]]))
    status, out, err = sweep(*arguments, "wd=interval(0,1)")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is damaged" in err


def trials_of(study: optuna.Study) -> list[tuple]:
    """All that a trial is but for its times; of those that failed, nothing but that."""
    return [(t.params, t.state.name, t.value, t.intermediate_values) for t in study.trials]


COMMON = ("epochs=4", "data.limit=320", "batch_size=16", "trainer.progress=lines", "lr=tag(log,interval(1e-4,1))")
LONG = (*COMMON, *SEARCH, "wd=interval(0,1)", "schedule=constant,cosine", "hydra.sweeper.n_trials=9")


@pytest.mark.slow
def test_a_search_that_is_killed_ends_like_an_undisturbed_one(sweep) -> None:
    """Killed with its workers while it trains, three times; one trial at a time, once in processes, once in one."""
    processes = ("hydra/launcher=processes", "hydra.launcher.jobs=1")
    for count in (0, 2, 4):
        with started(*LONG, *processes) as parent:
            wait_for(lambda n=count: len(list(Path("outputs").rglob("last.ckpt"))) > n, parent)
            children = workers(parent.pid)
            os.kill(parent.pid, signal.SIGKILL)
            wait_for(lambda pids=list(children): all(gone(pid) for pid in pids))
        assert "RUNNING" in states(stored())
        assert len(stored().trials) < 9
    status, out, err = sweep(*LONG)
    assert (status, err) == (0, "")
    assert "resuming after epoch" in out
    disturbed = trials_of(stored())
    assert {state for _, state, *_ in disturbed} == {"COMPLETE", "PRUNED"}
    status, _, err = sweep(*LONG, "study=undisturbed")
    (path,) = Path("outputs/undisturbed").rglob("search.journal")
    assert (status, err) == (0, "")
    assert disturbed == trials_of(stored(path))


@pytest.mark.slow
def test_several_processes_prune_and_report_into_one_storage(sweep) -> None:
    """Two at once; what the storage holds is what the runs' files hold, and a second search has to wait."""
    with started(*LONG, "hydra/launcher=processes", "hydra.launcher.jobs=2") as parent:
        wait_for(lambda: list(Path("outputs").rglob("last.ckpt")), parent)
        status, out, err = sweep(*LONG)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "going on in another process" in err
        assert parent.wait(400) == 0, Path("log").read_text()
    study = stored()
    assert len(study.trials) == 9
    assert "PRUNED" in states(study)
    for trial in study.trials:
        common = [override for override in COMMON if not override.startswith("lr=")]
        folder = compose(*TINY, *common, *(f"{k}={v}" for k, v in trial.params.items())).folder
        rows = read_rows(folder.metrics)
        assert trial.intermediate_values == {row["epoch"]: row["val/acc"] for row in rows}
        assert folder.summary.exists() == (trial.state == TrialState.COMPLETE)
        assert len(rows) == 4 or trial.state == TrialState.PRUNED
