"""The plan of an epoch, the sources, and the batches, each image followed from its file to its place in a batch.

The official CIFAR files are not needed: a tiny set in their layout stands in, with its own md5 sums.
"""

import hashlib
import pickle
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import scipy.stats
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import functional as tv

from resnetlab.data import SOURCES, Data, ImageData, Images, derive_seed, load
from resnetlab.data.epoch_plan import epoch_plan as plan
from resnetlab.data.normalize import Normalizer
from resnetlab.data.sources import SIDES, SIZES, Source
from resnetlab.errors import ConfigError, DataError

CPU = torch.device("cpu")

# --- the plan of an epoch


def test_torchs_and_numpys_global_generators_are_untouched() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    plan(0, 1, 100, 2.0)
    derive_seed(0, 1)
    after = torch.rand(1).item(), np.random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    assert after == (torch.rand(1).item(), np.random.random())


@pytest.mark.parametrize(("max_shift", "whole"), [(0.0, False), (3.2, False), (4, True)])
@pytest.mark.parametrize(("seed", "number", "count"), [(3, 2, 50), (7, 4, 500), (7, 4, 1)])
def test_the_streams_are_numpys_by_seed_epoch_and_number(
    seed: int, number: int, count: int, max_shift: float, whole: bool
) -> None:
    """A change here would give every published run of ours other batches: it must be deliberate."""
    table = plan(seed, number, count, max_shift, whole_pixels=whole)
    order, shift, flip = (np.random.default_rng([seed, number, stream]) for stream in range(3))
    assert table.order.tolist() == order.permutation(count).tolist()
    uniform = shift.random((count, 2), dtype=np.float32)
    expected = np.floor(uniform * 9) - 4 if whole else (2 * uniform - 1) * np.float32(max_shift)
    np.testing.assert_array_equal(table.shift, expected)
    np.testing.assert_array_equal(table.flip, flip.random(count, dtype=np.float32) < 0.5)
    assert (table.order.dtype, table.shift.dtype, table.flip.dtype) == (torch.int64, torch.float32, torch.bool)


@pytest.mark.parametrize("padding", [1, 4])
def test_whole_pixel_shifts_are_uniform_over_the_integers(padding: int) -> None:
    shift = plan(1, 1, 20_000, float(padding), whole_pixels=True).shift.numpy()
    for axis in range(2):
        values, counts = np.unique(shift[:, axis], return_counts=True)
        assert values.tolist() == list(range(-padding, padding + 1))
        assert scipy.stats.chisquare(counts).pvalue > 1e-3  # 0.1 % level, fixed seed


def test_derived_seeds_are_distinct_repeatable_and_accepted_by_torch() -> None:
    seeds = {(seed, epoch): derive_seed(seed, epoch) for seed in range(20) for epoch in range(50)}
    assert len(set(seeds.values())) == 1000
    assert all(derive_seed(*key) == value for key, value in seeds.items())
    assert all(0 <= value < 2**63 for value in seeds.values())
    assert torch.Generator().manual_seed(max(seeds.values())).initial_seed() == max(seeds.values())


# --- sources

PER_BATCH = 10


class FakeCifar:
    """A tiny set in the official layout, its md5 sums patched into torchvision's class."""

    def __init__(self, cls: type[datasets.CIFAR10], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.folder = root, root / cls.base_folder
        self.folder.mkdir(parents=True)
        fine = cls is datasets.CIFAR100
        self.names = [f"class {i}" for i in range(100 if fine else 10)]
        self.pixels: dict[str, Any] = {}
        self.labels: dict[str, list[int]] = {}
        rng = np.random.default_rng(0)
        for name, _ in [*cls.train_list, *cls.test_list]:
            self.pixels[name] = rng.integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)
            self.labels[name] = rng.permutation(len(self.names))[:PER_BATCH].tolist()
            content = {"data": self.pixels[name], "fine_labels" if fine else "labels": self.labels[name]}
            coarse = [label // 5 for label in self.labels[name]]
            self.write(name, content | ({"coarse_labels": coarse} if fine else {}))
        coarse_names = {"coarse_label_names": [f"superclass {i}" for i in range(20)]} if fine else {}
        self.write(str(cls.meta["filename"]), {cls.meta["key"]: self.names} | coarse_names)
        for key in ("train_list", "test_list"):
            monkeypatch.setattr(cls, key, [[name, self.md5(name)] for name, _ in getattr(cls, key)])
        monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": self.md5(str(cls.meta["filename"]))})

    def write(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / name).write_bytes(pickle.dumps(content, protocol=2))

    def md5(self, name: str) -> str:
        return hashlib.md5((self.folder / name).read_bytes()).hexdigest()

    def check(self, images: Images, names: list[str]) -> None:
        """A row of the file is 1,024 red, 1,024 green, 1,024 blue values, row by row."""
        rows = np.concatenate([self.pixels[name] for name in names])
        assert images.pixels.dtype == torch.uint8
        assert images.labels.dtype == torch.int64
        assert images.labels.tolist() == [label for name in names for label in self.labels[name]]
        assert images.pixels.shape == (PER_BATCH * len(names), 3, 32, 32)
        for i, c, row, column in [(0, 0, 0, 0), (3, 0, 0, 7), (3, 1, 5, 31), (9, 2, 31, 0), (len(rows) - 1, 2, 17, 4)]:
            assert images.pixels[i, c, row, column] == rows[i, 1024 * c + 32 * row + column]
        np.testing.assert_array_equal(images.pixels.flatten(1), rows)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No download succeeds; the list says what was tried."""
    tried: list[str] = []

    def download(url: str, *args: object, **kwargs: object) -> None:
        tried.append(url)
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    return tried


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]) -> FakeCifar:
    return FakeCifar(datasets.CIFAR10, tmp_path / "images", monkeypatch)


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[str]) -> FakeCifar:
    return FakeCifar(datasets.CIFAR100, tmp_path / "images", monkeypatch)


def test_cifar10_is_read_image_by_image_from_the_official_batches(cifar10: FakeCifar, offline: list[str]) -> None:
    source = load("cifar10", str(cifar10.root))
    cifar10.check(source.train, [f"data_batch_{i}" for i in range(1, 6)])
    cifar10.check(source.test, ["test_batch"])
    assert source.class_names == tuple(cifar10.names)
    assert offline == []


def test_cifar100_is_read_with_its_fine_labels_and_with_its_superclasses(cifar100: FakeCifar) -> None:
    fine, coarse = (load("cifar100", str(cifar100.root), labels) for labels in ("fine", "coarse"))
    cifar100.check(fine.train, ["train"])
    cifar100.check(fine.test, ["test"])
    assert fine.class_names == tuple(cifar100.names)
    assert len(fine.class_names) == 100
    assert torch.equal(coarse.train.pixels, fine.train.pixels)
    for images, file in ((coarse.train, "train"), (coarse.test, "test")):
        assert images.labels.tolist() == [label // 5 for label in cifar100.labels[file]]
    assert coarse.class_names == tuple(f"superclass {i}" for i in range(20))


def test_the_home_folder_may_be_written_as_a_tilde(cifar10: FakeCifar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cifar10.root.parent))
    assert len(load("cifar10", "~/images").train) == 50
    (cifar10.folder / "data_batch_2").unlink()  # torchvision expands the tilde too: it is our own look that is asked
    with pytest.raises(DataError, match=str(cifar10.folder / "data_batch_2")):
        load("cifar10", "~/images")


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_or_missing_file_is_named_in_one_line_and_never_downloaded_over(
    cifar10: FakeCifar, offline: list[str], name: str
) -> None:
    path = cifar10.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"\A.* is damaged .*restore or remove.*\Z") as damaged:
        load("cifar10", str(cifar10.root))
    path.unlink()
    with pytest.raises(DataError, match=r"\A.* is missing.*\Z") as missing:
        load("cifar10", str(cifar10.root))
    for caught in (damaged, missing):
        assert str(caught.value).startswith(f"{path} is ")
        assert "\n" not in str(caught.value)
    assert offline == []


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_offline_and_without_files_one_line_says_where_and_what_to_do(
    tmp_path: Path, offline: list[str], name: str, folder: str
) -> None:
    with pytest.raises(DataError) as caught:
        load(name, str(tmp_path / "nowhere"))
    message = str(caught.value)
    assert len(offline) == 1
    assert str(tmp_path / "nowhere" / folder) in message
    for part in ("Name or service not known", "data.root=", "CIFAR_ROOT="):
        assert part in message
    assert "\n" not in message
    with pytest.raises(DataError) as caught:
        load(name, "data")
    assert str(Path.cwd() / "data" / folder) in str(caught.value)  # a relative root is named in full


def sorted_rows(pixels: Any, labels: Any) -> Any:
    """The (image, label) pairs as a multiset: one row each, in an order that follows from their values."""
    table = np.concatenate([np.asarray(pixels).reshape(len(labels), -1), np.asarray(labels)[:, None]], 1)
    return table[np.lexsort(table.T)]


def test_digits_are_1437_and_360_colour_images_of_16x16_stratified() -> None:
    source = load("digits", "nowhere")
    shapes = [(tuple(part.pixels.shape), part.pixels.dtype) for part in (source.train, source.test)]
    assert shapes == [((1437, 3, 16, 16), torch.uint8), ((360, 3, 16, 16), torch.uint8)]
    assert source.class_names == tuple("0123456789")
    per_class = np.bincount(load_digits().target)
    for part, share in ((source.train, 1437 / 1797), (source.test, 360 / 1797)):
        assert part.labels.dtype == torch.int64
        assert (np.abs(np.bincount(part.labels) - per_class * share) < 1).all()


def test_digits_are_scikit_learns_enlarged_each_with_its_label() -> None:
    source, bunch = load("digits", "nowhere"), load_digits()
    assert torch.equal(source.train.pixels, load("digits", "elsewhere").train.pixels)
    pixels, labels = (
        torch.cat([getattr(part, key) for part in (source.train, source.test)]) for key in ("pixels", "labels")
    )
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    # Bilinear by a factor 2: pixel (2r+1, 2c+1) is 9/16 of (r, c) + 3/16 + 3/16 + 1/16 of its neighbours below and to
    # the right, in 255/16 of the original's unit. A multiset of (image, label) pairs, so the order is of no account.
    x = bunch.images * 255 / 16
    expected = np.rint((9 * x[:, :-1, :-1] + 3 * x[:, 1:, :-1] + 3 * x[:, :-1, 1:] + x[:, 1:, 1:]) / 16)
    ours = pixels[:, 0, 1:15:2, 1:15:2].double().numpy()

    np.testing.assert_array_equal(sorted_rows(ours, labels), sorted_rows(expected, bunch.target))


def test_the_sources_are_these() -> None:
    # training images, test images, classes: https://www.cs.toronto.edu/~kriz/cifar.html; the digits are counted above
    assert SIZES == {
        **{"cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100), "digits": (1_437, 360, 10)},
        **{"mnist": (60_000, 10_000, 10), "fashion_mnist": (60_000, 10_000, 10), "kmnist": (60_000, 10_000, 10)},
        "emnist": (112_800, 18_800, 47),  # Cohen et al. 2017, table II: balanced
        "svhn": (73_257, 26_032, 10),  # http://ufldl.stanford.edu/housenumbers/
        "stl10": (5_000, 8_000, 10),  # Coates et al. 2011
    }
    assert SOURCES.keys() == SIZES.keys() == SIDES.keys()


def write_idx(path: Path, array: Any) -> None:
    """The format of http://yann.lecun.com/exdb/mnist: 0, 0, type 8, dimensions, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "emnist"])
def test_sets_in_the_format_of_mnist_are_read_and_emnists_letters_stand_upright(tmp_path: Path, name: str) -> None:
    rng, kind = np.random.default_rng(0), {"fashion_mnist": "FashionMNIST"}.get(name, name.upper())
    for part, label, count in (("train", "train", 20), ("test", "t10k", 5)):
        stem = f"emnist-balanced-{part}" if name == "emnist" else label
        pixels, labels = (
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            rng.integers(0, 10, count, dtype=np.uint8),
        )
        write_idx(tmp_path / kind / "raw" / f"{stem}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / kind / "raw" / f"{stem}-labels-idx1-ubyte", labels)
    source = load(name, str(tmp_path))
    assert (len(source.train), len(source.test), len(source.class_names)) == (20, 5, SIZES[name][2])
    upright = pixels.transpose(0, 2, 1) if name == "emnist" else pixels  # written as columns: Cohen et al. 2017
    for channel in range(3):
        np.testing.assert_array_equal(source.test.pixels[:, channel], upright)
    assert source.test.labels.tolist() == labels.tolist()


def test_svhn_is_read_with_0_as_class_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, listed = np.random.default_rng(0), {}
    for part in ("train", "test"):
        pixels = rng.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
        md5 = hashlib.md5((tmp_path / f"{part}_32x32.mat").read_bytes()).hexdigest()
        listed[part] = ["nowhere", f"{part}_32x32.mat", md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    source = load("svhn", str(tmp_path))
    np.testing.assert_array_equal(source.test.pixels, pixels.transpose(3, 2, 0, 1))
    assert source.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_stl10_is_read_from_its_binary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Column by column, the labels from 1: https://cs.stanford.edu/~acoates/stl10."""
    rng, folder, listed = np.random.default_rng(0), tmp_path / "stl10_binary", {}
    folder.mkdir()
    written = {}
    for part, count in (("train", 6), ("test", 4), ("unlabeled", 1)):
        pixels = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, count + 1)))
        for kind in "Xy" if part != "unlabeled" else "X":
            md5 = hashlib.md5((folder / f"{part}_{kind}.bin").read_bytes()).hexdigest()
            listed.setdefault("test" if part == "test" else "train", []).append([f"{part}_{kind}.bin", md5])
        written[part] = pixels
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(datasets.STL10, "train_list", listed["train"])
    monkeypatch.setattr(datasets.STL10, "test_list", listed["test"])
    source = load("stl10", str(tmp_path))
    np.testing.assert_array_equal(source.test.pixels, written["test"])
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert source.class_names == tuple("abcdefghij")


@pytest.mark.parametrize("name", ["mnist", "svhn", "stl10"])
def test_a_set_that_cannot_be_downloaded_is_named_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    for module, function in (("mnist", "_and_extract_archive"), ("svhn", "_url"), ("stl10", "_and_extract_archive")):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download{function}", download)
    with pytest.raises(DataError, match=r"could not be downloaded .*data.root=DIR") as caught:
        load(name, str(tmp_path))
    assert "\n" not in str(caught.value)


# --- normalisation


def images(count: int = 2_100, size: int = 8) -> Images:
    """More than the thousand images that are summed at once; channels of different brightness and spread."""
    rng = np.random.default_rng(4)
    ranges = np.array([(0, 256), (100, 200), (240, 256)])
    pixels = rng.integers(ranges[:, :1, None], ranges[:, 1:, None], (count, 3, size, size))
    return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(rng.integers(0, 10, count)))


def test_mean_image_is_numpys_mean_in_float64() -> None:
    train = images()
    normalizer = Normalizer("mean_image", train)
    expected = (train.pixels.numpy() / 255).mean(0)
    # One rounding to float32 of values below 1: 6e-8. The thousandth part of a grey level is 4e-6.
    np.testing.assert_allclose(normalizer.mean, expected, rtol=0, atol=6.1e-8)
    assert normalizer.mean.shape == (3, 8, 8)
    # Two more roundings in float32: the quotient and the difference.
    np.testing.assert_allclose(normalizer(train.pixels), train.pixels.numpy() / 255 - expected, rtol=0, atol=2e-7)


def test_a_channel_that_is_the_same_everywhere_is_normalized_to_nothing() -> None:
    train = images()
    train.pixels[:, 2] = 77
    y = Normalizer("channel", train)(train.pixels)
    # 77 / 255 and its mean are one rounding of 6e-8 apart, over the least standard deviation of 1e-3.
    np.testing.assert_allclose(y[:, 2], np.zeros(y[:, 2].shape), atol=1e-4)
    assert float(y[:, :2].abs().max()) > 1


def test_channel_moments_are_numpys_in_float64() -> None:
    train = images()
    normalizer = Normalizer("channel", train)
    x = train.pixels.numpy() / 255
    # float64 sums on both sides, one rounding to float32.
    np.testing.assert_allclose(normalizer.mean.flatten(), x.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(normalizer.std.flatten(), x.std((0, 2, 3)), rtol=1e-7)
    y = normalizer(train.pixels).double()
    # Float32 roundings of 6e-8, over the smallest std (0.018): 1e-5.
    np.testing.assert_allclose(y.mean((0, 2, 3)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(y.var((0, 2, 3), correction=0), np.ones(3), atol=1e-5)


# --- batches

PLAIN = Data(name="digits", root="nowhere", augment=False, normalize="none")


def data(config: Data = PLAIN, *, batch_size: int = 32, shift: float = 0.1, seed: int = 5, **keys: Any) -> ImageData:
    return ImageData(replace(config, **keys), batch_size, shift, seed)


def epoch(of: ImageData, number: int = 1) -> tuple[Tensor, Tensor, list[int]]:
    """All images and labels in the order shown, and the sizes of the batches."""
    xs, ys = zip(*of.batches(number, CPU), strict=True)
    assert [len(x) for x in xs] == [len(y) for y in ys]
    return torch.cat(xs), torch.cat(ys), [len(x) for x in xs]


@pytest.mark.parametrize(
    ("limit", "batch_size", "sizes"),
    [(100, 32, [32, 32, 32, 4]), (96, 32, [32, 32, 32]), (100, 100, [100]), (100, 500, [100]), (100, 99, [99, 1])],
)
def test_the_last_partial_batch_is_kept(limit: int, batch_size: int, sizes: list[int]) -> None:
    some = data(limit=limit, batch_size=batch_size)
    assert epoch(some)[2] == sizes
    assert some.steps_per_epoch == len(sizes)


def test_pixels_and_labels_are_the_sources_in_the_plans_order() -> None:
    some, source = data(), load("digits", "nowhere")
    for number in (1, 2):
        x, y, _ = epoch(some, number)
        order = plan(5, number, 1437, 0.0).order
        assert x.dtype == torch.float32
        assert torch.equal(x, source.train.pixels[order].float() / 255)
        assert torch.equal(y, source.train.labels[order])


def test_of_jobs_that_begin_together_one_downloads_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first download goes on until a moment after all have begun, however slowly the threads start."""
    inside, most, begun, all_begun = [0], [0], list[None](), threading.Event()

    def download(root: Path) -> str:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        assert all_begun.wait(600)
        time.sleep(0.05)
        inside[0] -= 1
        return "images"

    def begin() -> None:
        begun.append(None)
        if len(begun) == 4:
            all_begun.set()
        load("cifar10", "nowhere")

    monkeypatch.setitem(SOURCES, "cifar10", download)
    jobs = [threading.Thread(target=begin) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert most == [1]


def test_epochs_differ_and_repeat_to_the_bit() -> None:
    keys = {"augment": True, "normalize": "mean_image", "limit": 100}
    (first, labels, _), (again, _, _), (second, other, _) = (epoch(data(**keys), number) for number in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(labels, other)
    assert not torch.equal(epoch(data(seed=6, **keys), 1)[0], first)


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize(
    ("translate", "shift", "reach", "mode"),
    [
        ("shift", 0.1, 1.6, "nearest"),
        ("shift", 0.0, 0.0, "nearest"),
        ("pad_crop", 0.1, 2.0, "constant"),
        ("none", 0.1, 0.0, "nearest"),
    ],
)
def test_a_batch_is_normalised_then_moved_then_flipped_as_planned(
    translate: str, shift: float, reach: float, mode: str, mirrored: bool
) -> None:
    keys = {"translate": translate, "padding": 2, "normalize": "mean_image", "limit": 100}
    some = data(augment=True, flip=mirrored, shift=shift, **keys)
    table = some.plan(3)
    assert float(table.shift.abs().max()) <= reach
    assert reach == 0 or float(table.shift.abs().max()) > 0.95 * reach  # 0.1 of 16 pixels are 1.6
    source = load("digits", "nowhere").train.pixels[:100].numpy() / 255
    x, y, _ = epoch(some, 3)
    planned = (part.tolist() for part in (table.order, table.shift, table.flip))
    for got, index, (dy, dx), mirror in zip(x, *planned, strict=True):
        image = source[index] - source.mean(0)
        expected = scipy.ndimage.shift(image, (0, -dy, -dx), order=1, mode=mode, cval=0.0)
        expected = expected[:, :, ::-1] if mirror and mirrored else expected
        # Float32 against float64, values below 1 and two interpolations: some 3e-7; a grey level is 4e-3.
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    assert torch.equal(y, some.train.labels[table.order])
    assert 0.3 < float(table.flip.double().mean()) < 0.7  # 100 images, 4 standard errors


def test_a_batch_is_jittered_normalized_moved_flipped_and_cut_out_in_this_order() -> None:
    keys = {"cutout": 4, "brightness": 0.2, "contrast": 0.2, "flip": True, "normalize": "mean_image", "limit": 100}
    some = data(augment=True, shift=0.1, **keys)
    table, (x, _, _) = some.plan(3), epoch(some, 3)
    assert table.jitter is not None
    assert table.cutout is not None
    source = load("digits", "nowhere").train.pixels[:100]
    mean = source.numpy().mean(0) / 255
    planned = (table.order, table.shift, table.flip, table.jitter, table.cutout)
    for got, index, (dy, dx), mirror, (brightness, contrast), box in zip(
        x, *(p.tolist() for p in planned), strict=True
    ):
        image = tv.adjust_contrast(tv.adjust_brightness(source[index], brightness), contrast)
        wanted = scipy.ndimage.shift(image.numpy() / 255 - mean, (0, -dy, -dx), order=1, mode="nearest")
        wanted = wanted[:, :, ::-1].copy() if mirror else wanted
        top, left, bottom, right = box
        wanted[:, top:bottom, left:right] = 0
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1.01 / 255)  # jitter rounds some pixels the other way
        assert not bool(got[:, top:bottom, left:right].any())
        assert float(np.abs(got.numpy() - wanted).mean()) < 0.03 / 255


def test_images_that_are_not_square_are_shifted_by_fractions_of_their_own_sides() -> None:
    """As Keras' height_shift_range and width_shift_range."""
    both = Images(torch.zeros(400, 3, 8, 32, dtype=torch.uint8), torch.arange(400) % 10)
    some = ImageData(Data(name="arrays", augment=True), 64, 0.25, 0, source=Source(both, both, tuple("0123456789")))
    most = some.plan(1).shift.abs().max(0).values
    # the greatest of 400 uniform numbers is below 0.95 of the bound with a probability of 1e-9
    for found, bound in zip(most.tolist(), (2.0, 8.0), strict=True):
        assert 0.95 * bound < found <= bound


def test_alternating_flips_show_each_image_both_ways_in_any_two_epochs() -> None:
    """Followed through the batches: an image is itself in one epoch and its mirror image in the next."""
    keys = {"translate": "none", "normalize": "none", "limit": 100, "augment": True, "flip": True}
    some, shown = data(alternating_flip=True, **keys), []
    source = load("digits", "nowhere").train.pixels[:100] / 255
    for number in (1, 2, 3, 6):
        plan, (x, _, _) = some.plan(number), epoch(some, number)
        mirrored = {}
        for got, index in zip(x, plan.order.tolist(), strict=True):
            mirrored[index] = not torch.equal(got, source[index])
            assert torch.equal(got, source[index].flip(2) if mirrored[index] else source[index])
        shown.append(mirrored)
    for index, first in shown[0].items():
        assert all(
            later.get(index, wanted) == wanted for later, wanted in zip(shown, (first, not first) * 2, strict=True)
        )
    assert 0.3 < sum(shown[0].values()) / len(shown[0]) < 0.7
    other = data(alternating_flip=True, seed=9, **keys).plan(1)
    assert not torch.equal(other.flip[other.order.argsort()], some.plan(1).flip[some.plan(1).order.argsort()])
    assert torch.equal(data(**keys).plan(1).order, some.plan(1).order)
    table = some.plan(1)
    assert torch.equal(table.flip[table.order.argsort()], some.plan(3).flip[some.plan(3).order.argsort()])


@pytest.mark.parametrize("normalize", ["channel", "none", "mean_image"])
def test_black_padding_is_torchvisions_random_crop_before_normalize(normalize: str) -> None:
    keys = {"translate": "pad_crop", "padding": 3, "normalize": normalize, "limit": 60, "augment": True}
    some, mean = data(fill="black", **keys), data(**keys)
    table, (x, _, _) = some.plan(2), epoch(some, 2)
    source = load("digits", "nowhere").train.pixels[:60]
    m, s = some.normalizer.mean, some.normalizer.std
    for got, index, (dy, dx), mirror in zip(
        x, table.order.tolist(), table.shift.int().tolist(), table.flip, strict=True
    ):
        image = tv.to_tensor(tv.crop(tv.pad(tv.to_pil_image(source[index]), 3), 3 + dy, 3 + dx, 16, 16))
        image = tv.normalize(image, m.flatten(), s.flatten()) if normalize == "channel" else image - m
        torch.testing.assert_close(got, tv.hflip(image) if mirror else image, rtol=0, atol=1e-6)
    assert torch.equal(x, epoch(mean, 2)[0]) == (normalize == "none")  # there the mean is 0, which is black


@pytest.mark.parametrize("eval_batch_size", [100, 360, 500])
def test_evaluation_neither_shuffles_nor_augments(eval_batch_size: int) -> None:
    some = data(augment=True, normalize="none", eval_batch_size=eval_batch_size)
    test = load("digits", "nowhere").test
    xs, ys = zip(*some.eval_batches(some.val, CPU), strict=True)
    assert [len(x) for x in xs] == {100: [100, 100, 100, 60]}.get(eval_batch_size, [360])
    assert torch.equal(torch.cat(xs), test.pixels.float() / 255)
    assert torch.equal(torch.cat(ys), test.labels)


def test_validation_images_are_normalised_with_the_training_mean() -> None:
    source, limited = load("digits", "nowhere"), data(limit=50, normalize="mean_image")
    limited.setup()
    expected = (source.train.pixels[:50].numpy() / 255).mean(0)  # of the images that are trained on
    np.testing.assert_allclose(limited.normalizer.mean, expected, rtol=0, atol=6.1e-8)  # one rounding to float32
    some = data(normalize="mean_image")
    (x, _), *_ = some.eval_batches(some.val, CPU)
    expected = source.test.pixels.numpy() / 255 - (source.train.pixels.numpy() / 255).mean(0)
    np.testing.assert_allclose(x, expected[: len(x)], rtol=0, atol=2e-7)  # three roundings of float32


def test_limit_takes_the_first_n_and_a_fifth_and_says_so() -> None:
    source = load("digits", "nowhere")
    some = data(limit=1_000)
    some.setup("fit")
    pixels = some.train.pixels
    some.setup("validate")
    assert some.train.pixels is pixels  # read once
    assert some.class_names == tuple("0123456789")
    assert torch.equal(some.train.pixels, source.train.pixels[:1000])
    assert torch.equal(some.train.labels, source.train.labels[:1000])
    assert torch.equal(some.val.pixels, source.test.pixels[:200])
    note = some.subset_warning()
    assert note is not None
    for part in ("data.limit=1000", "first 1,000 training", "200 validation", "not a result", "digits"):
        assert part in note
    assert "\n" not in note
    above_one_part = data(limit=1_500)  # all 1,437 training images, but 300 of 360 for validation
    assert "first 1,437 training and 300 validation" in str(above_one_part.subset_warning())


@pytest.mark.parametrize("limit", [None, 1_800, 10_000])
def test_without_a_limit_that_bites_all_images_are_there_and_nothing_is_said(limit: int | None) -> None:
    some = data(limit=limit)
    assert (len(some.train), len(some.val)) == (1437, 360)
    assert some.subset_warning() is None


@pytest.mark.parametrize("keys", [{}, {"limit": 50}, {"split": "holdout", "val_size": 200.0}])
def test_smaller_images_are_the_rounded_means_of_squares_in_every_part_and_said(keys: dict[str, Any]) -> None:
    plain, some = data(**keys), data(resolution=8, **keys)
    for part in ("train", "val", "test_images"):
        full, small = getattr(plain, part), getattr(some, part)
        if full is None:
            assert small is None
            continue
        squares = full.pixels.numpy().reshape(len(full), 3, 8, 2, 8, 2)
        np.testing.assert_array_equal(small.pixels, np.rint(squares.mean((3, 5))))
        assert torch.equal(small.labels, full.labels)
    note = str(some.subset_warning())
    assert "data.resolution=8: images made smaller" in note
    assert "not a result" in note
    assert ("data.limit=50" in note) == ("limit" in keys)
    assert epoch(some)[0].shape[1:] == (3, 8, 8)


@pytest.mark.parametrize(
    ("kind", "train", "val", "test"),
    [
        ("official", 1437, 360, None),
        ("holdout", 1293, 144, 360),
        ("tail", 1235, 202, 360),
        ("stratified", 1497, 300, None),
    ],
)
def test_splits_of_the_digits_are_disjoint_and_keep_labels_with_images(
    kind: str, train: int, val: int, test: int | None
) -> None:
    some, source = data(split=kind), load("digits", "nowhere")
    parts = [some.train, some.val] + ([] if some.test_images is None else [some.test_images])
    assert [len(part) for part in parts] == [train, val, *([] if test is None else [test])]
    originals = [pair for part in (source.train, source.test) for pair in zip(part.pixels, part.labels, strict=True)]
    label_of = {pixels.numpy().tobytes(): int(label) for pixels, label in originals}
    assert len(label_of) == 1797  # no two digits are alike, so bytes tell which is which
    shown = [p.numpy().tobytes() for part in parts for p in part.pixels]
    assert len(set(shown)) == len(shown) == 1797
    assert [label_of[key] for key in shown] == [int(y) for part in parts for y in part.labels]


def test_the_split_seed_is_not_the_runs_seed() -> None:
    first, second, third = (
        data(split="holdout", seed=seed, split_seed=split_seed) for seed, split_seed in ((1, 0), (2, 0), (1, 1))
    )
    assert torch.equal(first.val.pixels, second.val.pixels)
    assert not torch.equal(first.val.pixels, third.val.pixels)


def test_loaders_need_a_trainer() -> None:
    for loader in (data().train_dataloader, data().val_dataloader):
        with pytest.raises(DataError, match=r"trainer\.fit"):
            loader()


@pytest.mark.parametrize("keys", [{}, {"limit": 100}, {"limit": 1_500}, {"split": "holdout"}, {"split": "stratified"}])
@pytest.mark.parametrize("batch_size", [32, 5_000])
def test_sizes_and_steps_are_known_before_the_images_are(keys: dict[str, Any], batch_size: int) -> None:
    some = data(batch_size=batch_size, **keys)
    steps = len(list(some.batches(1, CPU)))
    assert some.config.steps_per_epoch(batch_size) == some.steps_per_epoch == steps
    if "limit" not in keys:
        assert some.config.sizes() == (len(some.train), len(some.val))


# --- values that make no sense


@pytest.mark.parametrize(
    ("keys", "stated"),
    [
        ({"split": "random"}, "data.split (=random) must be one of official, stratified, tail, holdout"),
        ({"pool": "test"}, "data.pool (=test) must be one of all, train"),
        ({"normalize": "z"}, "data.normalize (=z) must be one of mean_image, channel, none"),
        ({"translate": "rotate"}, "data.translate (=rotate) must be one of shift, pad_crop, none"),
        ({"val_size": 0.1}, "data.val_size (=0.1) is not used by data.split=official"),
        ({"val_size": 0.0, "split": "tail"}, "data.val_size (=0.0) must be a fraction below 1 or a number"),
        ({"val_size": float("nan"), "split": "tail"}, "data.val_size (=nan) must be a fraction"),
        ({"val_size": float("inf"), "split": "tail"}, "data.val_size (=inf) must be a fraction"),
        ({"val_size": 1.5, "split": "tail"}, "data.val_size (=1.5) must be a fraction below 1 or a whole number"),
        ({"digest": "0" * 15}, "data.digest (='000000000000000') must be 16 hexadecimal digits"),
        ({"pool": "train"}, "data.pool (=train) is used by data.split=stratified only"),
        ({"limit": 9}, "data.limit (=9) must be at least 10"),
        ({"resolution": 16}, "data.resolution (=16) must be 8 pixels a side, or null for the 16 of digits"),
        ({"name": "cifar10", "resolution": 24}, "data.resolution (=24) must be 8 or 16 pixels a side"),
        ({"split_seed": -1}, "data.split_seed (=-1) must be in 0..4294967295"),
        ({"padding": 0}, "data.padding (=0) must be in 1..8"),
        ({"fill": "white", "translate": "pad_crop"}, "data.fill (=white) must be one of mean, black, reflect"),
        ({"cutout": -1}, "data.cutout (=-1) must be in 0..1024 pixels"),
        ({"name": "cifar10", "cutout": 63}, "data.cutout (=63) must be at most 62: more covers every image"),
        ({"cutout": 31}, "data.cutout (=31) must be at most 30: more covers every image"),
        ({"brightness": 1.5}, "data.brightness (=1.5) must be in 0..1"),
        ({"contrast": -0.1}, "data.contrast (=-0.1) must be in 0..1"),
        ({"fill": "black"}, "data.fill (=black) is used by data.translate=pad_crop only"),
        ({"eval_batch_size": 0}, "data.eval_batch_size (=0) must be in 1..1,000,000, or null"),
    ],
)
def test_what_makes_no_sense_is_refused_by_key_and_value(keys: dict[str, Any], stated: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(PLAIN, **keys).check()
    assert str(caught.value).startswith(stated)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"resolution": 8},
        {"name": "cifar10", "resolution": 16},
        {"limit": 10, "padding": 1, "eval_batch_size": 1},
        {"split": "stratified", "pool": "train", "val_size": 0.5},
        {"split": "tail", "val_size": 1.0},
    ],
)
def test_the_edges_of_what_makes_sense_are_accepted(keys: dict[str, Any]) -> None:
    replace(PLAIN, **keys).check()
