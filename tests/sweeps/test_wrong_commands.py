"""What is refused at the entry point: one line that names value and cure, exit status 2, and nothing is written."""

import sys
import time
import tomllib
from pathlib import Path

import pytest

from conftest import TINY
from resnetlab import cli
from resnetlab.cli import train_main as main
from resnetlab.config.overrides import normalize_arguments
from resnetlab.sweeps import launchers
from resnetlab.sweeps.command import parse_arguments
from resnetlab.sweeps.launchers import LAUNCHERS, check_launcher
from resnetlab.sweeps.parallelism import jobs_at_once

JOBLIB = "-m lr=1,2 hydra/launcher=joblib hydra.launcher."


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        # flags: a list of what is allowed, without abbreviations
        *((flag, f"{flag.split()[0]} is not supported; ") for flag in (
            "--experimental-rerun x", "--experimental x", "--config-di x", "--config-na x", "--config-pa x", "--cf job",
            "--res", "--multi", "--shell-c", "-sc install=bash", "--info", "--hydra-help", "--version", "--run",
            "--max_epochs 3", "--lr=0.1", "-r", "--pack x", "--experimental-rerun=x", "--conf=x", "--info=x",
        )),
        ("--cfg=all --multi", "--multi is not supported; "),
        ("--resolve", "--resolve goes with --cfg"),
        ("-cn x", "invalid choice: 'n'"),
        ("--multirun=1", "ignored explicit argument"),
        # --cfg is checked too
        *((f"--cfg {part} lr=-1", "lr (=-1.0) must be a finite") for part in ("job", "all", "hydra")),
        ("--cfg job lr=abc", "lr (=abc) must be a number"),
        ("--cfg job schedule=lambda", "schedule.function must be given"),
        ("-c job model=x", "model (=x) must be one of"),
        ("-m --cfg=job model=null", "model (=null) must be one of"),
        ("-c job lr=1,2", "lr (=1,2) has several values; add -m"),
        *((f"-m {values}", "two jobs of the sweep are the same (") for values in
          ("seed=0,0", "lr=1e-3,0.001", "wd=null,0.2", "batch_size=8,9,8")),
        *((f"hydra/{group}={value}", f"hydra/{group} (={value}) must name one") for group, value in
          (("launcher", "[processes]"), ("sweeper", "[optuna]"), ("launcher", "{a:1}"))),
        *((f"hydra/sweeper=optuna lr=interval(1e-3,1e-2) hydra.sweeper.storage={path}", f"storage (={path}) must be an")
          for path in ("/dev/null", "/dev", "/dev/full")),
        *((f"-m hydra/launcher=processes {words}", said) for words, said in (
            ("hydra.launcher.jobs=0", "hydra.launcher.jobs (=0) must be in 1..1,024"),
            ("hydra.launcher.jobs=x", "hydra.launcher.jobs (=x) must be a whole number"),
            ("hydra.launcher.jobs=1,2", "hydra.launcher.jobs=1,2 is not supported"),
            ("hydra.launcher.retries=-1", "hydra.launcher.retries (=-1) must be in 0..1,024"),
            ("++hydra.launcher.jobs=-1", "++hydra.launcher.jobs is not supported"),
            ("hydra.launcher={jobs:0}", "hydra.launcher is not supported"),
            ("hydra.sweep.dir=/proc/nope", "hydra.sweep.dir is not supported"),
            ("hydra.job.chdir=true", "hydra.job.chdir is not supported"),
        )),
        *((f"-m wd=0.1,0.2 hydra/launcher=one_process {words}", said) for words, said in (
            ("hydra.launcher.jobs=0", "hydra.launcher.jobs (=0) must be in 1..1,024"),
            ("trainer.profile=2", "trainer.profile (=2) must be left out with hydra/launcher=one_process"),
            ("logger=[csv,wandb]", "logger (=wandb) must be left out with hydra/launcher=one_process"),
        )),
        ("-m wd=0.1,0.2 hydra/launcher=threads", "hydra/launcher (=threads) must be one of basic, joblib"),
        ("-m wd=0.1,0.2 hydra/launcher=null", "hydra/launcher (=null) must name one"),
        # keys, values and jobs that there are not
        ("wdd=1", "unknown key wdd; did you mean wd?"),
        ("+typo=1", "unknown key typo"),
        ("optimizer=adamx", "optimizer (=adamx) must be one of"),
        ("lr=abc", "lr (=abc) must be a number"),
        ("lr", "lr is not of the form KEY=VALUE"),
        ("~lr", "~lr is not supported"),
        ("-m wd=0.1,-0.1", "wd (=-0.1) must be finite"),
        ("-m seed=range(0,0)", "the sweep has no jobs"),
        ("-m model=glob(*)", "model=glob(*) is not supported"),
        ("-m trainer.devices=1,2", "trainer.devices (=2) must be 1 with -m"),
        # what broke Hydra or Python
        *((f"hydra.sweeper.{key}", "cannot be set") for key in ("params.lr=1", "params=1", "params={lr:1}")),
        *((f"{group}._target_=os.system", "cannot be set") for group in ("hydra.launcher", "hydra.sweeper")),
        *((f"{'x' * 5000}{end}", "x... is not there: no key and no option has 5,0") for end in ("=1", ".lr=1", "/a=b")),
        *((f"{key}={'x' * 300}", "has 300 characters") for key in ("model", "experiment", "hydra/launcher")),
        *((f"{key}={'[' * n}1{']' * n}", "is nested more than 20 deep") for key, n in
          (("thresholds", 200), ("schedule.milestones", 21), ("x", 5000))),
        (f"lr={'{a:' * 30}1{'}' * 30}", "is nested more than 20 deep"),
        ("=3", "=3 has no key"),
        ("schedule.length=1e308", "schedule"),
        # too many jobs
        ("seeds=999999", "seeds (=999999) must be in 1..10,000"),
        *((f"-m lr={values}", "must be a range of at most 10,000 values") for values in
          ("range(0,1e12)", "shuffle(range(0,1e12))", "range(0,1,1e-9)", "range(0,1,0)", "range(0,20000)")),
        ("-m lr=range(1,200) wd=range(1,200)", "more than 10,000 jobs"),
        ("hydra/sweeper=optuna wd=range(0,1e12)", "must be a range of at most 10,000 values"),
        # seeds=auto
        *((f"{words} seeds=auto", "seeds=auto needs different configurations, and no other seeds: -m wd=0.1,0.2") for
          words in ("lr=1e-3", "wd=0.1", "-m lr=1,2 seed=1", "-m lr=1,2 seeds=3", "-m engine=eager,compile")),
        *((f"-m lr=1,2 seeds=auto hydra.sweeper.{key}={value}", f"hydra.sweeper.{key} (={value}) must be in {valid}")
          for key, value, valid in (
            ("alpha", "0.0", "(0, 0.5)"), ("alpha", "0.5", "(0, 0.5)"), ("alpha", "nan", "(0, 0.5)"),
            ("least_difference", "0.0", "(0, 1)"), ("least_difference", "-0.1", "(0, 1)"),
            ("max_seeds", "3", "4..50"), ("max_seeds", "51", "4..50"),
        )),
        ("-m lr=1,2 seeds=auto objective=acc", "objective (=acc) must be one of final_val_acc"),
        ('-m lr=1,2 seeds=auto hydra.sweeper.baseline="lr=3"', "baseline (=lr=3) must be one of best, lr=1, lr=2"),
        ("-m lr=1,2 seeds=auto hydra/sweeper=optuna", "seeds=auto cannot go with hydra/sweeper=optuna"),
        # values that no run can have
        ("seed=12345678901234567890123", "seed (=12345678901234567890123) must be below 10**18"),
        ("seed=1000000000000000000", "must be below 10**18"),
        *((f"{JOBLIB}{key}={value}", f"hydra.launcher.{key} (={value}") for key, value in (
            ("n_jobs", 0), ("n_jobs", -7), ("batch_size", 0), ("pre_dispatch", "nonsense"), ("backend", "foo"),
            ("backend", "threading"), ("prefer", "threads"), ("mmap_mode", "zz"), ("verbose", -1), ("timeout", 0),
        )),
        (f"{JOBLIB}max_batch_size=0", "unknown key hydra.launcher.max_batch_size"),
        *((f"-m lr=1,2 hydra.sweeper.max_batch_size={n}", f"max_batch_size (={n}) must be in") for n in (0, -1)),
    ],
)  # fmt: skip
def test_refused_in_one_line_before_anything_is_written(
    arguments: str, wanted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "joblib" in arguments:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    if "optuna" in arguments:
        pytest.importorskip("optuna")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert main([*TINY, *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert wanted in printed.err
    assert len(printed.err) < 1300
    assert not any(Path().iterdir())


def test_the_flags_that_are_supported_are_understood() -> None:
    for flags in (["--cfg", "job"], ["-c", "all", "-p", "model"], ["--cfg=job", "--resolve"], ["-cjob"]):
        assert parse_arguments([*flags, "lr=1"]).shows == flags
    assert parse_arguments(["a=1", "--multirun", "b=1,2"]).multirun


def test_the_joblib_launchers_own_defaults_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("hydra_plugins.hydra_joblib_launcher.config")
    for values in ({}, {"n_jobs": 2}, {"n_jobs": -1}, {"timeout": 5.0}, {"pre_dispatch": "all"}):
        check_launcher("joblib", {**vars(config.JobLibLauncherConf()), **values})
    assert jobs_at_once("joblib", {"n_jobs": 3}, []) == 3


def test_every_launchers_row_has_a_package_to_install_and_choices_that_are_lists() -> None:
    for row in LAUNCHERS.values():
        assert row.keys() <= {"module", "package", "choices", "advice"}
        assert ("package" in row) == ("module" in row)
        assert all(isinstance(values, list) and values for values in row.get("choices", {}).values())
    assert LAUNCHERS["joblib"]["choices"]["batch_size"] == ["auto", "1"]  # texts, as joblib's are
    assert LAUNCHERS["joblib"]["choices"]["backend"] == ["null", "loky"]


def test_rays_variables_are_texts_and_none_is_set_for_both_kinds_of_cluster() -> None:
    any_cluster, local = tomllib.loads(Path(launchers.__file__).with_name("ray_environment.toml").read_text()).values()
    assert not any_cluster.keys() & local.keys()
    assert any_cluster["RAY_USAGE_STATS_ENABLED"] == "0"
    assert local["RAY_AUTH_MODE"] == "token"
    for name, value in (any_cluster | local).items():
        assert name.startswith("RAY_")
        assert isinstance(value, str)
        assert value


def test_the_time_is_the_same_in_every_job_and_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    now = time.strftime("%Y")
    for given, wanted in {
        "study=a-${now:%Y}": f"study=a-{now}",
        "study=${now:%Y}${now:%Y}": f"study={now}{now}",
        "data.root=${oc.env:X,y}": "data.root=${oc.env:X,y}",
        "data.root=~/my data": 'data.root="/home/someone/my data"',
        "data.root='~/x=y'": 'data.root="/home/someone/x=y"',
        "hydra.sweeper.storage=~/s": 'hydra.sweeper.storage="/home/someone/s"',
        "data.root=a~/b": "data.root=a~/b",
        "init=~/a.ckpt,~/b c.ckpt": 'init="/home/someone/a.ckpt","/home/someone/b c.ckpt"',
        "init=null,'~/a,b.ckpt',x": 'init=null,"/home/someone/a,b.ckpt",x',
        "init=a,b~/c": "init=a,b~/c",
        "init=choice(~/a,~/b)": "init=choice(~/a,~/b)",
        "freeze=[~/a,~/b]": "freeze=[~/a,~/b]",
        "data.root='/data/a,~/b'": "data.root='/data/a,~/b'",
    }.items():
        assert normalize_arguments([given]) == [wanted]
    assert normalize_arguments(["study=x", "seeds=10000"])[0] == "-m"


@pytest.mark.parametrize("content", ["Dear diary\n", "\0\0", "folder", "other search"])
def test_a_refused_search_leaves_nothing_beside_the_users_file(
    content: str, sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    path = tmp_path / "mine"
    command = ["epochs=1", "hydra/sweeper=optuna", f"hydra.sweeper.storage={path}", "hydra.sweeper.n_trials=1"]
    if content == "other search":
        from resnetlab.sweeps.search.journal import open_study
        from resnetlab.sweeps.search.plan import make_plan

        open_study(make_plan([*TINY, *command, "wd=interval(0,2)"]))
        (tmp_path / "mine.held").unlink()
    elif content == "folder":
        path.mkdir()
    else:
        path.write_text(content)
    before = sorted(tmp_path.iterdir()), path.is_file() and path.read_bytes()
    status, out, err = sweep(*command, "wd=interval(0,1)")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert str(path) in err
    assert (sorted(tmp_path.iterdir()), path.is_file() and path.read_bytes()) == before


@pytest.mark.parametrize("place", ["best.ckpt", "checkpoints/best.ckpt", "a/seed=0/checkpoints/last.ckpt", None])
@pytest.mark.parametrize("command", ["evaluate", "interpolate"])
def test_a_folder_in_place_of_a_checkpoint_names_one_that_is_there(
    place: str | None, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if place:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    if command == "evaluate" and place in ("best.ckpt", "checkpoints/best.ckpt"):  # is taken
        assert cli.main([command, str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {tmp_path / place} is damaged or no checkpoint of the lab")
        return
    assert cli.main([command, str(tmp_path), *(["other.ckpt"] if command == "interpolate" else [])]) == 1
    wanted = f"name a checkpoint, such as {tmp_path / place}" if place else "there is no checkpoint (*.ckpt) below it"
    assert capsys.readouterr().err == f"error: {tmp_path} is a folder; {wanted}\n"


def test_a_report_is_written_before_it_is_printed(
    finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        assert Path("out/report.html").exists()
        raise UnicodeEncodeError("ascii", "\u00b1", 0, 1, "ordinal not in range")

    monkeypatch.setattr("resnetlab.report.table.print_table", fail)
    assert cli.main(["report", "--out", "out"]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name for path in Path("out").glob("*.*")} >= {"report.html", "table.csv", "table.md", "pairs.csv"}
