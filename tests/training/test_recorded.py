"""Whose run a folder is: collisions, copies, renamed folders, edited functions and images handed in from Python."""

import json
import shutil
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
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps.jobs import Job, start
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.interpolate import interpolate
from resnetlab.training.recorded import schedule_digest
from resnetlab.training.result import completed

# two configurations whose hashes agree in 8 digits
COLLIDING = ("data=digits data.limit=32 data.resolution=8 batch_size=32 model=resnet20v2 model.depth=11 epochs=1 "
             "schedule=constant threads=1 trainer.progress=off model.bn_eps=").join(("", ""))  # fmt: skip


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
    assert "manifest.json is damaged; made again from the last checkpoint" in capsys.readouterr().out
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
        monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
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
    assert schedule_digest(tiny()) is None


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
    with pytest.raises(DataError, match=r"data.digest \(=\w{16}\) is of other images than digits has"):
        evaluate_checkpoint(last)
    with pytest.raises(DataError, match=r"data\.digest"):
        list(interpolate(last, last, [0.5]))
    with pytest.raises(DataError, match="images of your own are known to build"):
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
