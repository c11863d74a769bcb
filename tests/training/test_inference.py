"""A trained network outside of the lab: load_model, Lightning's ways, predict, evaluate's tables, export, bad input."""

import csv
import json
import pickle
import re
import runpy
import shutil
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats
from sklearn.metrics import confusion_matrix
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_image

from conftest import tiny
from resnetlab import Config, DataError, build, load_model, run
from resnetlab.cli import main
from resnetlab.data import ImageData
from resnetlab.data.sources import Images, digits
from resnetlab.models import MODELS
from resnetlab.runs.files import write_json
from resnetlab.runs.layout import RunFolder
from resnetlab.training.callbacks.checkpoints import read_checkpoint
from resnetlab.training.evaluate import evaluate, evaluate_checkpoint, load_weights, open_checkpoint
from resnetlab.training.inference import export as exporting
from resnetlab.training.inference import predict
from resnetlab.training.inference.predict import Classifier
from resnetlab.training.module import ImageClassifier
from resnetlab.training.plots import mistakes_figure

PRIVATE = "/home/somebody/pictures"
OVERRIDES = (
    "averaging=ema", "ema_momentum=0.7", "recalibrate_bn=true", "data.split=holdout", "data.limit=600", "lr=3e-3",
    f"data.root={PRIVATE}", "threads=1",
)  # fmt: skip
KINDS = {"last": "raw", "averaged": "averaged", "reestimated": "reestimated", "best": "averaged"}
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        config = tiny(*OVERRIDES)
        run(config)
        return RunFolder(config.folder.path.absolute())


def pictures(count: int = 6) -> torch.Tensor:
    """Test images of the digits, also as PNG files pics/0.png and so on."""
    pixels = digits(Path()).test.pixels[:count]
    Path("pics").mkdir()
    for n, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"pics/{n}.png")
    return pixels


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize("weights", KINDS)
def test_a_loaded_network_is_that_of_evaluate_to_the_bit_without_the_data_set(
    trained: RunFolder, name: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = getattr(trained, name)
    module, data, checkpoint = open_checkpoint(path)
    with load_weights(module, data, checkpoint, KINDS[weights], torch.device("cpu")):
        _, logits = evaluate(module, data, data.val, torch.device("cpu"))
    monkeypatch.setattr("resnetlab.data.datamodule.load", lambda *_: pytest.fail("the data set was read"))
    model, pixels = load_model(path, weights), data.val.pixels
    with torch.no_grad():
        assert torch.equal(model(pixels), logits)
        assert torch.equal(model(pixels.float() / 255), logits)
        assert not model.training
    assert model.class_names == tuple("0123456789")


def test_the_figures_of_evaluate_follow_from_a_loaded_network(trained: RunFolder) -> None:
    """Loss by torch, the mean image by NumPy, the calibration error by its definition."""
    data = ImageData(tiny(*OVERRIDES).data, 32, 0.07, 0)
    model, y = load_model(trained.path, "averaged"), data.val.labels
    assert model.mean.numpy() == pytest.approx(data.train.pixels.numpy().mean(0) / 255, abs=1e-6)
    with torch.no_grad():
        logits = model(data.val.pixels)
    found = evaluate_checkpoint(trained.best, weights="averaged")
    assert found["ce"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert found["acc"] == pytest.approx((logits.argmax(1) == y).double().mean().item(), abs=1e-12)
    sure, right = logits.softmax(1).max(1).values.numpy(), (logits.argmax(1) == y).numpy()
    bins = np.ceil(sure * 15)
    error = sum(abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    assert found["ece"] == pytest.approx(error, abs=1e-6)


def test_a_folder_is_its_best_or_last_checkpoint(trained: RunFolder) -> None:
    for folder in (trained.path, trained.checkpoints):
        assert load_model(folder).path == trained.best
        assert load_model(str(folder), "last").path == trained.last


@pytest.mark.parametrize(
    "images",
    [
        torch.randn(2, 3, 16, 16),
        torch.rand(2, 3, 16, 16) * 255,
        torch.ones(2, 3, 16, 16, dtype=torch.int64),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
        torch.full((2, 3, 16, 16), torch.nan),
    ],
)
def test_images_that_the_network_would_misread_are_refused(trained: RunFolder, images: torch.Tensor) -> None:
    module = ImageClassifier.load_from_checkpoint(trained.best)
    for network in (load_model(trained.best), module):
        with pytest.raises(DataError, match=r"^images .* must be N C H W.*uint8 or floats in 0\.\.1"):
            network(images)


def test_a_checkpoint_of_before_reads_its_data_set_and_says_so(trained: RunFolder, capsys: Printed) -> None:
    content = read_checkpoint(trained.best)
    del content["preprocessing"], content["statistics"], content["identity"]
    torch.save(content, "old.ckpt")
    pixels = pictures()
    for weights in KINDS:
        with torch.no_grad():
            torch.testing.assert_close(
                load_model("old.ckpt", weights)(pixels), load_model(trained.best, weights)(pixels)
            )
    assert capsys.readouterr().err.count("old.ckpt lacks") == 4


def test_lightnings_own_ways_work(trained: RunFolder) -> None:
    module, data, trainer = build(tiny(*OVERRIDES))
    loaded = type(module).load_from_checkpoint(trained.best).eval()
    with torch.no_grad():
        assert torch.equal(loaded(data.val.pixels), load_model(trained.best, "last")(data.val.pixels))
    assert module(data.val.pixels).shape == (len(data.val), 10)
    wanted = evaluate_checkpoint(trained.best)
    (validated,) = trainer.validate(loaded, datamodule=data, verbose=False)
    assert {key: validated[f"val/{key}"] for key in ("loss", "ce", "acc")} == pytest.approx(
        {key: wanted[key] for key in ("loss", "ce", "acc")}, rel=1e-6
    )
    (tested,) = trainer.test(loaded, datamodule=data, verbose=False)
    assert tested["test/acc"] == pytest.approx(evaluate_checkpoint(trained.best, "test")["acc"], rel=1e-6)
    logits = torch.cat(trainer.predict(loaded, datamodule=data))
    assert (logits.argmax(1) == data.val.labels).double().mean() == pytest.approx(wanted["acc"])
    module, data, trainer = build(tiny())
    with pytest.raises(ValueError, match="no untouched test images"):
        trainer.test(module, datamodule=data, verbose=False)


def test_no_checkpoint_names_a_folder_of_its_user_and_evaluate_finds_it(trained: RunFolder) -> None:
    for path in trained.checkpoints.iterdir():
        assert PRIVATE.encode() not in path.read_bytes()
    assert open_checkpoint(trained.best)[1].config.root == PRIVATE  # from the run's manifest
    shutil.copy(trained.best, "alone.ckpt")
    assert open_checkpoint(Path("alone.ckpt"))[1].config.root == "data"


def rows_of(capsys: Printed, *arguments: str) -> list[dict[str, Any]]:
    assert main(["predict", *arguments, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def assert_rows(rows: list[dict[str, Any]], p: torch.Tensor) -> None:
    """p: (N, classes), made independently."""
    for row, wanted in zip(rows, p, strict=True):
        order = wanted.argsort(descending=True)[:5].tolist()
        assert [row[f"class_{n}"] for n in range(1, 6)] == [str(n) for n in order]
        assert [row[f"probability_{n}"] for n in range(1, 6)] == pytest.approx(wanted[order].tolist(), abs=1e-6)


@pytest.mark.filterwarnings(
    "ignore:The image decoding:DeprecationWarning"
)  # of torchvision 0.29, which is the reference
def test_predictions_are_those_of_torchvisions_decoder(trained: RunFolder, capsys: Printed) -> None:
    pixels, model = pictures(), load_model(trained.best)
    for n, image in enumerate(pixels[:2]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"pics/large-{n}.jpeg", quality=90)
        Image.fromarray(image[0].numpy()).save(f"pics/wee-{n}.webp", lossless=True)
    files = sorted(Path("pics").iterdir())
    decoded = torch.stack([decode_image(str(file), ImageReadMode.RGB) for file in files])
    with torch.no_grad():
        p, mirrored = model(decoded).softmax(1), model(decoded.flip(3)).softmax(1)
    best = str(trained.best)
    Path("pics", ".hidden").mkdir()
    for hidden in ("._b.png", ".hidden/c.png"):  # as macOS and notebooks leave them
        Path("pics", hidden).write_bytes(b"no picture")
    rows = rows_of(capsys, best, "pics", "--csv", "p.csv")
    assert [row["image"] for row in rows] == list(map(str, files))
    assert_rows(rows, p)
    with open("p.csv", newline="") as file:
        assert [row["class_1"] for row in csv.DictReader(file)] == [row["class_1"] for row in rows]
    assert_rows(rows_of(capsys, best, *map(str, files), "--tta", "flip"), (p + mirrored) / 2)
    assert main(["predict", best, "pics/0.png"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["pics/0.png", rows[0]["class_1"]]


def test_arrays_of_any_layout_are_the_pictures_they_hold(trained: RunFolder, capsys: Printed) -> None:
    pixels = pictures()
    wanted = rows_of(capsys, str(trained.best), "pics")
    last = pixels.permute(0, 2, 3, 1).numpy()
    np.save("a.npy", last)
    np.save("grey.npy", pixels[:, 0].numpy())
    np.save("floats.npy", pixels.numpy() / np.float32(255))
    np.savez("two.npz", a=last[:3], b=pixels[3:].numpy())
    np.save("one.npy", last[0])
    for name, count in (("a.npy", 6), ("grey.npy", 6), ("floats.npy", 6), ("two.npz", 6), ("one.npy", 1)):
        rows = rows_of(capsys, str(trained.best), name)
        assert len(rows) == count
        for row, other in zip(rows, wanted, strict=False):  # one image alone is added up in another order
            assert [row[key] for key in row if "class" in key] == [other[key] for key in row if "class" in key]
            assert row["probability_1"] == pytest.approx(other["probability_1"], rel=1e-5)


def test_other_sizes_are_resized_or_refused(trained: RunFolder, capsys: Printed) -> None:
    pictures(1)
    large = Image.open("pics/0.png").resize((40, 24), Image.Resampling.NEAREST)
    large.save("large.png")
    tensor = torch.from_numpy(np.array(large)).permute(2, 0, 1)[None].float()
    covered = F.interpolate(tensor[..., 8:32], (16, 16), mode="bilinear", antialias=True)  # the middle 24 of 40
    small = covered.round().clamp(0, 255).byte()
    with torch.no_grad():
        p = load_model(trained.best)(small).softmax(1)
    (row,) = rows_of(capsys, str(trained.best), "large.png")
    assert row["class_1"] == str(p.argmax().item())
    assert row["probability_1"] == pytest.approx(p.max().item(), abs=0.01)  # Pillow rounds between the two passes
    assert main(["predict", str(trained.best), "large.png", "--other-sizes", "refuse"]) == 1
    assert "large.png has 40x24 pixels, the network takes 16x16" in capsys.readouterr().err


class Evil:
    def __reduce__(self) -> Any:
        return (Path("ran").touch, ())


# what else is wrong with a picture's file is in test_own_images: one function reads both
BAD: dict[str, tuple[Callable[[str], object], str]] = {
    "missing.png": (lambda path: None, "it is empty or no file"),
    "cut.png": (lambda path: Path(path).write_bytes(Path("pics/0.png").read_bytes()[:200]), "truncated|broken"),
    "cmyk.jpg": (lambda path: Image.new("CMYK", (16, 16)).save(path), "it is CMYK"),
    "folder": (lambda path: Path(path).mkdir(), "no picture in it"),
    "pickled.npy": (lambda path: np.save(path, np.array([Evil()]), allow_pickle=True), "allow_pickle"),
    "normalized.npy": (lambda path: np.save(path, np.random.randn(2, 16, 16)), "must be in 0..255"),
    "ambiguous.npy": (lambda path: np.save(path, np.zeros((3, 16, 16), np.uint8)), "images or channels"),
    "none.npz": (np.savez, "it holds no array"),
    "no.npz": (lambda path: Path(path).write_text("PK"), "cannot be used"),
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}.png": (lambda path: Path(path).write_bytes(b""), "it is empty or no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_one_line_with_its_path(trained: RunFolder, name: str, capsys: Printed) -> None:
    pictures(1)
    make, wanted = BAD[name]
    make(name)
    assert main(["predict", str(trained.best), "pics/0.png", name, "--csv", "p.csv"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert name in err
    assert re.search(wanted, err)
    assert not Path("p.csv").exists()
    assert not Path("ran").exists()


def damaged(kind: str, whole: bytes) -> None:
    path = Path("bad.ckpt")
    if kind == "foreign":
        torch.save({"state_dict": {"conv.weight": torch.zeros(3)}, "epoch": 3}, path)
    elif kind == "pickled code":
        torch.save({"state_dict": Evil()}, path)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Evil()))
    else:
        middle = len(whole) // 2
        path.write_bytes(
            whole[:middle] if kind == "cut" else whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :]
        )


@pytest.mark.parametrize("kind", ["foreign", "pickled code", "bare pickle", "cut", "flipped"])
def test_a_bad_checkpoint_is_one_line_and_its_code_is_not_run(trained: RunFolder, kind: str, capsys: Printed) -> None:
    pictures(1)
    damaged(kind, trained.best.read_bytes())
    for command in ("predict bad.ckpt pics", "export bad.ckpt --to onnx"):
        assert main(command.split()) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "bad.ckpt is damaged or no checkpoint of the lab" in err
    assert sorted(path.name for path in Path().iterdir()) == ["bad.ckpt", "pics"]


WITHOUT_LAB = (
    "import runpy, sys; sys.modules['resnetlab'] = sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def example_lines(form: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What out/example.py prints of two pictures where there is no lab: of ONNX in a process without torch."""
    arguments = ["out/example.py", "pics/0.png", "pics/1.png"]
    if form == "onnx":
        command = [sys.executable, "-c", WITHOUT_LAB, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in [name for name in sys.modules if name.partition(".")[0] == "resnetlab"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "network", raising=False)  # of another export
    monkeypatch.setattr(sys, "path", [str(Path("out").absolute()), *sys.path])
    monkeypatch.setattr(sys, "argv", arguments)
    capsys.readouterr()
    runpy.run_path(arguments[0], run_name="__main__")
    return capsys.readouterr().out.splitlines()


def refused_by_example() -> None:
    """out/example.py takes an opaque alpha channel, and refuses what `resnetlab predict` refuses of pictures."""
    Image.new("RGBA", (16, 16), (9, 9, 9, 255)).save("opaque.png")
    Image.new("RGBA", (16, 16), (9, 9, 9, 254)).save("transparent.png")
    Image.new("I;16", (16, 16), 999).save("grey16.png")
    Path("rgb16.png").write_bytes(png_of_16_bits())
    Image.new("RGB", (16, 16)).save("two.gif", save_all=True, append_images=[Image.new("RGB", (16, 16), "red")])
    Image.new("RGB", (16, 16)).save("camera.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    taken = [sys.executable, "-c", WITHOUT_LAB, "out/example.py", "camera.jpg"]
    assert subprocess.run(taken, capture_output=True, text=True, check=True).stdout.count("camera.jpg") == 5
    for name in ("transparent.png", "grey16.png", "rgb16.png", "two.gif"):
        command = [sys.executable, "-c", WITHOUT_LAB, "out/example.py", "opaque.png", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stdout.count("opaque.png") == 5
        assert done.stderr.startswith(f"{name} cannot be used: ")
        assert done.stderr.count("\n") == 1


def png_of_16_bits() -> bytes:
    """A PNG file of 1x1 pixel with 16 bits per channel, which Pillow reads as 8-bit RGB."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(7))),
        (b"IEND", b""),
    )
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", exporting.FILES)
def test_an_exported_network_works_where_there_is_no_lab(
    trained: RunFolder, form: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pictures(2)
    arguments = ["--weights", "averaged", "--out", "out", "--card"]
    assert main(["export", str(trained.path), "--to", form, *arguments]) == 0
    assert re.search(r"differ by at most \S+e-0[6-9] on 64 images|differ by at most 0 on", capsys.readouterr().out)
    rows = rows_of(capsys, str(trained.path), "pics", "--weights", "averaged")
    found = [line.split() for line in example_lines(form, capsys, monkeypatch)]
    for row, parts in zip(rows, (found[:5], found[5:]), strict=True):
        assert [cell[1] for cell in parts] == [row[f"class_{n}"] for n in range(1, 6)]
        assert [float(cell[2]) for cell in parts] == pytest.approx(
            [row[f"probability_{n}"] for n in range(1, 6)], abs=2e-4
        )
    about = json.loads(Path("out/model.json").read_text())
    assert (about["classes"], about["height"], about["width"]) == (list("0123456789"), *pixels.shape[2:])
    if form == "onnx":
        refused_by_example()
    for path in Path("out").iterdir():
        for private in (PRIVATE, str(Path(exporting.__file__).parents[2]), str(Path.home()), sys.prefix):
            assert private.encode() not in path.read_bytes(), path


def test_the_onnx_file_takes_any_number_of_images(trained: RunFolder) -> None:
    import onnxruntime

    pixels, model = pictures(), load_model(trained.best)
    with torch.no_grad():
        wanted = model(pixels).numpy()
    assert main(["export", str(trained.best), "--to", "onnx", "--images", "pics"]) == 0
    session = onnxruntime.InferenceSession("best-onnx/model.onnx")
    for count in (1, 3, 6):
        (found,) = session.run(None, {"images": pixels[:count].numpy()})
        assert found == pytest.approx(wanted[:count], abs=1e-4)


def test_no_picture_is_in_an_exported_file_and_one_is_enough_to_compare_on(trained: RunFolder) -> None:
    (picture,) = pictures(1)
    for n, images in enumerate(([], ["--images", "pics/0.png"])):
        assert main(["export", str(trained.best), "--to", "torch-export", "--out", f"out{n}", *images]) == 0
        with zipfile.ZipFile(f"out{n}/model.pt2") as file:
            content = b"".join(map(file.read, file.namelist()))
        shown = [picture, *ImageData(tiny(*OVERRIDES).data, 32, 0.07, 0).val.pixels[:64]]
        assert not any(image.numpy().tobytes() in content for image in shown)
        assert load_model(trained.best).mean.numpy().tobytes() in content  # what is in it is found
    model = torch.export.load("out1/model.pt2").module()
    for count in (1, 3):
        assert model(picture.expand(count, -1, -1, -1).contiguous()).shape == (count, 10)


def test_each_picture_is_fitted_before_the_next_is_read(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(3)
    calls: list[str] = []
    for name in ("fit", "read_image"):
        original = getattr(predict, name)
        monkeypatch.setattr(predict, name, lambda *a, name=name, call=original: (calls.append(name), call(*a))[1])
    predict.read_images([Path("pics")], (16, 12))
    assert calls == ["read_image", "fit"] * 3


@pytest.mark.parametrize("form", ["onnx", "state-dict"])
def test_an_export_that_differs_or_is_in_the_way_leaves_nothing(
    trained: RunFolder, form: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = ["export", str(trained.best), "--to", form, "--out", "out"]
    original = exporting.write_model

    def wrong(model: Classifier, *arguments: Any) -> Any:
        model.network.head.bias.data[0] += 1e-2  # type: ignore[union-attr, operator]
        return original(model, *arguments)

    monkeypatch.setattr(exporting, "write_model", wrong)
    assert main(export) == 1
    assert re.search(r"logits differ by 0\.0\d+ on 64 images, above 0\.0001", capsys.readouterr().err)
    assert not any(Path().iterdir())
    Path("out").mkdir()
    assert main(export) == 1
    assert "out is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20v2", {"depth": 11, "norm": "group_ws", "activation": "gelu"}),
        ("resnet20v2", {"depth": 11, "activation": "mish"}),
        ("resnet56v1_concat", {"depth": 8}),
        ("resnet9", {}),
        ("resnet9", {"stem": "imagenet"}),
    ],
)
def test_every_kind_of_network_is_written_as_plain_torch(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    from dataclasses import replace

    network = replace(MODELS[name], **options).build(7)
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    preprocessing = {
        "classes": "abcdefg",
        "size": (16, 16),
        "mean": torch.rand(3, 1, 1),
        "std": torch.rand(3, 1, 1) + 0.1,
    }
    model, pixels = Classifier(network, preprocessing), torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        wanted = model(pixels)
        torch.testing.assert_close(exporting.write_model(model, "state-dict", tmp_path)(pixels), wanted)


def test_evaluate_writes_what_the_network_gets_wrong(trained: RunFolder, capsys: Printed) -> None:
    data = ImageData(tiny(*OVERRIDES).data, 32, 0.07, 0)
    with torch.no_grad():
        answers = load_model(trained.best, "last")(data.val.pixels).argmax(1)
    counts = confusion_matrix(data.val.labels, answers, labels=range(10))
    filters = [*warnings.filters]
    assert main(["evaluate", str(trained.best), "--out", "wrong"]) == 0
    assert [*warnings.filters] == filters
    with open("wrong/classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[int(row[f"answered {n}"]) for n in range(10)] for row in rows] == counts.tolist()
    assert [float(row["acc"]) for row in rows] == pytest.approx((counts.diagonal() / counts.sum(1)).tolist())
    assert f"3: {float(rows[3]['acc']):.4f} of {rows[3]['images']} images" in capsys.readouterr().out
    assert {path.name for path in Path("wrong").iterdir()} >= {"reliability.png", "val_predictions.npz"}
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(f"wrong/{name}") as picture:
            assert picture.size == (1000, 1000)


def test_the_mistakes_are_the_most_certain_and_the_figure_says_how_to_read_them() -> None:
    images = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    probabilities = torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]])  # the second is right
    figure = mistakes_figure(probabilities, images, ("cat", "dog"))
    assert [axes.get_title() for axes in figure.axes] == ["cat: dog, 0.90", "dog: cat, 0.80", "cat: dog, 0.70"]
    assert "3 of 4 answers are wrong" in figure.get_suptitle()
    assert "true class: answer, its probability" in figure.get_suptitle()


def test_the_card_has_the_interval_over_the_seeds(trained: RunFolder, capsys: Printed) -> None:
    study = Path("outputs/default")
    shutil.copytree(trained.path, study / "recipe" / "seed=0")
    (rows := list(csv.DictReader(trained.metrics.read_text().splitlines())))
    values = [max(float(row["val/acc_avg"]) for row in rows)]
    for seed in (1, 2):
        shutil.copytree(trained.path, folder := study / "recipe" / f"seed={seed}")
        values.append(0.9 + seed / 100)
        changed = [{**row, "val/acc_avg": str(values[-1])} for row in rows]
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(changed)
        summary = json.loads((folder / "summary.json").read_text()) | {"final_val_acc_avg": values[-1]}
        summary |= {"best_test_acc": 0.5 + seed / 100, "final_test_acc": 0.1}
        write_json(folder / "summary.json", summary | {"best_val_acc_avg": values[-1], "best_epoch_avg": 1})
    command = ["export", str(study / "recipe" / "seed=0"), "--to", "state-dict", "--card", "--out"]
    assert main([*command, "new/folder", "--weights", "reestimated"]) == 0
    assert "On test images" not in Path("new/folder/README.md").read_text()  # those were seen with other statistics
    assert main([*command, "out"]) == 0
    text = Path("out/README.md").read_text()
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert f"{np.mean(values):.4f}, sd {np.std(values, ddof=1):.4f}" in text
    assert f"interval {max(0, low):.4f} to {min(1, high):.4f}, n = 3 seeds" in text
    front = yaml.safe_load(text.split("---")[1])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(values[0])
    assert "selected by val/acc_avg on the same validation images" in text
    first = json.loads((trained.path / "summary.json").read_text())
    assert f"On test images untouched until then: {np.mean([first['best_test_acc'], 0.51, 0.52]):.4f}" in text


def test_a_checkpoint_has_the_identity_of_its_run(trained: RunFolder) -> None:
    assert read_checkpoint(trained.best)["identity"] == tiny(*OVERRIDES).identity


def test_a_second_run_where_a_glob_meets_two_is_no_picture(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(finished.folder.path)
    assert main(["predict", folder, folder]) == 1
    assert "is a run's folder and no picture; name one run" in capsys.readouterr().err
    assert main(["evaluate", folder]) == 0  # of its best checkpoint
    of_folder = capsys.readouterr().out
    assert main(["evaluate", str(finished.folder.best)]) == 0
    assert capsys.readouterr().out == of_folder
