"""Augmentation against scipy.ndimage (subpixel shifts) and torchvision (pad and crop), image by image."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor
from torchvision.transforms import functional as tv

from resnetlab.data.augment import flip, jitter, mix, pad_crop, shift_bilinear
from resnetlab.data.epoch_plan import cutouts, jitters

SHAPE = (24, 3, 9, 7)  # not square, so that rows taken for columns show


def images(dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shifts(reach: float, seed: int = 1) -> Tensor:
    """Uniform in [-reach, reach), float64 (N, 2)."""
    uniform = torch.rand(SHAPE[0], 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * uniform - 1) * reach


def scipys(x: Tensor, shift: Tensor) -> Tensor:
    """out[i, j] = in[i + dy, j + dx]: scipy's shift has the other sign."""
    moved = [
        scipy.ndimage.shift(image, (0, -dy, -dx), order=1, mode="nearest")
        for image, (dy, dx) in zip(x.numpy(), shift.tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(moved))


@pytest.mark.parametrize("reach", [0.5, 3.2, 20.0], ids=["subpixel", "inside", "beyond the edge"])
def test_shift_is_scipys_bilinear_shift_with_replicated_edges(reach: float) -> None:
    x, shift = images(), shifts(reach)
    # float64 on both sides, values of size 1: 1e-12 is rounding.
    torch.testing.assert_close(shift_bilinear(x, shift), scipys(x, shift), rtol=0, atol=1e-12)


def test_shift_by_whole_pixels_is_scipys_to_the_bit() -> None:
    x = images(torch.float32)
    shift = torch.randint(-12, 13, (SHAPE[0], 2), generator=torch.Generator().manual_seed(2)).float()
    assert torch.equal(shift_bilinear(x, shift), scipys(x.double(), shift.double()).float())
    assert torch.equal(shift_bilinear(x, torch.zeros(SHAPE[0], 2)), x)


def test_shift_in_float32_stays_float32_and_near_float64() -> None:
    x, shift = images(torch.float32), shifts(3.2).float()
    moved = shift_bilinear(x, shift)
    assert moved.dtype == torch.float32
    # Two interpolations of values up to 4: 1e-6 is a few units in the last place. A shift by 1e-6 px does as much.
    torch.testing.assert_close(moved.double(), scipys(x.double(), shift.double()), rtol=0, atol=3e-6)


@pytest.mark.parametrize("padding", [1, 4, 12])
def test_pad_crop_is_torchvisions_pad_and_crop(padding: int) -> None:
    x = images(torch.float32)
    drawn = torch.randint(-padding, padding + 1, (SHAPE[0], 2), generator=torch.Generator().manual_seed(3))
    moved = pad_crop(x, drawn.float())
    for image, got, (dy, dx) in zip(x, moved, drawn.tolist(), strict=True):
        padded = tv.pad(image, [padding])
        assert torch.equal(got, tv.crop(padded, padding + dy, padding + dx, *SHAPE[2:]))
    assert pad_crop(x + 10, torch.full((SHAPE[0], 2), 9.0)).abs().max() == 0  # beyond the image


@pytest.mark.parametrize("padding", [1, 4, 6])
def test_reflected_padding_is_torchvisions_pad_and_crop(padding: int) -> None:
    x = images(torch.float32)
    drawn = torch.randint(-padding, padding + 1, (SHAPE[0], 2), generator=torch.Generator().manual_seed(3))
    for image, got, (dy, dx) in zip(x, pad_crop(x, drawn.float(), reflect=True), drawn.tolist(), strict=True):
        padded = tv.pad(image, [padding], padding_mode="reflect")
        assert torch.equal(got, tv.crop(padded, padding + dy, padding + dx, *SHAPE[2:]))
    beyond = pad_crop(x[:, :, :4], torch.tensor([[5.0, 0.0]]).expand(len(x), 2), reflect=True)  # rows 5, 6, 7, 8
    assert torch.equal(beyond, x[:, :, [1, 0, 1, 2]])  # of 0 1 2 3 2 1 0 1 2 ...


def references_cutout(image: Tensor, centre: tuple[int, int], length: int) -> Tensor:
    """The paper's own code (github.com/uoguelph-mlrg/Cutout), for a given centre."""
    mask = np.ones(image.shape[1:], np.float32)
    (y1, y2), (x1, x2) = (
        (np.clip(at - length // 2, 0, size), np.clip(at + length // 2, 0, size))
        for at, size in zip(centre, image.shape[1:], strict=True)
    )
    mask[y1:y2, x1:x2] = 0.0
    return image * torch.from_numpy(mask)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_cutout_is_that_of_its_paper(side: int) -> None:
    x, (height, width) = images(torch.float32) + 9, SHAPE[2:]
    boxes = cutouts(5, 2, SHAPE[0], (height, width), side)
    centres = np.random.default_rng([5, 2, 7]).integers(0, (height, width), (SHAPE[0], 2))
    cut = mix(x, torch.zeros_like(x), torch.ones(len(x)), boxes)
    for image, got, centre in zip(x, cut, centres.tolist(), strict=True):
        assert torch.equal(got, references_cutout(image, tuple(centre), side))
    many = cutouts(0, 1, 20_000, (9, 7), 1)  # a square of one pixel is its centre, everywhere alike
    counts = (many[:, 0] * 7 + many[:, 1]).bincount(minlength=63)
    assert all(abs(count - 20_000 / 63) < 5 * (20_000 / 63) ** 0.5 for count in counts.tolist())
    for length, whole in ((17, True), (16, False)):  # of 9 pixels: what Data.check refuses, and what it lets pass
        boxes = cutouts(0, 1, 2000, (9, 9), length)
        assert bool((boxes == torch.tensor([0, 0, 9, 9])).all()) is whole
    assert torch.equal(cutouts(5, 2, 9, (9, 7), 4), cutouts(5, 2, 9, (9, 7), 4))
    assert not torch.equal(cutouts(5, 2, 9, (9, 7), 4), cutouts(5, 3, 9, (9, 7), 4))


def test_jitter_is_torchvisions_brightness_and_then_contrast() -> None:
    x = torch.randint(0, 256, (200, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    factors = jitters(0, 1, 200, 0.6, 1.0)
    # of 200 uniform draws the least is on average 1 / 201 of the range (0.01) off its end; 1 / sqrt(200) = 0.07
    assert factors.amin(0).tolist() == pytest.approx([0.4, 0.0], abs=0.05)
    assert factors.amax(0).tolist() == pytest.approx([1.6, 2.0], abs=0.05)
    assert abs(float(np.corrcoef(factors.T)[0, 1])) < 0.25
    for image, got, (brightness, contrast) in zip(x, jitter(x, factors), factors.tolist(), strict=True):
        wanted = tv.adjust_contrast(tv.adjust_brightness(image, brightness), contrast)
        different = (wanted.int() - got.int()).abs()
        assert different.max() <= 1
        assert (different > 0).float().mean() < 0.03  # rounding of a product of two float32
    assert torch.equal(jitter(x, torch.ones(200, 2)), x)
    assert torch.equal(jitters(0, 1, 9, 0.0, 0.3)[:, 0], torch.ones(9))


def test_flip_is_numpys_mirror_of_the_masked_images_alone() -> None:
    x = images(torch.float32)
    mask = torch.arange(SHAPE[0]) % 3 == 0
    flipped = flip(x, mask)
    for n in range(len(x)):
        expected = x[n].numpy()[:, :, ::-1] if n % 3 == 0 else x[n].numpy()
        np.testing.assert_array_equal(flipped[n].numpy(), expected)
    assert torch.equal(flip(flipped, mask), x)


@pytest.mark.parametrize("function", [shift_bilinear, pad_crop, lambda x, shift: flip(x, shift[:, 0] > 0)])
def test_memory_layout_is_of_no_account_and_the_input_stays(function: object) -> None:
    x, shift = images(torch.float32), shifts(4).round().float()
    channels_last = x.to(memory_format=torch.channels_last)
    assert not channels_last.is_contiguous()
    before = x.clone()
    assert torch.equal(function(channels_last, shift), function(x, shift))  # type: ignore[operator]
    assert torch.equal(x, before)
    assert not torch.equal(function(x, shift), before)  # type: ignore[operator]
