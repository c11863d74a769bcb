"""Two hundred damaged run folders and checkpoints: no traceback, no hang, and nothing wrong is taken for right."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import TINY, rows_of
from resnetlab import compose, run
from resnetlab.cli import main as resnetlab
from resnetlab.cli import train_main as train
from resnetlab.runs.layout import RunFolder
from resnetlab.training.callbacks.checkpoints import read_checkpoint

RUN = (*TINY, "epochs=3", "averaging=ema", "recalibrate_bn=true")
FILES = ("config.yaml", "manifest.json", "metrics.csv", "summary.json", "last.ckpt", "last.prev.ckpt", "best.ckpt")


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zero(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = chance.randrange(max(1, len(content) - 64))
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    path.write_bytes(content)


def replaced_by(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, chance: path.write_bytes(content) and None


def folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def dangling_link(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def fifo(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def doubled(path: Path, chance: random.Random) -> None:
    path.write_bytes(2 * path.read_bytes())


def of_another_file(path: Path, chance: random.Random) -> None:
    other = next(place for place in path.parent.parent.rglob("*") if place.is_file() and place.name != path.name)
    shutil.copyfile(other, path)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": cut,
    "flip": flip,
    "zero": zero,
    "empty": replaced_by(b""),
    "text": replaced_by(b"hello\n"),
    "list": replaced_by(b"[]"),
    "null": replaced_by(b"null"),
    "deep": replaced_by(b"[" * 100_000),
    "latin": replaced_by(b"\xff\xfe\xe9,\x00\n"),
    "nan": replaced_by(b'{"status": NaN, "epoch": -1}'),
    "removed": lambda path, chance: path.unlink(),
    "folder": folder,
    "link": dangling_link,
    "fifo": fifo,
    "doubled": doubled,
    "other": of_another_file,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of an undisturbed run."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place := tmp_path_factory.mktemp("whole"))
        run(compose(*RUN))
    return place / "outputs"


def place_of(name: str, run_folder: RunFolder) -> Path:
    return run_folder.path / ("checkpoints" if name.endswith(".ckpt") else "") / name


def clean(error: str) -> bool:
    """Whether an error is a line or two of our own."""
    return "Traceback" not in error and "unexpected" not in error and error.count("\n") <= 3


def figures(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What evaluate says of a checkpoint, but for its path."""
    capsys.readouterr()
    status = resnetlab(["evaluate", str(path)])
    out, error = capsys.readouterr()
    assert clean(error), error
    return status, out.replace(str(path), "")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_noticed_or_does_not_matter(
    damage: str, state: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(damage + state)
    config = compose(*RUN)
    undisturbed = RunFolder(whole.parent / config.folder.path)
    evaluated = {name: figures(place_of(name, undisturbed), capsys) for name in FILES if name.endswith(".ckpt")}
    for name in FILES:
        if state == "interrupted" and name == "summary.json":
            continue
        shutil.rmtree("outputs", ignore_errors=True)
        shutil.copytree(whole, "outputs", symlinks=True)
        here = config.folder
        if state == "interrupted":
            here.summary.unlink()
        DAMAGES[damage](place_of(name, here), chance)
        what = f"{damage} {name} of a run that is {state}"
        for command in (["status", "--once"], ["report"]):
            resnetlab(command)
            assert clean(error := capsys.readouterr().err), f"{what}: {command}: {error}"
        if name in evaluated and place_of(name, here).exists() and damage != "other":
            status, said = figures(place_of(name, here), capsys)
            assert status != 0 or said == evaluated[name][1], f"{what}: {said}"
        status = train([*RUN, "trainer.progress=lines"])
        out, error = capsys.readouterr()
        assert clean(error), f"{what}: {error}"
        if status == 0 and "already finished" not in out:
            assert rows_of(here) == rows_of(undisturbed), what
            one, other = (read_checkpoint(place.last)["state_dict"] for place in (here, undisturbed))
            assert all(torch.equal(one[key], other[key]) for key in other), what
            assert json.loads(here.summary.read_text())["status"] == "finished"
        else:
            assert status in (0, 1, 2)
            assert status == 0 or error.startswith("error: "), what
