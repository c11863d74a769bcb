"""Whose run a folder is: collisions, copies, renamed folders, edited functions and images handed in from Python."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_run import stop_after

from conftest import tiny
from resnetlab import Config, ConfigError, DataError, LabError, build, compose, run
from resnetlab.config.compose import to_plain
from resnetlab.data import ImageData, Images
from resnetlab.data.normalize import Normalizer
from resnetlab.data.sources import Source
from resnetlab.optim.schedules.special import _function
from resnetlab.runs.files import read_rows, write_rows
from resnetlab.runs.load import UnusableRun, read_run
from resnetlab.runs.state import StateReader
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps.jobs import Job, start
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.interpolate import interpolate
from resnetlab.training.result import completed
from resnetlab.training.result import finished as finished_summary

# two configurations whose hashes agree in 8 digits
COLLIDING = (
    "data=digits data.limit=32 data.resolution=8 batch_size=32 model=resnet20v2 model.depth=11 epochs=1 "
    "schedule=constant threads=1 trainer.progress=off model.bn_eps="
)


def colliding() -> list[Config]:
    return [compose(*f"{COLLIDING}{eps}".split()) for eps in ("0.0121416", "0.0127371")]


def test_configurations_of_one_old_name_have_two_folders() -> None:
    one, other = colliding()
    assert one.name == other.name
    assert one.folder.path != other.folder.path
    assert one.folder.path.parent.name.startswith(one.name)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("seed", [0, 4])
def test_an_old_folder_is_found_by_its_own_configuration_alone(seed: int, force: bool) -> None:
    """A collision is refused, also where the other configuration has another seed."""
    one, other = colliding()
    old = Path("outputs/default", one.name, "seed=0")
    old.mkdir(parents=True)
    manifest = {"differs_from_defaults": one.identity, "config": to_plain(one)}
    (old / "manifest.json").write_text(json.dumps(manifest))
    one, other = (replace(config, seed=seed, force=force) for config in colliding())
    assert one.folder.path == other.folder.path == old.with_name(f"seed={seed}")
    assert completed(one) is None
    if (seed, force) != (0, True):  # which replaces it
        with pytest.raises(LabError, match=r"another run \(model.bn_eps is 0.0121416, not 0.0127371\); name another"):
            run(other)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("seed=7", "seed is 0, not 7"),
        ("wd=0.1", "wd is at its default, not 0.1"),
        ("model.bn_momentum=0.5", "model.bn_momentum is 0.1, not 0.5"),
        ("epochs=4", "epochs is 3, not 4"),
        ("schedule=cosine", "schedule is piecewise_linear, not cosine"),
        ("averaging=ema", "averaging is at its default, not ema"),
        (
            "data.limit=50 optimizer=sgd lr=1 shift=0",
            "optimizer is adamw, not sgd and 1 more)",
        ),
    ],
)
def test_a_copied_or_renamed_folder_is_refused_and_left_alone(
    finished: Config, override: str, wanted: str, interrupted: bool
) -> None:
    config = tiny(*override.split())
    shutil.copytree(finished.folder.path, config.folder.path)
    if interrupted:
        config.folder.summary.unlink()
    before = {path: path.read_bytes() for path in config.folder.path.rglob("*") if path.is_file()}
    with pytest.raises(LabError) as caught:
        run(config)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in config.folder.path.rglob("*") if path.is_file()} == before


def test_the_seed_of_a_manifest_without_one_is_the_summarys(finished: Config) -> None:
    manifest = json.loads(finished.folder.manifest.read_text())
    del manifest["config"]
    finished.folder.manifest.write_text(json.dumps(manifest))
    assert completed(finished) is not None
    shutil.copytree(finished.folder.path, tiny("seed=3").folder.path)
    with pytest.raises(LabError, match="seed is 0, not 3"):
        completed(tiny("seed=3"))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"differs_from_defaults": 3}'])
def test_without_a_manifest_a_run_is_made_again_from_its_checkpoint(
    finished: Config, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    summary, manifest = json.loads(finished.folder.summary.read_text()), finished.folder.manifest
    manifest.unlink() if content is None else manifest.write_text(content)
    assert run(tiny("trainer.progress=lines")) == summary
    assert (
        "manifest.json is another run's or is damaged; made again from the last checkpoint" in capsys.readouterr().out
    )
    assert json.loads(manifest.read_text())["differs_from_defaults"] == finished.identity


def test_another_run_in_a_folder_is_a_failed_job_of_a_sweep(finished: Config, sweep: Callable[..., Any]) -> None:
    shutil.copytree(finished.folder.path, tiny("seed=1").folder.path)
    status, out, err = sweep("epochs=3", "seed=0,1")
    assert status == 1
    assert "seed is 0, not 1" in err
    assert "Traceback" not in out + err
    job, folder = Job(1, "the other", [], tiny("seed=1")), SweepFolder.open("study")
    start(job, folder, SimpleNamespace(elsewhere=False), [])  # type: ignore[arg-type]
    assert job.outcome is not None
    assert job.outcome.status == "failed"


FUNCTION = "RATE = 0.5\ndef part(t):\n    return RATE * t\ndef factor(t):\n    return 1 + part(t)\n"


@pytest.fixture
def mine(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Writes mine.py, as edited between two commands; the configuration whose schedule is mine.factor."""
    monkeypatch.syspath_prepend(str(empty_folder))

    def write(text: str, *overrides: str) -> Config:
        (empty_folder / "mine.py").write_text(text)
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        _function.cache_clear()
        return tiny("epochs=2", "schedule=lambda", "schedule.function=mine.factor", *overrides)

    return write


EDITS = {
    "a constant": FUNCTION.replace("0.5", "0.25"),
    "a helper": FUNCTION.replace("RATE * t", "RATE * t * (t + 1)"),
    "the body": FUNCTION.replace("1 + part(t)", "1.0"),
    "the last epoch": FUNCTION.replace("1 + part(t)", "1 + part(t) - 1e-3 * (t >= 1)"),
    "all by a millionth": FUNCTION.replace("1 + part(t)", "(1 + part(t)) * (1 + 1e-6)"),
}


def test_an_edited_function_of_the_schedule_is_refused(mine: Callable[..., Config]) -> None:
    config = mine(FUNCTION)
    summary = run(config)
    for text in (f"# a comment\n{FUNCTION}", FUNCTION.replace("part", "share"), FUNCTION.replace("1 + ", "1.0 + ")):
        assert run(mine(text)) == summary
    for text in EDITS.values():
        with pytest.raises(LabError, match=r"other learning rates than schedule.function \(=mine.factor\) makes now"):
            run(mine(text))
    with pytest.raises(LabError, match=r"restore it, name another study$"):  # seeds of one configuration
        run(mine(EDITS["the body"], "seed=1"))
    config.folder.summary.unlink()
    for manifest in (True, False):
        manifest or config.folder.manifest.unlink()
        for text in EDITS.values():
            with pytest.raises(LabError, match="restore it, name another study, or start over with force=true"):
                run(mine(text))
    assert run(mine(FUNCTION))["final_val_ce"] == summary["final_val_ce"]
    assert run(mine(EDITS["the body"], "force=true"))["final_val_ce"] != summary["final_val_ce"]
    assert tiny().code_digests == {}


def test_evaluation_and_resuming_call_nothing_that_a_checkpoint_names(
    finished: Config, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(empty_folder))
    mark = empty_folder / "called"
    (empty_folder / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\ndef factor(*_, **__): return 1.0\n")
    last, previous = finished.folder.last, finished.folder.previous
    acc = evaluate_checkpoint(last)["acc"]
    content = torch.load(last, weights_only=True)
    for function in ("theirs.factor", "theirs", "not_there.at_all", "os.abort", "pathlib.Path"):
        content["config"]["schedule"] = to_plain(compose("schedule=lambda", "schedule.function=math.cosh"))["schedule"]
        content["config"]["schedule"]["function"] = function
        torch.save(content, last)
        shutil.copy(last, previous)
        assert evaluate_checkpoint(last)["acc"] == acc
        assert list(interpolate(last, previous, [0.5], limit=10))
        finished.folder.summary.unlink(missing_ok=True)
        run(tiny("trainer.progress=lines", "epochs=3"))
        assert "belongs to another run" in capsys.readouterr().out
        assert not mark.exists()


CHANGES: dict[str, Callable[[ImageData], object]] = {
    "one pixel": lambda data: data.train.pixels[3, 0, 2, 2].bitwise_xor_(1),
    "one label": lambda data: data.train.labels[3].add_(1).remainder_(10),
    "a class's name": lambda data: setattr(data, "class_names", ("zero", *data.class_names[1:])),
    "fewer images": lambda data: setattr(data, "train_images", data.train[:50]),
    "another order": lambda data: setattr(data, "train_images", data.train[torch.arange(59, -1, -1)]),
    "other validation images": lambda data: setattr(data, "val_images", data.train[:12]),
    "test images": lambda data: setattr(data, "test_images", data.val),
    "another side": lambda data: setattr(data, "train_images", data.train.scaled(8)),
}


def own_images(config: Config, classes: int = 10) -> ImageData:
    """Noise, never read from anywhere."""
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    images = torch.randint(256, (60, 3, 16, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    data.train_images = Images(images, torch.arange(60) % classes)
    data.val_images, data.class_names = data.train_images[:12], tuple(map(str, range(classes)))
    data.normalizer = Normalizer(config.data.normalize, data.train_images)
    return data


def test_images_handed_in_have_folders_of_their_own() -> None:
    config, folders = tiny(), {tiny().folder.path}
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    assert build(config, data)[0].config is config  # the same images
    for change in CHANGES.values():
        data = ImageData(config.data, config.batch_size, config.shift, config.seed)
        data.setup()
        change(data)
        folders.add(build(config, data)[0].config.folder.path)
    source = Source(own_images(config).train, own_images(config).val, tuple("abcdefghij"))
    handed_in = ImageData(config.data, config.batch_size, config.shift, config.seed, source=source)
    folders.add(build(config, handed_in)[0].config.folder.path)
    folders |= {build(config, own_images(config, classes))[0].config.folder.path for classes in (10, 7)}
    assert len(folders) == len(CHANGES) + 4
    assert sum("digits" in str(path) for path in folders) == 1
    (again,) = {build(config, own_images(config))[0].config.folder.path for _ in range(2)}
    assert again in folders


def test_a_run_of_images_handed_in_is_not_taken_for_one_of_the_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("epochs=1")
    module, data, trainer = build(config, own_images(config))
    trainer.fit(module, datamodule=data)
    last = module.config.folder.last
    assert last.exists()
    with pytest.raises(DataError, match=r"data.digest \(=\w{16}\) is not that of digits, which is"):
        evaluate_checkpoint(last)
    with pytest.raises(DataError, match=r"data\.digest"):
        list(interpolate(last, last, [0.5]))
    with pytest.raises(DataError, match="hand yours to build"):
        run(module.config)
    with pytest.raises(ConfigError, match="is not that of the images handed in"):
        build(module.config, own_images(config, 7))
    run(tiny("epochs=1", "trainer.progress=lines"))
    assert "resuming" not in capsys.readouterr().out


def test_a_data_set_that_has_changed_is_said_when_a_run_is_resumed(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(finished.folder.manifest.read_text())
    manifest["digests"]["images"] = "0" * 16
    finished.folder.manifest.write_text(json.dumps(manifest))
    finished.folder.summary.unlink()
    run(tiny("trainer.progress=lines"))
    assert f"(images {'0' * 16} -> " in capsys.readouterr().out


def test_an_interrupted_run_in_a_longer_folder_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny("trainer.progress=lines", "epochs=2")
    stop_after(config, epochs=1)  # as by build() and fit(): without a manifest
    run(config)
    assert "resuming after epoch 1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of two seeds on a holdout, each with a checkpoint of every epoch, and of another configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place := tmp_path_factory.mktemp("seeds"))
        torch.set_num_threads(1)
        for overrides in (("seed=0",), ("seed=1",), ("seed=0", "lr=2e-3")):
            run(tiny(*HOLDOUT, *overrides))
    return place / "outputs"


HOLDOUT = ("data.split=holdout", "epochs=2", "snapshots=[1,2]")


@pytest.fixture
def two(seeds: Path) -> tuple[Config, Config, Config]:
    shutil.copytree(seeds, "outputs")
    return tiny(*HOLDOUT), tiny(*HOLDOUT, "seed=1"), tiny(*HOLDOUT, "lr=2e-3")


@pytest.mark.parametrize(("whose", "epoch"), [(0, "other"), (1, "best"), (1, "other"), (2, "best"), (0, "best")])
def test_the_test_accuracy_of_another_best_checkpoint_is_unknown(
    two: tuple[Config, ...], whose: int, epoch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config, summary = tiny(*HOLDOUT, "trainer.progress=lines"), json.loads(two[0].folder.summary.read_text())
    best = summary["best_epoch"]
    shutil.copy(two[whose].folder.snapshot(best if epoch == "best" else 3 - best), config.folder.best)
    config.folder.summary.unlink()
    again, own = run(config), (whose, epoch) == (0, "best")
    assert again["best_test_acc"] == (summary["best_test_acc"] if own else None)
    assert again["final_test_acc"] == summary["final_test_acc"]
    assert ("best_test_acc is unknown" in capsys.readouterr().out) is not own


def changed(**values: Any) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        summary = json.loads(config.folder.summary.read_text())
        config.folder.summary.write_text(json.dumps({**summary, **values}))

    return change


def of_another(*names: str) -> Callable[[Config], object]:
    other = tiny(*HOLDOUT, "seed=1")
    return lambda config: [shutil.copy(other.folder.path / name, config.folder.path) for name in names]


def row_changed(row: int, column: str) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        rows = read_rows(config.folder.metrics)
        rows[row][column] *= 0.5
        write_rows(config.folder.metrics, rows)

    return change


FOREIGN_FILES = {
    "another seed's summary": of_another("summary.json"),
    "another seed's summary and metrics": of_another("summary.json", "metrics.csv"),
    "another seed's metrics": of_another("metrics.csv"),
    "seed": changed(seed=3),
    "lr": changed(lr=0.5),
    "wd": changed(wd=0.123),
    "subset": changed(subset=59),
    "averaging": changed(averaging="ema"),
    "last loss": row_changed(-1, "val/loss"),
    "last training loss": row_changed(-1, "train/ce"),
    "all accuracies": lambda config: [row_changed(row, "val/acc")(config) for row in (0, 1)],
}


@pytest.mark.parametrize("what", FOREIGN_FILES)
def test_figures_of_another_run_are_made_again_and_not_reported(
    two: tuple[Config, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = tiny(*HOLDOUT, "trainer.progress=lines"), two[0].folder
    summary, rows = json.loads(folder.summary.read_text()), folder.metrics.read_bytes()
    assert finished_summary(folder, config) == summary
    FOREIGN_FILES[what](config)
    with pytest.raises(UnusableRun, match="is another run's: "):
        read_run(folder.path)
    (state,) = StateReader([folder.path]).read(0).runs  # which reads no rows of a finished run
    of_rows = what in ("another seed's metrics", "last loss", "last training loss", "all accuracies")
    assert (state.state, "is another run's" in state.reason) == (("finished", False) if of_rows else ("damaged", True))
    assert run(config) == summary
    assert "made again from the last checkpoint" in capsys.readouterr().out
    assert folder.metrics.read_bytes() == rows


LINKS: dict[str, tuple[str, bool]] = {  # what `checkpoints` points to, and whether that is refused
    "seed=0": ("{0}/checkpoints", True),
    "a folder within seed=0": ("{0}/checkpoints/more", True),
    "another configuration": ("{2}/checkpoints", True),
    "a copy elsewhere": ("copy", True),
    "a snapshot elsewhere": ("snapshot", True),
    "an empty folder": ("empty", False),
    "its own elsewhere": ("own", False),
    "damaged ones elsewhere": ("damaged", False),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", LINKS)
def test_checkpoints_that_are_a_link_to_another_runs_are_refused(
    two: tuple[Config, ...], kind: str, force: bool
) -> None:
    target, refused = LINKS[kind]
    config = tiny(*HOLDOUT, "seed=1", f"force={force}")
    place = Path(target.format(*(other.folder.path for other in two))).absolute()
    sources = {"copy": two[0].folder.last, "snapshot": two[0].folder.snapshot(1), "own": two[1].folder.last}
    place.mkdir(exist_ok=True)
    if target in sources:
        shutil.copy(sources[target], place)
    (place / "last.ckpt").write_text("damaged") if target == "damaged" else None
    config.folder.summary.unlink()
    shutil.rmtree(config.folder.checkpoints)
    config.folder.checkpoints.symlink_to(place)
    before = {path: path.read_bytes() for path in (*Path("outputs").rglob("*"), *place.iterdir()) if path.is_file()}
    if not refused:
        assert run(config)["status"] == "finished"
        assert (place / "best.ckpt").exists() or target == "own"
        return
    with pytest.raises(LabError, match=r"another run.*; remove the link .*/checkpoints, or let it point") as caught:
        run(config)
    assert "\n" not in str(caught.value)
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("recorded", [5, "0123456789abcdef", None, [1]])
def test_a_recorded_schedule_of_the_labs_own_is_not_compared(finished: Config, recorded: Any) -> None:
    manifest = json.loads(finished.folder.manifest.read_text())
    manifest["digests"]["schedule"] = recorded
    finished.folder.manifest.write_text(json.dumps(manifest))
    assert completed(finished) is not None


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("config", "seed", "0", "seed is '0', not 0)"),
        ("differs_from_defaults", "epochs", 4, "epochs is 4, not 3)"),
        ("differs_from_defaults", "data.limit", "60", "data.limit is '60', not 60)"),
        ("differs_from_defaults", "model.depth", 20, "model.depth is 20, not 11)"),
    ],
)
def test_a_difference_between_two_kinds_is_seen(finished: Config, part: str, key: str, value: Any, said: str) -> None:
    manifest = json.loads(finished.folder.manifest.read_text())
    manifest[part][key] = value
    finished.folder.manifest.write_text(json.dumps(manifest))
    with pytest.raises(LabError, match=re.escape(said)):
        completed(finished)
