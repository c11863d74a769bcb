"""Arrays handed in from Python: what they can mean becomes the same images; the rest is refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch

from conftest import tiny
from resnetlab import ConfigError, DataError, build, compose
from resnetlab.data import ImageData, Images, Source, load, source_from_arrays
from resnetlab.training.build import build_module

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
PIXELS[0, 0, 0] = (0, 128, 255)
LABELS = np.arange(30) % 3
GREY = PIXELS[..., 0]


def taken(pixels: Any = PIXELS, labels: Any = LABELS, names: Any = None) -> Source:
    """The first 20 to train on, the others to validate on."""
    return source_from_arrays((pixels[:20], labels[:20]), (pixels[20:], labels[20:]), names)


def pixels_of(source: Source) -> np.ndarray:
    """(N, H, W, 3), both parts."""
    return torch.cat([source.train.pixels, source.test.pixels]).permute(0, 2, 3, 1).numpy()


def labels_of(source: Source) -> list[int]:
    return torch.cat([source.train.labels, source.test.labels]).tolist()


COLOUR: dict[str, Any] = {
    "uint8": PIXELS,
    "channels first": PIXELS.transpose(0, 3, 1, 2),
    "not contiguous": np.repeat(PIXELS, 2, axis=0)[::2],
    "lists": PIXELS.tolist(),
    "tensor": torch.from_numpy(PIXELS),
    "half tensor in 0..255": torch.from_numpy(PIXELS).permute(0, 3, 1, 2).half(),
    **{f"{kind}": PIXELS.astype(kind) for kind in ("int16", "uint16", "int64", "uint64", "float16", "float64")},
    **{f"{kind} in 0..1": PIXELS.astype(kind) / np.array(255, kind) for kind in ("float32", "float64", "float16")},
    "tensor in 0..1": torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255,
    "a rounding above 1": PIXELS / 254.99999,
}


@pytest.mark.parametrize("name", COLOUR)
def test_one_set_of_colour_images_however_it_is_written_down(name: str) -> None:
    source = taken(COLOUR[name])
    np.testing.assert_array_equal(pixels_of(source), PIXELS)
    assert (source.train.pixels.dtype, source.train.labels.dtype) == (torch.uint8, torch.int64)
    assert labels_of(source) == LABELS.tolist()
    assert source.class_names == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(30, 8, 8), (30, 8, 8, 1), (30, 1, 8, 8)])
@pytest.mark.parametrize("scale", [1, 255])
def test_grey_images_are_repeated_over_three_channels(shape: tuple[int, ...], scale: int) -> None:
    grey = GREY.reshape(shape) if scale == 1 else GREY.reshape(shape) / scale
    np.testing.assert_array_equal(pixels_of(taken(grey)), np.repeat(GREY[..., None], 3, axis=3))


def test_black_and_white_masks_are_0_and_255() -> None:
    np.testing.assert_array_equal(pixels_of(taken(GREY > 100))[..., 1], 255 * (GREY > 100))


LABELLED: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "from 1": (LABELS + 1, None, ("1", "2", "3")),
    "from 1, named": (LABELS + 1, ["a", "b", "c"], ("a", "b", "c")),
    "from 0, named": (LABELS, ["a", "b", "c"], ("a", "b", "c")),
    "with gaps": (LABELS * 5 + 7, None, ("7", "12", "17")),
    "a column, as Keras' CIFAR-10": (LABELS[:, None].astype(np.uint8), None, ("0", "1", "2")),
    "one-hot": (np.eye(3)[LABELS], None, ("0", "1", "2")),
    "whole floats": (LABELS.astype(np.float32), None, ("0", "1", "2")),
    "strings": (np.array(["ant", "bee", "cat"])[LABELS], None, ("ant", "bee", "cat")),
    "a list of strings": (np.array(["ant", "bee", "cat"])[LABELS].tolist(), None, ("ant", "bee", "cat")),
    "objects, as pandas has strings": (
        np.array(["ant", "bee", "cat"], dtype=object)[LABELS],
        None,
        ("ant", "bee", "cat"),
    ),
    "tensor": (torch.from_numpy(LABELS).int(), None, ("0", "1", "2")),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_become_numbers_from_0(name: str) -> None:
    labels, names, expected = LABELLED[name]
    source = taken(labels=labels, names=names)
    assert labels_of(source) == LABELS.tolist()
    assert source.class_names == expected


def test_names_give_the_order_and_classes_without_an_image() -> None:
    strings = np.array(["ant", "bee", "cat"])[LABELS]
    assert labels_of(taken(labels=strings, names=["cat", "dog", "bee", "ant"])) == [(3, 2, 0)[i] for i in LABELS]
    assert taken(labels=LABELS, names=list("abcde")).class_names == tuple("abcde")
    assert labels_of(taken(labels=np.where(LABELS == 0, -1, 1))) == [int(i > 0) for i in LABELS]  # two classes


@pytest.mark.parametrize(
    ("keys", "stated"),
    [
        ({"pixels": (PIXELS - 127.0) / 60}, "in -2."),
        ({"pixels": PIXELS.astype(float) * 257}, "in 0..65535"),
        ({"pixels": PIXELS.astype(np.uint16) * 257}, "in 0..65535"),
        ({"pixels": PIXELS // 16}, None),  # dark, but uint8 says how dark
        ({"pixels": (PIXELS // 16).astype(float)}, "float32 in 0..15"),
        ({"pixels": (PIXELS > 9).astype(np.uint8)}, "these are uint8 in 0..1"),
        ({"pixels": (PIXELS > 9).astype(int)}, "these are int64 in 0..1"),
        ({"pixels": PIXELS / 100.0}, "in 0..2.55"),
        ({"pixels": PIXELS * 0}, "not all alike"),
        ({"pixels": np.where(PIXELS > 254, np.nan, PIXELS)}, "in nan..nan"),
        ({"pixels": np.where(PIXELS > 254, np.inf, PIXELS)}, "in 0..inf"),
        ({"pixels": PIXELS.astype(complex)}, "images must be numbers; these are of type complex128"),
        ({"pixels": PIXELS.astype(str)}, "images must be numbers"),
        ({"pixels": [PIXELS[0, :k] for k in range(1, 31)]}, "images must be"),
        ({"pixels": np.concatenate([PIXELS, GREY[..., None]], axis=3)}, "of shape (20, 8, 8, 4)"),
        ({"pixels": PIXELS[..., :2]}, "of shape (20, 8, 8, 2)"),
        ({"pixels": PIXELS.reshape(30, -1)}, "of shape (20, 192)"),
        ({"pixels": PIXELS[:, :3, :3]}, "of shape (20, 3, 3, 3)"),
        ({"pixels": PIXELS[:, :2]}, "H and W from 4"),
        ({"labels": LABELS[:25]}, "labels must be one for each of 10 images; these are of shape (5,)"),
        ({"labels": LABELS + 0.5}, "whole numbers"),
        ({"labels": np.where(LABELS > 1, np.nan, LABELS)}, "whole numbers"),
        ({"labels": np.full((30, 3), 1 / 3)}, "one-hot rows of 0 and 1"),
        ({"labels": np.ones((30, 3))}, "one-hot rows of 0 and 1"),
        ({"labels": LABELS - 1}, "0 or more"),
        ({"labels": LABELS * 0}, "two or more"),
        ({"labels": np.arange(30)}, "[20, 21, 22] besides"),
        ({"labels": LABELS, "names": ["a", "b"]}, "of the 2 classes"),
        ({"labels": LABELS + 2, "names": ["a", "b", "c"]}, "of the 3 classes"),
        ({"labels": LABELS, "names": ["a", "b", "b"]}, "two or more, each once"),
        ({"labels": LABELS.astype(complex)}, "whole numbers or strings"),
        ({"labels": np.array(["a", "b", "c"])[LABELS], "names": ["a", "b"]}, "['c'] besides"),
        ({"labels": np.array([None, {}, []], dtype=object)[LABELS]}, "of type object"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(keys: dict[str, Any], stated: str | None) -> None:
    if stated is None:
        taken(**keys)
        return
    with pytest.raises(DataError) as caught:
        taken(**keys)
    assert stated in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        (PIXELS[20:, :6, :6], LABELS[20:]),  # another size
        (PIXELS[20:] / 255.0, LABELS[20:]),  # another scale
        (PIXELS[:0], LABELS[:0]),
    ],
)
def test_the_two_parts_must_belong_together(other: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"\Aimages must be [^\n]*\Z"):
        source_from_arrays((PIXELS[:20], LABELS[:20]), other)


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)),  # would be divided by 255 again
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int32)),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4)),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 1, dtype=torch.int64)),
    ],
)
def test_images_are_nothing_else_and_name_the_door(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"\A[^\n]*source_from_arrays converts others\Z"):
        Images(pixels, labels)


def image_data(source: Source | None = None, batch_size: int = 8) -> ImageData:
    config = tiny("data.limit=null")
    return ImageData(config.data, batch_size, 0.0, 0, source=source)


def test_a_run_on_arrays_of_ones_own_sees_them_as_they_are() -> None:
    module, data, _ = build(tiny("data.limit=null", "batch_size=8"), image_data(taken(GREY / 255, LABELS + 1)))
    assert module.model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    np.testing.assert_array_equal(data.train.pixels[:, 0], GREY[:20])
    assert (len(data.val), data.class_names, data.steps_per_epoch) == (10, ("1", "2", "3"), 3)


@pytest.mark.parametrize("label", [-1, 10])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_label_without_a_class_is_refused_before_training(part: str, label: int) -> None:
    data = image_data(load("digits", ""))
    getattr(data, part).labels[3] = label
    with pytest.raises(DataError, match=r"\Alabels \(=[^\n]*\) must be in 0..9, one for each of 10 class_names\Z"):
        build_module(tiny(), data)


def test_the_last_batch_of_ones_own_images_is_checked_too() -> None:
    config = compose("model=resnet9", "data=digits", "batch_size=19")
    with pytest.raises(ConfigError, match=r"last batch of 1 of 20 images, on which resnet9 cannot train at 8x8"):
        build(config, image_data(taken(), batch_size=19))
