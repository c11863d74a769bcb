"""Checkpoints: damage is noticed, what was measured is in them, the best is the objective's; starting over; memory."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pytest
import torch
from test_run import summary_of

from conftest import equal, rows_of, tiny
from resnetlab import Config, DataError, LabError, run
from resnetlab.cli import main
from resnetlab.data import ImageData
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import best_column, best_row
from resnetlab.training.callbacks.checkpoints import AtomicCheckpointIO, network_state, read_checkpoint, resume_point
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.run import start_over


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_no_flipped_bit_is_loaded_as_something_else(finished: Config) -> None:
    """A few bits lie between the zip's parts, where nothing is read: then the content is what it was."""
    chance, whole = random.Random(1), read_checkpoint(finished.folder.last)
    copy, size, refused = Path("copy.ckpt"), finished.folder.last.stat().st_size, 0
    for _ in range(200):
        shutil.copy(finished.folder.last, copy)
        flip(copy, chance.randrange(size), chance.randrange(8))
        try:
            assert equal(read_checkpoint(copy), whole)
        except AssertionError:
            raise
        except Exception:
            refused += 1
    assert refused >= 190


def flipped(path: Path) -> None:
    flip(path, path.stat().st_size // 2, 4)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flipped,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "the beginning lost": lambda path: path.write_bytes(path.read_bytes()[1000:]),
    "a block of zeros": lambda path: path.write_bytes(path.read_bytes()[:5000] + bytes(512) + path.read_bytes()[5512:]),
    "text": lambda path: path.write_text("weights"),
    "empty": lambda path: path.write_bytes(b""),
    "another zip": lambda path: shutil.make_archive("other", "zip", ".", "outputs/default/none") and shutil.move(
        "other.zip", path
    ),
}  # fmt: skip


LOADED = {  # what a plain load of each says
    **dict.fromkeys(("a bit", "a block of zeros"), "is not what was written"),
    **dict.fromkeys(("cut off", "text", "empty"), "not a zip file"),
    **{"the beginning lost": "Invalid argument", "another zip": "version"},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_by_every_reader_and_a_resumed_run_goes_back(
    finished: Config, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder, rows, summary = finished.folder, rows_of(finished), summary_of(finished)
    Path("outputs/default/none").mkdir()
    DAMAGE[kind](folder.last)
    for command in (f"evaluate {folder.last}", f"interpolate {folder.last} {folder.best} --alpha 0,1"):
        assert main(command.split()) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "damaged" in err
        assert f"{folder.previous} is of the epoch before" in err
    with pytest.raises((DataError, BadZipFile, OSError, RuntimeError), match=LOADED[kind]):
        AtomicCheckpointIO().load_checkpoint(folder.last)  # as trainer.fit(ckpt_path=...)
    folder.summary.unlink()
    assert run(tiny("trainer.progress=lines"))["final_val_ce"] == summary["final_val_ce"]
    said = capsys.readouterr().out
    assert "last.ckpt cannot be used" in said
    assert "resuming after epoch 2" in said
    assert rows_of(finished) == rows


def drop(part: Any, key: Any) -> None:
    del part[key]


# change of a checkpoint: what becomes of a run that resumes from it in the middle, and at its end
REFUSED, AGAIN, UNREAD = (("refused", "refused"), ("from the beginning",) * 2, ("refused", "as it was"))
MISFITS: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, str]]] = {
    "a kernel of another shape": (lambda c: c["state_dict"].update({"model.head.weight": torch.zeros(10, 3)}), REFUSED),
    "a tensor less": (lambda c: drop(c["state_dict"], next(iter(c["state_dict"]))), REFUSED),
    "a tensor more": (lambda c: c["state_dict"].update({"model.more": torch.zeros(2)}), REFUSED),
    "a number for a tensor": (lambda c: c["state_dict"].update({"model.head.weight": 3}), AGAIN),
    "no weights": (lambda c: drop(c, "state_dict"), AGAIN),
    "an optimizer of fewer groups": (lambda c: c["optimizer_states"][0]["param_groups"].pop(), UNREAD),
    "no optimizer": (lambda c: drop(c, "optimizer_states"), UNREAD),
    "no loops": (lambda c: drop(c, "loops"), UNREAD),
    "loops of another kind": (lambda c: c.update(loops=[1, 2]), UNREAD),
    "no rows' callback state": (lambda c: c["callbacks"]["Recorder"].update(rows=7), AGAIN),
}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", MISFITS)
def test_a_checkpoint_that_does_not_fit_is_one_line_or_gone_back_from(
    finished: Config, kind: str, trained: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """trained: it is of the last epoch, so that only weights and rows are read of it."""
    folder, whole = finished.folder, summary_of(finished)
    if not trained:
        shutil.copy(folder.previous, folder.last)
    content, (change, outcomes) = read_checkpoint(folder.last), MISFITS[kind]
    change(content)
    torch.save(content, folder.last)
    folder.previous.unlink()
    folder.summary.unlink()
    if outcomes[trained] == "refused":
        with pytest.raises(
            DataError, match=r"does not fit this network and optimizer.*start over with force=true"
        ) as e:
            run(tiny("trainer.progress=lines"))
        assert "\n" not in str(e.value)
        assert not folder.summary.exists()
        return
    assert run(tiny("trainer.progress=lines"))["final_val_ce"] == whole["final_val_ce"]
    begun = "starting from the beginning" in capsys.readouterr().out
    assert begun == (outcomes[trained] == "from the beginning")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**50),
        lambda: bytearray(2**60),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `create`")),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")),
    ],
)
@pytest.mark.parametrize("place", ["build.build_module", "module.ImageClassifier.one_step", "conclude.summarize"])
def test_memory_that_runs_out_is_one_line(fail: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"resnetlab.training.{place}", lambda *_, **__: fail())
    with pytest.raises(LabError, match=r"^out of memory \(cpu.*\); take a smaller batch_size \(=32\)") as caught:
        run(tiny("epochs=1"))
    assert "\n" not in str(caught.value)


def test_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetlab.training.module.ImageClassifier.one_step", lambda *_: [].pop())
    with pytest.raises(IndexError):
        run(tiny("epochs=1"))


def linked(path: Path, target: Path) -> None:
    path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["checkpoints", "profile", "interpolation-a-b", "curves.png", "summary.json"])
@pytest.mark.parametrize("target", ["a folder", "a file", "nothing"])
def test_starting_over_goes_through_links_without_touching_what_is_not_the_runs(
    finished: Config, name: str, target: str
) -> None:
    folder, elsewhere = finished.folder, Path("elsewhere").absolute()
    if target == "a folder":
        shutil.copytree(folder.checkpoints, elsewhere)
        (elsewhere / "notes.txt").write_text("mine")
    elif target == "a file":
        elsewhere.write_text("mine")
    linked(folder.path / name, elsewhere)
    start_over(folder)
    stays = name == "checkpoints" and target == "a folder"
    assert {path.name for path in folder.path.iterdir()} == {".lock"} | ({name} if stays else set())
    if target == "a folder":
        assert len(list(elsewhere.iterdir())) == (1 if stays else 4)
        assert (elsewhere / "notes.txt").read_text() == "mine"
    elif target == "a file":
        assert elsewhere.read_text() == "mine"


def test_a_run_with_linked_checkpoints_starts_over_again_and_again(finished: Config) -> None:
    shutil.move(finished.folder.checkpoints, "scratch")
    finished.folder.checkpoints.symlink_to(Path("scratch").absolute())
    for _ in range(2):
        assert run(tiny("force=true"))["final_val_ce"] == summary_of(finished)["final_val_ce"]
    assert finished.folder.checkpoints.is_symlink()
    assert {path.name for path in Path("scratch").iterdir()} == {"best.ckpt", "last.ckpt", "last.prev.ckpt"}


def test_starting_over_that_fails_leaves_the_summary(finished: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda path: Path("nowhere/at/all").unlink())
    with pytest.raises(OSError, match="nowhere"):
        start_over(finished.folder)
    assert finished.folder.summary.exists()


@pytest.mark.parametrize(
    ("overrides", "accuracies", "epoch"),
    [
        (
            "",
            [(0.5, 0.9), (0.8, 0.3), (0.7, 0.2)],
            2,
        ),  # averaging=none: no such column is written, and none is asked for
        ("averaging=ema", [(0.5, 0.1), (0.8, 0.3), (0.7, 0.6)], 3),
        ("averaging=ema", [(0.5, 0.6), (0.8, 0.6), (0.9, 0.1)], 1),  # the first of equals
        ("averaging=ema objective=best_val_acc", [(0.5, 0.1), (0.8, 0.3), (0.7, 0.6)], 2),
        ("averaging=ema objective=final_val_acc_avg", [(0.9, 0.1), (0.8, 0.3), (0.7, 0.2)], 2),
        ("averaging=swa", [(0.9, None), (0.5, 0.3), (0.7, 0.4)], 3),
        ("averaging=swa", [(0.9, None), (0.95, None), (0.7, None)], 2),  # ended before its average began
    ],
)
def test_the_best_epoch_is_that_of_the_objective_or_the_average(
    overrides: str, accuracies: list[tuple[float, float | None]], epoch: int
) -> None:
    rows = [{"epoch": n, "val/acc": raw, "val/acc_avg": averaged} for n, (raw, averaged) in enumerate(accuracies, 1)]
    rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    best = best_row(rows, best_column(tiny(*overrides.split())))  # type: ignore[arg-type]
    assert best is rows[epoch - 1]


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    """A run with an average, re-estimated statistics and test images, whose averaged weights get better and better."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("averaged"))
        config = tiny(
            "averaging=ema", "ema_momentum=0.7", "recalibrate_bn=true", "data.split=holdout", "epochs=5", "lr=3e-3",
            "regularization=l2_weight_decay", "threads=1",
        )  # fmt: skip
        summary = run(config)
        return RunFolder(config.folder.path.absolute()), summary


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize(("weights", "suffix"), [("raw", ""), ("averaged", "_avg"), ("reestimated", "_recal")])
@pytest.mark.parametrize("older", [False, True])
def test_every_kind_of_weights_has_the_figures_of_the_run(
    averaged_run: tuple[RunFolder, dict[str, Any]], name: str, weights: str, suffix: str, older: bool
) -> None:
    """older: a checkpoint of before it held statistics, which are then re-estimated."""
    path, copy = getattr(averaged_run[0], name), Path("copy.ckpt")
    content = read_checkpoint(path)
    if older:
        del content["statistics"]
    torch.save(content, copy)
    found = evaluate_checkpoint(copy, weights=weights)
    row = read_rows(averaged_run[0].metrics)[found["epoch"] - 1]
    for key in ("loss", "ce", "acc"):
        assert found[key] == pytest.approx(row[f"val/{key}{suffix}"], rel=1e-6)
    assert found["acc"] == row[f"val/acc{suffix}"]


def test_the_best_checkpoint_is_the_averages_best(averaged_run: tuple[RunFolder, dict[str, Any]]) -> None:
    folder, summary = averaged_run
    rows = read_rows(folder.metrics)
    best = max(rows, key=lambda row: row["val/acc_avg"])
    assert (summary["best_epoch_avg"], summary["best_val_acc_avg"]) == (best["epoch"], best["val/acc_avg"])
    found = evaluate_checkpoint(folder.best, "test", weights="averaged")
    assert (found["epoch"], found["acc"]) == (best["epoch"], summary["best_test_acc"])
    assert evaluate_checkpoint(folder.last, "test", weights="averaged")["acc"] == summary["averaged_test_acc"]
    assert evaluate_checkpoint(folder.last, "test")["acc"] == summary["final_test_acc"]


def test_the_averaged_weights_loaded_plainly_have_the_accuracy_that_was_measured(
    averaged_run: tuple[RunFolder, dict[str, Any]],
) -> None:
    """By a forward pass of the bare network, without the lab's evaluation."""
    checkpoint, config = read_checkpoint(averaged_run[0].last), tiny("data.split=holdout")
    network = config.model.build(10, torch.Generator()).eval()
    data = ImageData(config.data, 32, config.shift, 0)
    x, y = data.normalizer(data.val.pixels) if data.val else None, data.val.labels
    for weights, key in (("averaged", "avg"), ("reestimated", "recal")):
        network.load_state_dict(network_state(checkpoint, weights))
        with torch.no_grad():
            accuracy = (network(x).argmax(1) == y).float().mean().item()
        assert accuracy == pytest.approx(averaged_run[1][f"final_val_acc_{key}"], abs=1e-6)


def test_weights_that_are_not_there_are_refused(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished.folder.last), "--averaged"]) == 2
    printed = capsys.readouterr().err
    assert "holds no averaged weights" in printed
    assert printed.count("\n") == 1
    assert main(["evaluate", str(finished.folder.last), "--reestimated"]) == 0  # re-estimated now
    with pytest.raises(SystemExit):
        main(["evaluate", str(finished.folder.last), "--reestimated", "--averaged"])


def test_a_damaged_best_checkpoint_costs_its_test_accuracy_alone(
    averaged_run: tuple[RunFolder, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(averaged_run[0].path.parents[2], "outputs")
    config = tiny(
        "averaging=ema", "ema_momentum=0.7", "recalibrate_bn=true", "data.split=holdout", "epochs=5", "lr=3e-3",
        "regularization=l2_weight_decay", "threads=1", "trainer.progress=lines",
    )  # fmt: skip
    flipped(config.folder.best)
    config.folder.summary.unlink()
    assert run(config) == averaged_run[1] | {"best_test_acc": None}
    assert "best.ckpt cannot be used" in capsys.readouterr().out


ODD: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"epoch {epoch}": lambda c, epoch=epoch: c.update(epoch=epoch)  # type: ignore[misc]
       for epoch in (1.5, -5, 10**30, True, "2", None, 4)},
    **{f"statistics {part}": lambda c, part=part: c.update(statistics=part)  # type: ignore[misc]
       for part in ([1], 3, {"reestimated": [1]}, {"averaged": {"more": torch.zeros(2)}}, {"reestimated": {3: 4}},
                    {"reestimated": {"head.weight": torch.zeros(3)}}, {"averaged": {"head.weight": "text"}})},
    "sparse weights": lambda c: c["state_dict"].update({"model.head.weight": torch.eye(10).to_sparse()}),
    "digests": lambda c: c.update(digests=[1]),
    "no epoch": lambda c: drop(c, "epoch"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ODD)
def test_odd_parts_of_a_checkpoint_are_one_line_or_gone_back_from(
    finished: Config, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    last = finished.folder.last
    content = read_checkpoint(last)
    ODD[kind](content)
    torch.save(content, last)
    for options in ([], ["--reestimated"]):
        assert main(["evaluate", str(last), *options]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"{last} is damaged or no checkpoint of the lab (" in err
    assert resume_point(finished.folder, finished)[0] == finished.folder.previous


def test_accuracies_of_weights_that_are_nan_are_nan(finished: Config) -> None:
    content = read_checkpoint(finished.folder.last)
    content["state_dict"]["model.head.weight"].fill_(torch.nan)
    torch.save(content, "nan.ckpt")
    metrics = evaluate_checkpoint(Path("nan.ckpt"))
    assert all(metrics[name] != metrics[name] for name in ("loss", "ce", "acc", "acc5"))


PLACES: dict[str, Callable[[RunFolder], tuple[Path, str]]] = {
    **{name: lambda folder, name=name: (folder.path / name, "folder")  # type: ignore[misc]
       for name in ("metrics.csv", "manifest.json", "config.yaml", "curves.png", ".lock",
                    "checkpoints/last.ckpt", "checkpoints/best.ckpt")},
    "a dangling lock": lambda folder: (folder.lock, "nowhere"),
    "a looping lock": lambda folder: (folder.lock, ".lock"),
    "a file for a study": lambda folder: (folder.path.parent.parent, "file"),
    "a dangling study": lambda folder: (folder.path.parent.parent, "nowhere"),
    "a looping study": lambda folder: (folder.path.parent.parent, "default"),
    "a dangling run": lambda folder: (folder.path, "nowhere"),
    "a dangling configuration": lambda folder: (folder.path.parent, "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_a_folder_or_link_in_a_files_place_is_named_before_any_work(kind: str) -> None:
    config = tiny()
    place, what = PLACES[kind](config.folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    if what == "folder":
        place.mkdir()
    elif what == "file":
        place.write_text("")
    else:
        place.symlink_to(what)
    wanted = r"(is a folder, where|is a (file|folder|link that leads nowhere), in the way of).*move it away$"
    with pytest.raises(DataError, match=wanted) as caught:
        run(config)
    assert str(caught.value).startswith(f"{place} is a")
    assert not config.folder.last.is_file()


def test_a_folder_named_as_a_part_is_left_alone(finished: Config) -> None:
    (finished.folder.path / "x.part").mkdir()
    (finished.folder.checkpoints / "y.part").write_text("left by a kill")
    finished.folder.remove_leftovers()
    assert [path.name for path in finished.folder.path.rglob("*.part")] == ["x.part"]


@pytest.mark.parametrize("out", ["a-file", "a-file/below"])
def test_an_output_that_cannot_be_is_refused_first(
    finished: Config, out: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a-file").write_text("")
    monkeypatch.setattr("resnetlab.training.interpolate.interpolate", lambda *_: pytest.fail("work was begun"))
    before = set(Path().iterdir())
    assert main(["interpolate", str(finished.folder.last), str(finished.folder.previous), "--out", out]) == 2
    assert f"--out (={out}) cannot be made" in capsys.readouterr().err
    assert set(Path().iterdir()) == before
