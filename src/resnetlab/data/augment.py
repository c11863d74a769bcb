"""Augmentation of whole batches on their device: pure functions of images and what epoch_plan.py has drawn for them."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import equalize_image


def shift_bilinear(x: Tensor, shift: Tensor) -> Tensor:
    """out[n, c, i, j] = x[n, c, i + shift[n, 0], j + shift[n, 1]], between pixels bilinearly, edge pixels replicated.

    x: float (N, C, H, W); shift: float (N, 2) in pixels, rows and columns.
    This is what Keras' ImageDataGenerator does for width_shift_range and height_shift_range with fill_mode="nearest".
    """
    whole = shift.floor()
    for axis, offset, share in zip((2, 3), whole.long().unbind(1), (shift - whole).to(x.dtype).unbind(1), strict=True):
        wanted = _wanted(x, offset, axis)
        x = torch.lerp(_taken(x, wanted, axis), _taken(x, wanted + 1, axis), share[:, None, None, None])
    return x


def pad_crop(x: Tensor, shift: Tensor, reflect: bool = False) -> Tensor:
    """Shifts by whole pixels, with zeros beyond the edge: pad, then crop at random. x: float or uint8.

    On normalised images zero is the mean, as in He et al. 2015 ("4 pixels are padded on each side"); on raw ones it is
    black, as in torchvision's usual RandomCrop before Normalize. reflect: the image mirrored at its edges instead.
    """
    for axis, offset in zip((2, 3), shift.long().unbind(1), strict=True):
        wanted, last = _wanted(x, offset, axis), x.shape[axis] - 1
        wanted = last - (last - wanted.remainder(max(1, 2 * last))).abs() if reflect else wanted
        x = _taken(x, wanted, axis, zeros=not reflect)
    return x


def flip(x: Tensor, mask: Tensor) -> Tensor:
    """Mirrors the images (N, C, H, W) for which mask (N,) is true, left to right."""
    return torch.where(mask[:, None, None, None], x.flip(3), x)


def mix(x: Tensor, other: Tensor, weight: Tensor, box: Tensor) -> Tensor:
    """weight*x + (1 - weight)*other, or the box of other in x, where an image's is not empty; see epoch_plan.mixing."""
    top, left, bottom, right = (side[:, None] for side in box.unbind(1))
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
    share = torch.where(inside.any((1, 2), keepdim=True), (~inside).float(), weight[:, None, None])[:, None]
    return x * share + other * (1 - share)


def jitter(x: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast of each image, uint8 (N, 3, H, W), by its factors (N, 2), as torchvision has them."""
    brightness, contrast = factors[:, :, None, None, None].unbind(1)
    values = (x * brightness).clamp(0, 255).floor()
    mean = grey(values).mean((1, 2, 3), keepdim=True)
    return (contrast * values + (1 - contrast) * mean).clamp(0, 255).to(torch.uint8)


def grey(values: Tensor) -> Tensor:
    """(N, 1, H, W), whole numbers, of (N, 3, H, W) in 0..255, as torchvision has it."""
    red, green, blue = values.split(1, 1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor()


def randaugment(x: Tensor, rows: Tensor) -> Tensor:
    """An operation on each image, uint8 (N, 3, H, W); rows: (N, 8) of epoch_plan.operations.

    torchvision's is one for a whole batch, known to the host; here all are computed, so that a graph can replay them.
    """
    kind, level = rows[:, 6:, None, None, None].unbind(1)
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(rows[:, :6].view(-1, 2, 3), list(x.shape), align_corners=False)
    values = end = F.grid_sample(x.float(), grid, mode="nearest", align_corners=False)
    greyed = grey(values)
    blurred = values.clone()
    blurred[:, :, 1:-1, 1:-1] = ((9 * F.avg_pool2d(values, 3, 1) + 4 * values[:, :, 1:-1, 1:-1]) / 13).round()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    for number, other in ((6, 0 * values), (7, greyed), (8, greyed.mean((1, 2, 3), keepdim=True)), (9, blurred)):
        end = torch.where(kind == number, other, end)
    found = (values + (end - values) * (1 - level)).clamp(0, 255)
    stretched = torch.where(high > low, (values - low) / ((high - low) * (1 / 255)), values)
    solarized = torch.where(values >= level, 255 - values, values)
    posterized, equalized = values - values.remainder(level), equalize_image(values.to(torch.uint8))
    for number, other in ((10, posterized), (11, solarized), (12, stretched), (13, equalized)):
        found = torch.where(kind == number, other, found)
    return found.to(torch.uint8)


def _wanted(x: Tensor, offset: Tensor, dim: int) -> Tensor:
    """(N, size): the places along dim, moved by offset[n] whole pixels."""
    return torch.arange(x.shape[dim], device=x.device) + offset[:, None]


def _taken(x: Tensor, wanted: Tensor, dim: int, zeros: bool = False) -> Tensor:
    """The pixels of x at the places along dim; beyond the edge those of the edge, or zeros."""
    size = x.shape[dim]
    shape = [len(x), 1, 1, 1]
    shape[dim] = size
    index = wanted.clamp(0, size - 1).view(shape).expand(x.shape)
    moved = x.gather(dim, index)
    return moved * ((wanted >= 0) & (wanted < size)).view(shape) if zeros else moved
