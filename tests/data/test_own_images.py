"""Images of one's own, from files that Pillow and numpy write: what is read, in which order, and what is named."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_inference import png_of_16_bits
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import functional as tv

from conftest import rows_of, tiny
from resnetlab import Config, ConfigError, DataError, build, compose, load_model, run
from resnetlab.config.trainer import TrainerOptions
from resnetlab.data import ImageData, load
from resnetlab.data.epoch_plan import balanced_order
from resnetlab.data.own_images import fit, list_files, read_image
from resnetlab.training.engine.select import select_engine
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.module import ImageClassifier

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
SHORT = ("model=resnet20v2", "model.depth=11", "batch_size=32", "epochs=2", "trainer.progress=off", "logger=none")


def save(path: Path, pixels: Any = NOISE, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def digit_files(root: Path, train: int = 50, test: int = 10, second: str = "test") -> Path:
    """The first of the embedded digits as PNG files, numbered over all classes."""
    source = load("digits", "")
    for part, images, count in (("train", source.train, train), (second, source.test, test)):
        for i in range(count):
            path = root / part / f"digit {images.labels[i]}" / f"{i:03}.png"
            save(path, images.pixels[i].permute(1, 2, 0).numpy())
    return root


def own(root: Path, *overrides: str, name: str = "folder") -> Config:
    return compose(f"data={name}", f"data.root={root}", "data.flip=false", *SHORT, *overrides)


def image_data(config: Config) -> ImageData:
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    data.setup()
    return data


def metrics(config: Config) -> list[dict[str, float]]:
    run(config)
    return rows_of(config)


# --- files


def test_what_is_hidden_and_a_link_to_a_folder_above_are_left_out(tmp_path: Path) -> None:
    files = [path.relative_to(tmp_path) for *_, path in list_files(digit_files(tmp_path, train=10))]
    images = tmp_path / "train" / "digit 3"
    for hidden in (".ipynb_checkpoints/a-checkpoint.png", "below/.cache/b.png", "._003.png"):
        save(images / hidden, NOISE)
    for name, above in (("loop", images), ("above", images.parent), ("top", tmp_path)):
        (images / name).symlink_to(above)
    (images / "below" / "up").symlink_to(tmp_path / "train" / "digit 3" / "below")
    save(images / "below" / "c.png", NOISE)
    found = {path.relative_to(tmp_path) for *_, path in list_files(tmp_path)}
    assert found == {*files, Path("train/digit 3/below/c.png")}


@pytest.mark.filterwarnings("ignore:The image decoding")  # torchvision 0.29 hands its decoders over to TorchCodec
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_files_are_decoded_as_torchvision_does(tmp_path: Path, ending: str, mode: str) -> None:
    smooth = np.asarray(Image.fromarray(NOISE).resize((40, 24), Image.Resampling.BICUBIC).convert(mode))
    path = save(tmp_path / f"größe 猫.{ending}", smooth)
    found = read_image(path)
    assert isinstance(found, np.ndarray)
    if ending == "bmp":  # torchvision has no decoder of its own for it
        expected = smooth if mode == "RGB" else np.repeat(smooth[..., None], 3, axis=2)
    else:
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        expected = decode_image(content, ImageReadMode.RGB).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, expected)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise
    found = read_image(save(tmp_path / "a.png", NOISE[:, :8], exif=exif))
    np.testing.assert_array_equal(found, np.rot90(NOISE[:, :8], -1))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (64, 64), (8, 8)])
def test_resizing_is_torchvisions_resize_and_centre_crop(height: int, width: int) -> None:
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = tv.resize(Image.fromarray(pixels), 32, tv.InterpolationMode.BILINEAR)
    expected = np.asarray(tv.center_crop(resized, [32, 32]))
    assert fit(pixels, (8, 24)).shape == (8, 24, 3)
    assert np.abs(fit(pixels, (32, 32)).astype(int) - expected.astype(int)).max() <= 1


def frames(path: Path) -> None:
    first, second = (Image.fromarray(NOISE[..., i]) for i in range(2))
    first.save(path, save_all=True, append_images=[second], format="GIF")


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(path, format="PNG")


def broken(path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(NOISE).save(content, "PNG")
    path.write_bytes(content.getvalue()[:-200])


def transparent(path: Path) -> None:
    image = Image.fromarray(NOISE).convert("RGBA")
    image.putpixel((3, 3), (0, 0, 0, 10))
    image.save(path, format="PNG")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), "empty"),
    "broken": (broken, "truncated|broken|cannot be used"),
    "text": (lambda path: path.write_text("hello"), "cannot identify"),
    "CMYK": (lambda path: Image.fromarray(NOISE).convert("CMYK").save(path, format="JPEG"), "CMYK; convert"),
    "16-bit": (lambda path: Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257).save(path, format="PNG"), "16 bits"),
    "float": (
        lambda path: Image.fromarray(NOISE[..., 0].astype(np.float32)).save(path, format="TIFF"),
        "is F; convert",
    ),
    "animated": (frames, "2 frames"),
    "huge": (bomb, "exceeds limit"),
    "transparent": (transparent, "transparent in places"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "no file"),
    "a pipe": (lambda path: os.mkfifo(path), "no file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_used_is_named_or_left_out(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = BAD[kind]
    root = digit_files(tmp_path / "own")
    path = root / "train" / "digit 0" / "zzz bad.png"
    make(path)
    with pytest.raises(
        DataError, match=f"^.*zzz bad.png cannot be used: .*({reason}).*data.skip_broken=true"
    ) as caught:
        own(root)
    assert "\n" not in str(caught.value)
    config = own(root, "data.skip_broken=true")
    assert config.data.images() == 50
    assert "data.skip_broken=true: 1 files left out" in str(image_data(config).subset_warning())
    path.unlink()
    without = own(root)
    assert without.data.digest == config.data.digest
    assert without.folder.path == config.folder.path
    assert image_data(without).subset_warning() is None


def test_colour_of_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of_16_bits())
    assert "16 bits" in str(read_image(tmp_path / "a.png"))


def test_all_files_that_cannot_be_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digit_files(tmp_path / "own")
    for number in range(3):
        (root / "train" / "digit 1" / f"bad {number}.png").touch()
    with pytest.raises(DataError, match=r"bad 0.png cannot be used.* \(and 2 others, named above\)"):
        own(root)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" cannot")[0] for line in lines] == [
        str(root / "train" / "digit 1" / f"bad {number}.png") for number in range(3)
    ]


# --- folders


def test_a_folder_trains_as_the_built_in_set_with_the_same_images_to_the_bit(tmp_path: Path) -> None:
    builtin = compose("data=digits", "data.limit=50", "model.bn_momentum=0.01", "data.flip=false", *SHORT)
    config = own(digit_files(tmp_path / "own"), "model.bn_momentum=0.01", "study=other")
    assert metrics(config) == metrics(builtin)
    assert f"images_{config.data.digest}" in config.name


def test_a_folder_and_arrays_of_the_same_images_have_one_digest(tmp_path: Path) -> None:
    source = load("digits", "")
    arrays = {
        "x_train": source.train.pixels[:50].numpy(),
        "x_test": source.test.pixels[:10].permute(0, 2, 3, 1).numpy(),
    }
    names = [f"digit {i}" for i in range(10)]
    labels = {"y_train": source.train.labels[:50].numpy(), "y_test": source.test.labels[:10].numpy()}
    np.savez(tmp_path / "own.npz", **arrays, **labels, class_names=names)
    folder, file = own(digit_files(tmp_path / "own")), own(tmp_path / "own.npz", name="arrays")
    assert folder.data.digest == file.data.digest
    assert file.data.size() == (16, 16)
    assert torch.equal(image_data(folder).train.pixels, source.train.pixels[:50])
    assert image_data(file).class_names == tuple(names)


def test_val_and_test_leave_test_untouched(tmp_path: Path) -> None:
    root = digit_files(digit_files(tmp_path / "own", second="test"), test=20, second="val")
    data = image_data(own(root, "objective=final_test_acc"))
    source = load("digits", "")
    assert torch.equal(data.val.pixels, source.test.pixels[:20])
    assert data.test_images is not None
    assert torch.equal(data.test_images.pixels, source.test.pixels[:10])
    with pytest.raises(ConfigError, match=r"data.split \(=holdout\) must fit .* train, val and test"):
        own(root, "data.split=holdout")


@pytest.mark.parametrize("split", ["holdout", "stratified", "tail"])
def test_train_alone_is_split(tmp_path: Path, split: str) -> None:
    root = digit_files(tmp_path / "own", train=100, test=0)
    with pytest.raises(ConfigError, match=r"data.split \(=official\) must fit .* take holdout or stratified"):
        own(root)
    with pytest.raises(ConfigError, match="final_test_acc"):
        own(root, f"data.split={split}", "data.val_size=20", "objective=final_test_acc")
    config = own(root, f"data.split={split}", "data.val_size=20")
    data = image_data(config)
    assert (config.data.images(), config.data.val_images()) == (len(data.train), len(data.val)) == (80, 20)
    assert data.test_images is None


def test_mixed_sizes_are_refused_or_resized(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for number, (height, width) in enumerate([(20, 40), (16, 16), (33, 21), (50, 9)]):
        for name in ("größe", "猫"):
            save(root / "train" / name / f"{number}.png", RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
            save(root / "val" / name / f"{number}.png")
    with pytest.raises(DataError, match=r"one size: .*0.png is 40x20 and .*data.resize=N"):
        own(root)
    config = own(root, "data.resize=24")
    own(root, "data.resize=80", "data.cutout=158")  # of the size that the images have
    with pytest.raises(ConfigError, match=r"^data.cutout \(=47\) must be at most 46: more covers every image$"):
        own(root, "data.resize=24", "data.cutout=47")
    data = image_data(config)
    assert data.train.pixels.shape == (8, 3, 24, 24)
    assert data.class_names == ("größe", "猫")
    with Image.open(root / "train" / "猫" / "2.png") as image:
        expected = np.asarray(ImageOps.fit(image, (24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.train.pixels[5].permute(1, 2, 0), expected)  # 0, 0, 1, 1, 2, 2: classes in turn
    assert run(config)["status"] == "finished"


def test_images_need_not_be_square(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(20):
            save(tmp_path / "train" / name / f"{number}.png", RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8))
    config = own(tmp_path, "data.split=holdout", "data.val_size=8")
    assert config.data.size() == (12, 20)
    assert run(config)["status"] == "finished"


def two_classes(root: Path, first: int = 4, second: int = 4) -> Path:
    for name, count in (("a", first), ("b", second)):
        for number in range(count):
            save(root / "train" / name / f"{name}{number}.png", RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return root


def test_folders_that_make_no_data_set_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    cases = {
        "no classes": (tmp_path / "empty", "data.root .* must hold images in train/CLASS/"),
        "nothing": (tmp_path / "nowhere", "data.root .* is not there"),
        "one class": (two_classes(tmp_path / "one", second=0), r"two or more, each once; these are \('a',\)"),
        "a class of one": (two_classes(tmp_path / "few", second=1), "needs two images of class b, not 1"),
    }
    other = two_classes(tmp_path / "other")
    save(other / "val" / "c" / "c.png", NOISE[:8, :8])
    cases["a class without training images"] = (other, "among those of the training images; these are .*'c'")
    for root, message in cases.values():
        with pytest.raises((ConfigError, DataError), match=message) as caught:
            own(root, "data.split=holdout")
        assert "\n" not in str(caught.value)
    many = two_classes(tmp_path / "many", 30, 30)  # whose files' names begin with the class
    save(many / "val" / "a" / "0.png", NOISE[:8, :8])
    with pytest.raises(DataError, match="a class has no image left to train on"):
        image_data(own(many, "data.limit=10"))


def test_the_command_prints_one_line_for_images_that_cannot_be_used(
    sweep: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    root = digit_files(tmp_path / "own")
    (root / "train" / "digit 1" / "bad.png").touch()
    for where, message in ((root, "bad.png cannot be used"), (tmp_path / "nowhere", "is not there")):
        status, _, errors = sweep("data=folder", f"data.root={where}", "seeds=2")
        assert status == 1
        assert message in errors.splitlines()[-1]
        assert errors.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in errors


def test_a_checkpoint_of_own_images_is_evaluated_where_they_are_now(tmp_path: Path) -> None:
    root = digit_files(tmp_path / "own")
    summary = run(config := own(root))
    root.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"data.root .* is not there"):
        evaluate_checkpoint(config.folder.last)
    found = evaluate_checkpoint(config.folder.last, root=str(tmp_path / "moved"))
    assert found["acc"] == summary["final_val_acc"]
    (tmp_path / "moved" / "val").mkdir()
    (tmp_path / "moved" / "train" / "digit 0" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be used"):
        evaluate_checkpoint(config.folder.last, root=str(tmp_path / "moved"))


# --- arrays


def write_arrays(path: Path, **changes: Any) -> Path:
    labels = np.arange(40) % 2
    arrays = {"x_train": RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8), "y_train": labels}
    arrays |= {"x_test": arrays["x_train"][:8], "y_test": labels[:8]} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


class Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no numbers": ({"y_train": np.full(40, 0.5)}, "labels must be whole numbers"),
    "not a number": ({"y_train": np.full(40, np.nan)}, "labels must be whole numbers"),
    "one class": ({"y_train": np.zeros(40, int), "y_test": np.zeros(8, int)}, "two or more"),
    "other sizes": ({"x_test": np.zeros((8, 9, 9), np.uint8)}, "of one size"),
    "too few labels": ({"y_train": np.zeros(39, int)}, "one for each of 40 images"),
    "no training labels": ({"y_train": None}, r"must hold x_train, y_train.*x_train"),
    "a pickle": ({"x_train": np.array([Executed()], dtype=object)}, "cannot be read as arrays"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_arrays_that_make_no_data_set_are_refused_with_their_path(tmp_path: Path, kind: str) -> None:
    changes, message = BAD_ARRAYS[kind]
    path = write_arrays(tmp_path / "own.npz", **changes)
    with pytest.raises(DataError, match=f"^{path}.*{message}") as caught:
        own(path, name="arrays")
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_other_files_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(write_arrays(tmp_path / "whole.npz").read_bytes()[:-100])
    np.save(tmp_path / "one.npy", NOISE)
    for name in ("own.npz", "one.npy"):
        with pytest.raises(DataError, match=f"{name} cannot be read as arrays"):
            own(tmp_path / name, name="arrays")


def test_grey_arrays_are_resized_and_train(tmp_path: Path) -> None:
    config = own(write_arrays(tmp_path / "own.npz"), "data.resize=16", name="arrays")
    pixels = image_data(config).train.pixels
    grey = np.load(tmp_path / "own.npz")["x_train"]
    expected = np.asarray(Image.fromarray(grey[3]).resize((16, 16), Image.Resampling.BILINEAR))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[3, channel], expected)
    assert run(config)["status"] == "finished"


# --- the cache


def cached(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("*.pt"))


def test_images_are_decoded_once_and_again_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, decoded = two_classes(tmp_path / "own"), []
    monkeypatch.setattr("resnetlab.data.own_images.read_image", lambda p, s: decoded.append(p) or read_image(p, s))
    first = own(root, "data.split=tail")
    image_data(own(root, "data.split=tail", "seed=3"))
    assert len(decoded) == 8
    changed = root / "train" / "a" / "a1.png"
    save(changed, NOISE[:8, :8])
    with pytest.raises(DataError, match=r"data.digest .* is not that of .*, which is"):
        image_data(first)
    second = own(root, "data.split=tail")
    assert second.data.digest != first.data.digest
    assert second.folder != first.folder
    assert len(decoded) == 16
    os.utime(changed, (1, 1))
    assert own(root, "data.split=tail").data.digest == second.data.digest  # by content


def test_a_damaged_cache_is_made_anew_or_named(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "own")
    config = own(root, "data.split=tail")
    (path,) = cached(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(image_data(config).train.labels, image_data(own(root, "data.split=tail")).train.labels)
    at = whole.index(first_row(root / "train" / "a" / "a0.png"))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"data.digest .* is not that of .*, which is"):
        image_data(config)


def first_row(path: Path) -> bytes:
    """The first channel's first row."""
    with Image.open(path) as image:
        return np.asarray(image)[0, :, 0].tobytes()


WRITE = "from resnetlab import compose; print(compose('data=folder', 'data.root=own', 'data.split=tail').data.digest)"


@pytest.mark.slow
def test_two_processes_and_a_kill_leave_a_whole_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path / "own", 300, 300)
    command = [sys.executable, "-c", WRITE]
    slow = (
        "import os, signal, torch; save = torch.save\n"
        "def stopped(content, file): save(content, file); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"torch.save = stopped\n{WRITE}"
    )
    killed = subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob("*.part"))
    assert not cached(tmp_path)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate(timeout=120)[0] for process in both}
    assert len(digests) == 1
    assert len(cached(tmp_path)) == 1
    assert not list((tmp_path / "cache").glob("*.part"))
    assert own(tmp_path / "own", "data.split=tail").data.digest == digests.pop().strip()


# --- classes of unequal size


def test_class_weights_are_scikit_learns_and_weigh_the_training_loss(tmp_path: Path) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    root = two_classes(tmp_path / "own", 30, 10)
    module, data, _ = build(own(root, "data.split=tail", "data.val_size=4", "data.balance=weights"))
    labels = data.train.labels.numpy()
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert module.class_weights is not None
    np.testing.assert_allclose(module.class_weights, expected, rtol=1e-6)
    assert "class_weights" not in module.state_dict()
    x, y = next(data.batches(1, CPU))
    loss, ce, _ = module.batch_loss(x, y)
    each = torch.nn.functional.cross_entropy(module.model(x), y, reduction="none")
    torch.testing.assert_close(loss, (each * torch.tensor(expected).float()[y]).mean())
    assert loss != ce
    assert module.losses(module.model(x), y)[0] == ce  # as in validation


def test_balanced_sampling_is_a_table_of_seed_and_epoch(tmp_path: Path) -> None:
    labels = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    order = balanced_order(3, 2, labels)
    assert torch.equal(order, balanced_order(3, 2, labels))
    assert not torch.equal(order, balanced_order(3, 3, labels))
    counts = labels[order].bincount()
    assert all(abs(count - 10_000 / 3) < 4 * (10_000 * 2 / 9) ** 0.5 for count in counts)  # 4 sd of the binomial
    root = two_classes(tmp_path / "own", 90, 10)
    data = image_data(own(root, "data.split=tail", "data.val_size=4", "data.balance=sampling", "data.augment=false"))
    shown = torch.cat([y for _, y in data.batches(1, CPU)])
    assert torch.equal(shown, data.train.labels[balanced_order(data.seed, 1, data.train.labels)])


# --- images that stay on the host


@pytest.mark.parametrize(
    "overrides", [[], ["trainer.accumulate=2"], ["trainer.accumulate=3", "data.augment=false", "shift=0.07"]]
)
def test_images_in_host_memory_train_to_the_same_metrics(overrides: list[str]) -> None:
    config = tiny("data.device=cpu", "study=host", *overrides)
    assert config.identity == tiny(*overrides).identity
    assert metrics(config) == metrics(tiny(*overrides))
    with pytest.raises(ConfigError, match=r"engine \(=compile\)"):
        tiny("data.device=cpu", "engine=compile")
    with patch.object(TrainerOptions, "device", torch.device("cuda")):
        assert "data.device=cpu" in str(select_engine(config)[1])


def test_a_run_whose_images_have_moved_is_loaded_without_them(tmp_path: Path) -> None:
    root = digit_files(tmp_path / "own")
    config = own(root, "epochs=1")
    run(config)
    wanted = evaluate_checkpoint(config.folder.best)["acc"]
    pixels, labels = image_data(config).val.pixels, image_data(config).val.labels
    root.rename(tmp_path / "moved")
    module = ImageClassifier.load_from_checkpoint(config.folder.best).eval()
    with torch.no_grad():
        for network in (load_model(config.folder.path), module):
            assert (network(pixels).argmax(1) == labels).double().mean() == pytest.approx(wanted)
    with pytest.raises(DataError, match="is not there"):
        evaluate_checkpoint(config.folder.best)
    assert evaluate_checkpoint(config.folder.best, root=str(tmp_path / "moved"))["acc"] == wanted


@pytest.mark.slow
@pytest.mark.skipif("CIFAR_ROOT" not in os.environ, reason="CIFAR_ROOT names no folder with CIFAR-10")
def test_2000_files_of_cifar10_train_as_cifar10_to_the_bit(tmp_path: Path) -> None:
    source = load("cifar10", os.environ["CIFAR_ROOT"])
    for part, images, count in (("train", source.train, 2000), ("test", source.test, 400)):
        for i in range(count):
            path = tmp_path / "own" / part / source.class_names[images.labels[i]] / f"{i:05}.png"
            save(path, images.pixels[i].permute(1, 2, 0).numpy())
    builtin = compose("data=cifar10", "data.limit=2000", "data.flip=false", "study=builtin", *SHORT)
    assert metrics(own(tmp_path / "own")) == metrics(builtin)
