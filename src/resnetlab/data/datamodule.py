"""LightningDataModule that keeps the data set on the training device and makes the batches there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.data import augment, epoch_plan
from resnetlab.data.epoch_plan import EpochPlan
from resnetlab.data.normalize import Normalizer
from resnetlab.data.options import Data
from resnetlab.data.own_images import OWN, open_images
from resnetlab.data.sources import Images, Source, digest_of, load
from resnetlab.data.splits import split
from resnetlab.errors import ConfigError, DataError

Shard = tuple[int, int]  # (rank, devices)


class Chunk(NamedTuple):
    """A range of consecutive steps of an epoch: the first step, from 0, and the number of steps."""

    first: int
    steps: int


class ImageData(L.LightningDataModule):
    """Training, validation and (where the split has one) untouched test images.

    All images are moved to the training device once, as uint8; a batch is gathered, normalised and augmented there.
    batch_size: training images a step; the last, partial batch is kept. shift: largest shift as a fraction of the side.
    chunk: steps in a batch of Lightning's. source: images of your own, instead of those that config names.
    """

    def __init__(
        self, config: Data, batch_size: int, shift: float, seed: int, chunk: int = 1, source: Source | None = None
    ) -> None:
        super().__init__()
        self.chunk, self.source = chunk, source
        self.config, self.batch_size, self.shift, self.seed = config, batch_size, shift, seed
        self.class_names: tuple[str, ...] = ()
        self.limited = False
        self.source_digest: str | None = None  # of the images as config names them; None: of your own
        self.train_images: Images | None = None
        self.val_images: Images | None = None
        self.test_images: Images | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits and limits the images; the second call does nothing. Raises DataError or ConfigError."""
        if self.train_images is not None:
            return
        config = self.config
        own = self.source is None and config.name in OWN
        source = self.source or (open_images(config)[1] if own else load(config.name, config.root, config.labels))
        both = (source.train, source.test)
        pool = Images(torch.cat([part.pixels for part in both]), torch.cat([part.labels for part in both]))
        how = config.pool, config.val_size, config.split_seed
        train_at, val_at, test_at = split(config.split, pool.labels.numpy(), len(source.test), *how)
        self.class_names = source.class_names
        limits = (None, None) if config.limit is None else (config.limit, config.limit // 5)
        train, val = pool[train_at[: limits[0]]], pool[val_at[: limits[1]]]
        self.limited = (len(train), len(val)) != (len(train_at), len(val_at))
        self.test_images = source.untouched if test_at is None else pool[test_at]
        if config.resolution is not None:
            train, val = train.scaled(config.resolution), val.scaled(config.resolution)
            self.test_images = self.test_images and self.test_images.scaled(config.resolution)
        self.train_images, self.val_images = train, val
        self.normalizer = Normalizer(config.normalize, train)
        found = self.digest()
        self.source_digest = found if self.source is None else None
        if own:
            found = digest_of(source.class_names, (*both, source.untouched))
            if len(train.labels.unique()) < len(source.class_names):
                raise DataError("a class has no image left to train on: take another data.limit or data.split")
        if config.digest not in (None, found):
            place = getattr(config, "function", config.root if own else config.name)
            cure = "restore those images, or hand yours to build()"
            raise DataError(f"data.digest (={config.digest}) is not that of {place}, which is {found}; {cure}")

    def class_weights(self) -> Tensor | None:
        """Of data.balance=weights: images / (classes * images of the class), as scikit-learn has it; else None."""
        counts = self.train.labels.bincount(minlength=len(self.class_names)).clamp(min=1)
        return len(self.train) / (len(counts) * counts) if self.config.balance == "weights" else None

    def check_labels(self) -> None:
        """Raises DataError unless class_names has a name for every label."""
        classes = len(self.class_names)
        for images in filter(None, (self.train, self.val, self.test_images)):
            if not 0 <= int(images.labels.min()) <= images.labels.max() < classes:
                found = f"{int(images.labels.min())}..{int(images.labels.max())}"
                raise DataError(f"labels (={found}) must be in 0..{classes - 1}, one for each of {classes} class_names")

    @property
    def train(self) -> Images:
        self.setup()
        assert self.train_images is not None
        return self.train_images

    @property
    def val(self) -> Images:
        self.setup()
        assert self.val_images is not None
        return self.val_images

    def digest(self) -> str:
        """Digest of the images as they are now."""
        self.setup()
        return digest_of(self.class_names, (self.train_images, self.val_images, self.test_images))

    def preprocessing(self) -> dict[str, Any]:
        """Plain data that a network is of no use without: class names, image size (H, W), mean and std."""
        size, constants = list(self.train.pixels.shape[2:]), (self.normalizer.mean, self.normalizer.std)
        mean, std = (constant.cpu() for constant in constants)
        return {"classes": list(self.class_names), "size": size, "mean": mean, "std": std}

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def subset_warning(self) -> str | None:
        """One sentence if only part of the data set is used, or smaller images; else None."""
        self.setup()
        reductions = []
        if self.limited:
            counts = f"{len(self.train):,} training and {len(self.val):,} validation images"
            reductions.append(f"data.limit={self.config.limit}: a subset, the first {counts}")
        if self.config.resolution is not None:
            reductions.append(f"data.resolution={self.config.resolution}: images made smaller")
        if self.source is None and self.config.skip_broken and (left_out := self.config.index.left_out):
            reductions.append(f"data.skip_broken=true: {left_out:,} files left out")
        return f"{'; '.join(reductions)}; not a result for the whole of {self.config.name}" if reductions else None

    def plan(self, epoch: int) -> EpochPlan:
        """The EpochPlan of `epoch` (from 1): all that the configured augmentation draws for the training images."""
        translate = self.config.translate if self.config.augment else "none"
        height, width = self.train.pixels.shape[2:]
        pad, shift = float(self.config.padding), (self.shift * height, self.shift * width)
        pixels = {"shift": shift, "pad_crop": (pad, pad), "none": (0.0, 0.0)}[translate]
        how = {"whole_pixels": translate == "pad_crop", "alternating": self.config.alternating_flip}
        plan = epoch_plan.epoch_plan(self.seed, epoch, len(self.train), pixels, **how)
        if self.config.balance == "sampling":
            plan = replace(plan, order=epoch_plan.balanced_order(self.seed, epoch, self.train.labels.cpu()))
        drawn, alphas = (self.seed, epoch, len(self.train)), (self.config.mixup, self.config.cutmix)
        count, side = self.config.randaugment, self.config.cutout
        factors, size = (self.config.brightness, self.config.contrast), (height, width)
        return replace(
            plan,
            mix=epoch_plan.mixing(*drawn, size, *alphas) if any(alphas) else None,
            operations=epoch_plan.operations(*drawn, size, count, self.config.magnitude) if count else None,
            cutout=epoch_plan.cutouts(*drawn, size, side) if side else None,
            jitter=epoch_plan.jitters(*drawn, *factors) if any(factors) else None,
        )

    def planned(
        self, images: Images, plan: EpochPlan, rows: Tensor, host_order: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The training images in those rows of the plan, augmented: float32 (N, C, H, W); int64 (N,).

        host_order: their indices on the host, where the images are there. If the plan mixes them, the labels are
        float32 (N, classes), which sum to 1.
        """
        here = plan.each(lambda part: part.index_select(0, rows))
        place = here.order.to(images.labels.device) if host_order is None else host_order
        found = self.gather(images, place, rows.device)
        pixels, y = found.pixels, found.labels
        if here.jitter is not None:
            pixels = augment.jitter(pixels, here.jitter)
        for step in () if here.operations is None else here.operations.unbind(1):
            pixels = augment.randaugment(pixels, step)
        x = self.augmented(pixels, here.shift, here.flip)
        if here.cutout is not None:
            x = augment.mix(x, torch.zeros_like(x), x.new_ones(len(x)), here.cutout)
        if here.mix is not None:
            mix, classes = here.mix, len(self.class_names)
            weight = mix[:, 1]
            other, labels = self.planned(images, replace(plan, mix=None), mix[:, 0].long())
            y = torch.lerp(F.one_hot(labels, classes).float(), F.one_hot(y, classes).float(), weight[:, None])
            x = augment.mix(x, other, weight, mix[:, 2:])
        return x, y

    def augmented(self, pixels: Tensor, shift: Tensor, mirror: Tensor) -> Tensor:
        """Normalised, shifted and flipped: uint8 (N, C, H, W) -> float32 (N, C, H, W)."""
        black = self.config.augment and self.config.fill == "black"
        x = self.normalizer(augment.pad_crop(pixels, shift) if black else pixels)
        if not self.config.augment:
            return x
        if self.config.translate == "shift" and self.shift > 0:
            x = augment.shift_bilinear(x, shift)
        elif self.config.translate == "pad_crop" and not black:
            x = augment.pad_crop(x, shift, self.config.fill == "reflect")
        return augment.flip(x, mirror) if self.config.flip else x

    def batch_images(self, index: int) -> int:
        """Images in batch `index` (from 0) of an epoch, over all devices."""
        return min(self.batch_size, len(self.train) - index * self.batch_size)

    def batches(self, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of `epoch` (from 1) on `device`: float32 (N, C, H, W) and int64 (N,)."""
        images, table = self.resident(self.train, device), self.plan(epoch).each(lambda part: part.to(device))
        for rows in torch.arange(len(images), device=device).split(self.batch_size):
            yield self.planned(images, table, rows)

    def recalibration_inputs(self, images: int, epoch: int, device: torch.device) -> Iterator[Tensor]:
        """Whole training batches of about `images` images: a partial one would weigh as much as the others."""
        batches = max(1, min(images, len(self.train)) // self.batch_size)
        return (x for x, _ in islice(self.batches(epoch, device), batches))

    def eval_batches(
        self, images: Images, device: torch.device, share: Shard = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All of `images`, or a share (rank, devices), normalised, not augmented, in batches of eval_batch_size."""
        mine = (part[share[0] :: share[1]] for part in (images.pixels, images.labels))
        pixels, labels = (part.split(self.config.eval_batch(device.type)) for part in mine)
        for x, y in zip(pixels, labels, strict=True):
            yield self.normalizer(x.to(device)), y.to(device)

    def resident(self, images: Images, device: torch.device) -> Images:
        """The images where they stay during the training: on `device`, or on the host with data.device=cpu."""
        return images if self.config.device == "cpu" else images.to(device)

    def gather(self, images: Images, order: Tensor, device: torch.device) -> Images:
        """Some of the images, on `device`; those in host memory by way of pinned memory, without waiting for it."""
        found = images[order]
        if device.type == "cuda" and not found.labels.is_cuda:
            found = Images(found.pixels.pin_memory(), found.labels.pin_memory())
        return Images(found.pixels.to(device, non_blocking=True), found.labels.to(device, non_blocking=True))

    def to_device(self, device: torch.device) -> None:
        """Puts all images where they stay, once."""
        self.train_images, self.val_images = self.resident(self.train, device), self.resident(self.val, device)
        self.test_images = self.test_images and self.resident(self.test_images, device)

    def train_dataloader(self) -> "Loader":
        """Chunks of step numbers; the step itself gathers its images on the device."""
        self.to_device(self._trainer().strategy.root_device)
        steps = self.steps_per_epoch
        chunks = [Chunk(first, min(self.chunk, steps - first)) for first in range(0, steps, self.chunk)]
        return Loader(len(chunks), lambda: iter(chunks))

    def val_dataloader(self) -> "Loader":
        return self._eval_loader(self.val)

    predict_dataloader = val_dataloader

    def test_dataloader(self) -> "Loader":
        self.setup()
        if self.test_images is None:
            raise ConfigError(f"data.split={self.config.split} has no untouched test images; validate instead")
        return self._eval_loader(self.test_images)

    def _eval_loader(self, images: Images) -> "Loader":
        trainer = self._trainer()
        share, device = (trainer.global_rank, trainer.world_size), trainer.strategy.root_device
        steps = -(-len(range(share[0], len(images), share[1])) // self.config.eval_batch(device.type))
        return Loader(steps, lambda: self.eval_batches(images, device, share))

    def _trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise DataError("the loaders belong to a Trainer: call trainer.fit(module, datamodule=...)")
        return self.trainer


@dataclass(eq=False)
class Loader:
    """Minimal data loader for Lightning: a sized iterable that starts again in each epoch."""

    steps: int
    batches: Callable[[], Iterator[Any]]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return self.batches()
