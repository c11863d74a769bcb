"""LightningDataModule that keeps the data set on the training device and makes the batches there."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from resnetlab.data import augment
from resnetlab.data.epoch_plan import EpochPlan, epoch_plan
from resnetlab.data.normalize import Normalizer
from resnetlab.data.options import Data
from resnetlab.data.sources import Images, Source, digest_of, load
from resnetlab.data.splits import split
from resnetlab.errors import ConfigError, DataError

Shard = tuple[int, int]  # (rank, devices)
WHOLE: Shard = (0, 1)


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
        source = self.source or load(config.name, config.root, config.labels)
        pool = Images(
            torch.cat([source.train.pixels, source.test.pixels]), torch.cat([source.train.labels, source.test.labels])
        )
        parts = split(
            config.split, pool.labels.numpy(), len(source.test), config.pool, config.val_size, config.split_seed
        )
        self.class_names = source.class_names
        limits = (None, None) if config.limit is None else (config.limit, config.limit // 5)
        train, val = pool[parts.train[: limits[0]]], pool[parts.val[: limits[1]]]
        self.limited = (len(train), len(val)) != (len(parts.train), len(parts.val))
        self.test_images = None if parts.test is None else pool[parts.test]
        if config.resolution is not None:
            train, val = train.scaled(config.resolution), val.scaled(config.resolution)
            self.test_images = self.test_images and self.test_images.scaled(config.resolution)
        self.train_images, self.val_images = train, val
        self.normalizer = Normalizer(config.normalize, train)
        found = self.digest()
        self.source_digest = found if self.source is None else None
        if config.digest not in (None, found):
            held = f"is of other images than {config.name} has ({found})"
            raise DataError(f"data.digest (={config.digest}) {held}; images of your own are known to build() alone")

    def check_labels(self) -> None:
        """Raises DataError unless class_names has a name for every label."""
        classes = len(self.class_names)
        for images in (self.train, self.val, self.test_images):
            if (
                images is not None
                and len(images)
                and not 0 <= int(images.labels.min()) <= images.labels.max() < classes
            ):
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
            reductions.append(
                f"data.limit={self.config.limit}: a subset, the first {len(self.train):,} training and "
                f"{len(self.val):,} validation images"
            )
        if self.config.resolution is not None:
            reductions.append(f"data.resolution={self.config.resolution}: images made smaller")
        return f"{'; '.join(reductions)}; not a result for the whole of {self.config.name}" if reductions else None

    def plan(self, epoch: int) -> EpochPlan:
        """The EpochPlan of `epoch` (from 1): order, shifts and flips of the training images."""
        translate = self.config.translate if self.config.augment else "none"
        pixels = {
            "shift": self.shift * self.train.pixels.shape[-1],
            "pad_crop": float(self.config.padding),
            "none": 0.0,
        }[translate]
        return epoch_plan(self.seed, epoch, len(self.train), pixels, whole_pixels=translate == "pad_crop")

    def augmented(self, images: Images, shift: Tensor, mirror: Tensor) -> Tensor:
        """Normalised, shifted and flipped: uint8 (N, C, H, W) -> float32 (N, C, H, W)."""
        if self.config.augment and self.config.fill == "black":
            x = self.normalizer(augment.pad_crop(images.pixels, shift))
            return augment.flip(x, mirror) if self.config.flip else x
        x = self.normalizer(images.pixels)
        if not self.config.augment:
            return x
        if self.config.translate == "shift" and self.shift > 0:
            x = augment.shift_bilinear(x, shift)
        elif self.config.translate == "pad_crop":
            x = augment.pad_crop(x, shift)
        return augment.flip(x, mirror) if self.config.flip else x

    def batch_images(self, index: int) -> int:
        """Images in batch `index` (from 0) of an epoch, over all devices."""
        return min(self.batch_size, len(self.train) - index * self.batch_size)

    def batches(self, epoch: int, device: torch.device, share: Shard = WHOLE) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of `epoch` (from 1) on `device`: float32 (N, C, H, W) and int64 (N,).

        share: (rank, devices), for every devices-th image of each batch.
        """
        images, table = self.train.to(device), self.plan(epoch).to(device)
        steps = (
            (batch[share[0] :: share[1]] for batch in part.split(self.batch_size))
            for part in (table.order, table.shift, table.flip)
        )
        for order, shift, mirror in zip(*steps, strict=True):
            batch = images[order]
            yield self.augmented(batch, shift, mirror), batch.labels

    def recalibration_inputs(self, images: int, epoch: int, device: torch.device) -> Iterator[Tensor]:
        """Whole training batches of about `images` images: a partial one would weigh as much as the others."""
        batches = max(1, min(images, len(self.train)) // self.batch_size)
        return (x for x, _ in islice(self.batches(epoch, device), batches))

    def eval_batches(
        self, images: Images, device: torch.device, share: Shard = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All of `images`, normalised, not augmented, in batches of eval_batch_size; or a share of them, as above."""
        mine = (part[share[0] :: share[1]] for part in (images.pixels, images.labels))
        pixels, labels = (part.split(self.config.eval_batch(device.type)) for part in mine)
        for x, y in zip(pixels, labels, strict=True):
            yield self.normalizer(x.to(device)), y.to(device)

    def to_device(self, device: torch.device) -> None:
        """Puts all images on `device`, once."""
        self.train_images, self.val_images = self.train.to(device), self.val.to(device)
        if self.test_images is not None:
            self.test_images = self.test_images.to(device)

    def train_dataloader(self) -> "Loader":
        """Chunks of step numbers; the step itself gathers its images on the device."""
        self.to_device(self._trainer().strategy.root_device)
        steps = self.steps_per_epoch
        chunks = [Chunk(first, min(self.chunk, steps - first)) for first in range(0, steps, self.chunk)]
        return Loader(len(chunks), lambda: iter(chunks))

    def val_dataloader(self) -> "Loader":
        return self._eval_loader(self.val)

    def predict_dataloader(self) -> "Loader":
        return self._eval_loader(self.val)

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


class Loader:
    """Minimal data loader for Lightning: a sized iterable that starts again in each epoch."""

    def __init__(self, steps: int, batches: Callable[[], Iterator[Any]]) -> None:
        self.steps, self.batches = steps, batches

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return self.batches()
