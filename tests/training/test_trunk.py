"""A run that goes on from another one's checkpoint equals, to the bit, the run from its beginning."""

import subprocess
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import resnetlab
from conftest import TIMES, equal, rows_of, tiny
from resnetlab import Config, ConfigError, run
from resnetlab.config.compose import to_plain
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.schedules import SCHEDULES
from resnetlab.runs.files import read_json, read_rows, write_json
from resnetlab.training import describe
from resnetlab.training.build import build_session
from resnetlab.training.callbacks.checkpoints import on_host, read_checkpoint
from resnetlab.training.describe import CONDITIONS, git_state
from resnetlab.training.trunk import as_own, shared_epochs

WSD = ("schedule=wsd", "schedule.decay=1", "schedule.interval=step")
SWA = ("averaging=swa", "averaging.start=2")


def assert_equal_runs(one: Config, other: Config) -> None:
    """metrics.csv and summary.json but for times, and everything in best.ckpt and last.ckpt but for their settings."""
    assert one.folder.path != other.folder.path
    assert rows_of(one) == rows_of(other)
    summaries = [read_json(config.folder.summary) for config in (one, other)]
    for key in ("study", "seconds_per_epoch", "images_per_second"):
        assert all(summary.pop(key) for summary in summaries)
    assert summaries[0] == summaries[1]
    for name in ("best", "last"):
        pair = [read_checkpoint(getattr(config.folder, name)) for config in (one, other)]
        for checkpoint in pair:
            for part in (checkpoint["config"], checkpoint["hyper_parameters"]["config"]):
                for key in ("study", "snapshots", "trunk"):
                    part.pop(key, None)  # the two parts are one dictionary
        assert pair[0].keys() == pair[1].keys()
        assert [key for key in pair[0] if not equal(pair[0][key], pair[1][key], but=TIMES)] == [], name


def check_branch(trunk: Config, branch: Config, epochs: int) -> None:
    """Trains both, and the branch from its beginning. epochs: that it takes from the trunk."""
    run(trunk)
    run(branch)
    source = "/".join(trunk.folder.path.parts[-3:])
    assert read_json(branch.folder.manifest)["trunk"] == {"run": source, "epoch": epochs}
    run(reference := replace(branch, study="reference", trunk="off"))
    assert "trunk" not in read_json(reference.folder.manifest)
    assert_equal_runs(branch, reference)


def auto(*overrides: str) -> Config:
    return tiny("trunk=auto", *overrides)


def test_a_branch_of_a_snapshot_equals_the_run_from_the_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a finished trunk whose best epoch is 3, and was 1; an average begins later; loggers get the trunk's rows, and
    the branch's own snapshot of an epoch that is shared is there."""
    common = ("epochs=3", "lr=0.02", "recalibrate_bn=true")
    trunk = auto("schedule=constant", "snapshots=[1,2]", *common)
    branch = auto(*WSD, *SWA, *common, "snapshots=[1]", "trainer.progress=lines", "logger=tensorboard")
    check_branch(trunk, branch, 2)
    snapshots = [replace(branch, study=study).folder.snapshot(1) for study in ("default", "reference")]
    assert equal(*(read_checkpoint(place)["state_dict"] for place in snapshots))
    places = (trunk.folder.best, trunk.folder.snapshot_best(2), trunk.folder.snapshot(2))
    assert [read_checkpoint(place)["epoch"] + 1 for place in places] == [3, 1, 2]
    assert capsys.readouterr().out.startswith("trunk: 2 epochs are those of default/")
    events = EventAccumulator(str(branch.folder.path)).Reload().Scalars("accuracy/val")
    rows = read_rows(branch.folder.metrics)
    assert [(event.step, event.value) for event in events] == [
        (row["epoch"], pytest.approx(row["val/acc"])) for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", sorted({*SCHEDULES} - {"reduce_on_plateau"}))
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_any_schedule_may_be_shared(schedule: str, interval: str) -> None:
    """A run of two epochs, and one of three with the same schedule, made for three."""
    common = (f"schedule={schedule}", "schedule.length=3", f"schedule.interval={interval}", "schedule.warmup=0")
    if schedule == "lambda":
        common += ("schedule.function=math.cosh",)
    check_branch(auto("epochs=2", *common), auto("epochs=3", *common), 2)


OWN_OPTIMIZERS = {"custom": ("optimizer.function=torch.optim.RMSprop",), "sgd": ("optimizer.nesterov=true",)}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_optimizer_may_be_shared(optimizer: str) -> None:
    common = ("schedule=constant", f"optimizer={optimizer}", *OWN_OPTIMIZERS.get(optimizer, ()))
    common += ("regularization=none",) if optimizer == "custom" else ()
    check_branch(auto("epochs=2", *common), auto("epochs=3", *common), 2)


EMA = ("averaging=ema", "ema_momentum=0.9")
AVERAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {  # trunk, branch, epochs shared
    "an SWA of none": ((), SWA, 2),
    "the same EMA": (EMA, EMA, 2),
    "an EMA that overwrites": ((*EMA, "averaging.overwrite_frequency=3"),) * 2 + (2,),
    "an EMA with a warmup": ((*EMA, "averaging.warmup=true"),) * 2 + (2,),
    "none of an SWA": (("averaging=swa", "averaging.start=1", "snapshots=[1]"), (), 1),
    "an SWA of another": (("averaging=swa", "averaging.start=1", "snapshots=[1]"), SWA, 1),
    "the same SWA, begun": (("averaging=swa", "averaging.start=1"),) * 2 + (2,),
    "an SWA with its own lr": ((), (*SWA, "averaging.lr=0.01"), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", AVERAGES)
def test_any_average_may_be_shared_or_begin_later(case: str) -> None:
    trunk, branch, epochs = AVERAGES[case]
    check_branch(auto("schedule=constant", "epochs=2", *trunk), auto("schedule=constant", "epochs=3", *branch), epochs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "common",
    [("trainer.precision=bf16-mixed",), ("regularization=l2",), ("trainer.chunk=2",), ("trainer.accumulate=2",)],
    ids=str,
)
def test_the_rest_of_a_runs_state_is_shared_too(common: tuple[str, ...]) -> None:
    common = ("schedule=constant", "data.limit=64", *common)
    check_branch(auto("epochs=2", *common), auto("epochs=3", *common), 2)


@pytest.mark.slow
def test_a_shorter_run_may_be_all_shared_and_an_early_stop_too() -> None:
    common = ("schedule=constant", "trainer.patience=1", "lr=0.1")
    check_branch(auto(*common, "epochs=9", "snapshots=[2]"), auto(*common, "epochs=2"), 2)
    stopped = len(read_rows(auto(*common, "epochs=9").folder.metrics))
    assert stopped < 9
    common += ("study=stopped",)
    check_branch(auto(*common, "epochs=9"), auto(*common, "epochs=12"), stopped)


def plan(config: Config) -> dict[str, Any]:
    """What is known of a run before it begins."""
    return {"differs_from_defaults": config.identity, "config": to_plain(config)}


cached = cache(tiny)  # half a second each


def shared(mine: tuple[str, ...], theirs: tuple[str, ...]) -> int:
    return shared_epochs(plan(cached(*mine)), plan(cached(*theirs)))[0]


def test_the_shared_epochs_are_those_counted_by_hand() -> None:
    wsd = ("schedule=wsd", "schedule.decay=2", "schedule.interval=step")
    assert shared((*wsd, "epochs=5"), (*wsd, "epochs=9")) == 3
    # epoch 4 begins at lr, and with interval=epoch keeps it
    assert shared((*wsd, "epochs=5", "schedule.interval=epoch"), (*wsd, "epochs=9", "schedule.interval=epoch")) == 4
    assert shared(("schedule=cosine", "epochs=5"), ("schedule=cosine", "epochs=6")) == 1  # interval=epoch
    constant = ("schedule=constant", "epochs=6")
    assert shared(constant, (*constant, *SWA)) == 2
    assert shared((*constant, *SWA), (*constant, *SWA, "averaging.lr=0.1")) == 2
    assert shared((*constant, *SWA), ("schedule=constant", "epochs=8", *SWA)) == 6
    half = ("averaging=swa", "averaging.start=0.5")
    assert shared((*constant, *half), ("schedule=constant", "epochs=8", *half)) == 3
    assert shared((*constant, "averaging=ema"), ("schedule=constant", "epochs=4", "averaging=ema")) == 4
    assert shared((*constant, "averaging=ema"), constant) == 0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("seed=1", "seed is 1 there, 0 here"),
        ("wd=0.1", "wd is 0.1 there, None here"),
        ("batch_size=16", "batch_size is 16 there, 32 here"),
        ("data.eval_batch_size=20", "data.eval_batch_size is 20 there"),
        ("trainer.chunk=2", "trainer.chunk is 2 there"),
        ("data.device=cpu", "data.device is cpu there"),
        ("recalibrate_bn=true", "recalibrate_bn is True there"),
        ("trainer.patience=2", "trainer.patience is 2 there"),
        ("trainer.precision=bf16-mixed", "precision is bf16-mixed there"),
        ("averaging=ema", "averaging=ema there, none here, from the first step on"),
        ("schedule=cosine schedule.warmup=1", "lr or momentum differ in epoch 1"),
        ("schedule=reduce_on_plateau", "schedule=reduce_on_plateau depends on the run's figures"),
    ],
)
def test_settings_that_must_agree(override: str, reason: str) -> None:
    mine, theirs = cached(), cached(*override.split())
    epochs, said = shared_epochs(plan(mine), plan(theirs))
    assert (epochs, said.startswith(reason)) == (0, True), said
    assert shared_epochs(plan(theirs), plan(mine))[0] == 0
    assert shared_epochs(plan(theirs), plan(theirs))[0] == (0 if "plateau" in override else 3)


@pytest.mark.parametrize(
    ("override", "epochs"),
    [
        *(("schedule=cosine", 1), ("averaging=swa", 2), ("epochs=9", 3), ("trunk=auto", 3), ("snapshots=[2]", 3)),
        *(("thresholds=[0.5]", 3), ("study=other", 3)),
    ],
)
def test_settings_that_may_differ(override: str, epochs: int) -> None:
    assert shared_epochs(plan(cached()), plan(cached(override))) == (epochs, "")


def manifest(config: Config, **changes: Any) -> dict[str, Any]:
    """What a run's manifest says of its machine, and `changes` to it."""
    found = plan(config) | {"device": "a", "threads": 1, "precision": "32-true", "engine": "eager"}
    found |= {"versions": {"torch": "2.15"}, "git": {"sha": "a", "dirty": False}, "digests": {"images": "a"}}
    return found | changes


DIFFERENT: dict[str, Any] = {
    **{"device": "b", "threads": 2, "precision": "16-mixed", "engine": "graph", "versions": {"torch": "2.16"}},
    **{"git": {"sha": "b", "dirty": False}, "digests": {"images": "b"}},
}


@pytest.mark.parametrize("key", DIFFERENT)
def test_conditions_that_must_agree(key: str) -> None:
    """Also of any part of a run that was resumed."""
    config, name = cached(), "digest of images" if key == "digests" else key
    assert {*CONDITIONS} <= {*DIFFERENT}
    other = manifest(config, **{key: DIFFERENT[key]})
    for theirs in (other, manifest(config, earlier=[manifest(config), other])):
        epochs, reason = shared_epochs(manifest(config), theirs)
        assert (epochs, reason.startswith(f"{name} is ")) == (0, True), reason
    assert shared_epochs(manifest(config), manifest(config, earlier=[manifest(config)])) == (3, "")


@pytest.mark.parametrize("key", ["model", "optimizer"])
def test_code_that_must_agree(key: str) -> None:
    now, other = (manifest(cached(), digests={"images": "a", key: value}) for value in ("c", "d"))
    assert shared_epochs(now, other)[1] == f"digest of {key} is d there, c here"


def test_callbacks_of_ones_own_share_nothing() -> None:
    """They may read the run's length or its schedule."""
    config = tiny("callbacks=[lightning.pytorch.callbacks.Timer]")
    assert shared_epochs(plan(config), plan(config)) == (
        0,
        "callbacks of your own may depend on more than the epochs before",
    )


def test_weights_to_begin_with_must_agree() -> None:
    """Their digest is in the identity."""
    one, other = (plan(cached()) for _ in range(2))
    other["differs_from_defaults"] = other["differs_from_defaults"] | {"init": "a"}
    assert shared_epochs(one, other) == (0, "init is a there, None here")


def test_a_function_that_made_other_rates_is_refused() -> None:
    config = tiny("schedule=lambda", "schedule.function=math.cosh")
    now, other = (manifest(config, digests={"images": "a", "schedule": value}) for value in ("c", "d"))
    assert shared_epochs(now, other)[1] == "its schedule.function made other learning rates than now"
    other["config"]["schedule"]["function"] = "math.is_gone"
    assert "math.is_gone" in shared_epochs(now, other)[1]


def test_another_value_of_the_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trunk \(=on_demand\) must be one of off, auto"):
        tiny("trunk=on_demand")


def plant(finished: Config, capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[dict[str, Any], str]:
    """(manifest, what was said) of a run of four epochs with trunk=auto beside the finished one of three."""
    run(config := auto("epochs=4", "trainer.progress=lines", *overrides))
    return read_json(config.folder.manifest), capsys.readouterr().out


def test_a_trunk_of_other_conditions_is_not_taken_and_it_is_said(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_json(finished.folder.manifest)
    write_json(finished.folder.manifest, found | {"threads": 7})
    recorded, said = plant(finished, capsys)
    assert "trunk" not in recorded
    assert f"note: trunk=auto takes nothing from {finished.folder.path}: threads is 7 there, 1 here" in said


@pytest.mark.slow
def test_a_damaged_trunk_is_left_alone_and_the_checkpoint_before_is_taken(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """last.ckpt with a flipped bit; where the best of the first two epochs is gone, neither is last.prev.ckpt."""
    content = bytearray(finished.folder.last.read_bytes())
    content[len(content) // 2] ^= 1
    finished.folder.last.write_bytes(content)
    best = read_checkpoint(finished.folder.best)["epoch"] + 1
    recorded, _ = plant(finished, capsys)
    assert recorded.get("trunk", {}).get("epoch") == (2 if best <= 2 else None)


def test_a_damaged_snapshot_that_a_branch_should_have_too_costs_the_sharing_and_not_the_run(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    finished.folder.snapshot(1).write_bytes(b"cut off")
    assert "trunk" not in plant(finished, capsys, "snapshots=[1]")[0]


@pytest.mark.slow
def test_force_begins_anew(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert "trunk" not in plant(finished, capsys, "force=true")[0]


def test_a_branchs_checkpoint_can_be_copied_from_a_gpu(finished: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_own(read_checkpoint(finished.folder.last), build_session(finished))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    copied = on_host(content)
    assert equal(copied, content)
    assert copied["state_dict"]._metadata == content["state_dict"]._metadata


def test_it_is_said_that_no_checkpoint_of_the_common_epochs_is_left(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, said = plant(finished, capsys, "schedule=multistep", "schedule.milestones=[1]")
    assert "trunk" not in recorded
    reason = "of the 1 epochs in common no checkpoint is left (snapshots=[1] keeps one)"
    assert f"note: trunk=auto takes nothing from {finished.folder.path}: {reason}" in said


def test_a_neighbour_of_another_version_with_other_epochs_is_left_alone(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings are not read: they have a key that this version lacks."""
    manifest = read_json(finished.folder.manifest)
    manifest["config"]["schedule"]["of_the_future"] = 1
    write_json(finished.folder.manifest, manifest)
    recorded, _ = plant(finished, capsys)
    assert "trunk" not in recorded


def test_loggers_get_the_rows_of_a_branch_that_has_nothing_left_to_train(finished: Config) -> None:
    run(branch := auto("epochs=2", "logger=csv"))
    assert read_json(branch.folder.manifest)["trunk"]["epoch"] == 2
    assert [row["step"] for row in read_rows(branch.folder.path / "csv" / "metrics.csv")] == [1, 2]


def test_the_code_is_a_condition_whether_it_is_committed_or_not() -> None:
    files = sorted(Path(resnetlab.__file__).parent.rglob("*.py"))
    content = b"".join(file.read_bytes() for file in files)
    assert git_state()["code"] == sha256(content).hexdigest()[:16]
    assert "git" in CONDITIONS


def test_the_commit_of_a_repository_that_has_not_the_code_is_not_the_codes(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    """A package installed below a repository of the user's."""
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty"]):
        subprocess.run(["git", *words], check=True)
    installed = empty_folder / ".venv" / "resnetlab" / "training" / "describe.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(describe, "__file__", str(installed))
    assert (git_state()["sha"], git_state()["dirty"]) == (None, None)
    subprocess.run(["git", "add", "-f", "."], check=True)
    assert git_state()["sha"] is not None
