"""Conversion of arrays of images and labels to a data set; whatever else they hold is refused in one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnetlab.data.sources import Images, Source
from resnetlab.errors import DataError

Array = npt.NDArray[Any]
PIXELS = "the pixels themselves are wanted, 0..255 or 0..1; data.normalize does the rest"


def source_from_arrays(
    train: tuple[Any, Any], test: tuple[Any, Any], class_names: Sequence[str] | None = None
) -> Source:
    """The data set of (images, labels) to train on and (images, labels) to validate on: numpy arrays, tensors, lists.

    images: (N, H, W) grey, or (N, H, W, C) or (N, C, H, W) with C = 1 or 3; integers or floats in 0..255, floats in
    0..1, or bool. Grey is repeated over three channels. labels: whole numbers, strings or one-hot rows; (N,) or (N, 1).
    class_names: in the order of the labels, which then are 0..n-1 or 1..n, or the names; None: the labels themselves,
    of which training must have every one. Raises DataError.
    """
    (first, second), names = images_of_parts((train, test), class_names)
    return Source(first, second, names)


def images_of_parts(parts: Sequence[Any], class_names: Sequence[str] | None) -> tuple[list[Images], tuple[str, ...]]:
    """(images of each part, class names) of one part or more, the first to train on; as in source_from_arrays."""
    pixels = [_three_channels(_array(images, "images")) for images, _ in parts]
    labels = [_flat_labels(_array(labels, "labels"), len(pixels[i])) for i, (_, labels) in enumerate(parts)]
    _require(len({a.shape[1:] for a in pixels}) == 1, "images", "of one size", [a.shape for a in pixels])
    tensors = _uint8(pixels)
    numbers, names = _numbered(labels, class_names)
    return list(map(Images, tensors, numbers)), names


def pixels_of_array(images: Any) -> Tensor:
    """uint8 (N, 3, H, W) of images as above, or of a single one (H, W) or (H, W, 3). Raises DataError."""
    array = _array(images, "images")
    single = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    clear = single or array.ndim != 3 or len(array) not in (1, 3)
    _require(clear, "images", "(N, H, W, C) or (N, C, H, W) where 3 may be images or channels", array.shape)
    return _uint8([_three_channels(array[None] if single else array)])[0]


def _uint8(arrays: Sequence[Array]) -> list[Tensor]:
    """The values of all arrays in 0..255, those in 0..1 times 255."""
    low, top = (float(f([f(a) for a in arrays])) for f in (np.min, np.max))
    kind, found = arrays[0].dtype, f"{arrays[0].dtype} in {low:g}..{top:g}"
    _require(len({a.dtype for a in arrays}) == 1, "images", "of one type", [str(a.dtype) for a in arrays])
    _require(low >= 0 and top <= 255 and low < top, "images", f"in 0..255, and not all alike ({PIXELS})", found)
    unit = kind.kind == "b" or (kind.kind == "f" and top <= 1 + 1e-6)
    clear = unit or top >= 128 or (kind == np.uint8 and top > 1)
    _require(clear, "images", f"in all of 0..255 or, as floats, in 0..1 ({PIXELS})", found)
    scale = np.float32(255 if unit else 1)
    whole = (a if kind == np.uint8 else np.rint(a * scale).clip(0, 255) for a in arrays)
    return [torch.from_numpy(np.require(a, np.uint8, "W")) for a in whole]


def _require(ok: bool, what: str, must: str, found: object) -> None:
    if not ok:
        raise DataError(f"{what} must be {must}; these are {found}".replace("\n", " "))


def _array(values: Any, what: str) -> Array:
    """As numpy has it: float32, uint8, int64, bool or strings."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{what} must be of one size; these differ from each other") from None
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    kinds = "numbers" if what == "images" else "whole numbers or strings"
    _require(array.dtype.kind in ("buif" if what == "images" else "buifU"), what, kinds, f"of type {array.dtype}")
    _require(array.size > 0, what, "one or more", "none")
    common = {"f": np.float32, "i": np.int64, "u": np.int64}.get(array.dtype.kind, array.dtype)
    return array if array.dtype == np.uint8 or what == "labels" else array.astype(common)


def _three_channels(array: Array) -> Array:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, 3, H, W)."""
    shape = array.shape
    array = array[:, None] if array.ndim == 3 else array
    where = [axis for axis in (1, 3) if array.ndim == 4 and array.shape[axis] in (1, 3)]
    array = np.moveaxis(array, where[0], 1) if len(where) == 1 else array
    ok = len(where) == 1 and min(array.shape[2:]) >= 4
    _require(ok, "images", "(N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, H and W from 4", f"of shape {shape}")
    return np.ascontiguousarray(np.broadcast_to(array, (len(array), 3, *array.shape[2:])))


def _flat_labels(array: Array, images: int) -> Array:
    """(N,), strings or int64; one-hot rows by the place of their 1."""
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim == 2 and array.dtype.kind != "U":
        hot = np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()
        _require(bool(hot), "labels", "one number an image, or one-hot rows of 0 and 1", f"of shape {array.shape}")
        array = array.argmax(1)
    _require(array.shape == (images,), "labels", f"one for each of {images} images", f"of shape {array.shape}")
    if array.dtype.kind == "U":
        return array
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    _require(bool((whole == array).all()), "labels", "whole numbers", f"such as {array[whole != array][:1]}")
    return whole


def _numbered(labels: Sequence[Array], class_names: Sequence[str] | None) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels from 0, and the names of their classes."""
    classes, both = np.unique(labels[0]), np.unique(np.concatenate(labels))
    if class_names is not None and both.dtype.kind != "U":
        first = 1 if both[0] == 1 and both[-1] == len(class_names) else 0
        classes = np.arange(first, first + len(class_names))
    elif class_names is not None:
        classes = np.asarray(class_names)
    else:
        signs_ok = both.dtype.kind == "U" or both[0] >= 0 or len(both) == 2
        _require(signs_ok, "labels", "0 or more (a -1 often means: unknown)", f"from {both[0]}")
    names = tuple(map(str, classes.tolist() if class_names is None else class_names))
    _require(len({*names}) == len(names) >= 2, "class names", "two or more, each once", names)
    places = {value: place for place, value in enumerate(classes.tolist())}
    unknown = [value for value in both.tolist() if value not in places]
    of = "among those of the training images" if class_names is None else f"of the {len(classes)} classes (from 0 or 1)"
    _require(not unknown, "labels", of, f"{unknown[:3]} besides")
    return [torch.tensor([places[value] for value in part.tolist()]) for part in labels], names
