"""Config of the group `data`, and the sizes that follow from it without reading an image."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resnetlab.data.own_images import OWN, Index, open_images
from resnetlab.data.sources import COARSE_CLASSES, SIDES, SIZES, SOURCES
from resnetlab.data.splits import split_sizes
from resnetlab.errors import ConfigError, check_limits, require


@dataclass
class Data:
    """Config of the group `data`: the data set, its split, normalization and augmentation."""

    name: str = "cifar10"
    root: str = "${oc.env:CIFAR_ROOT,data}"  # folder of the data sets, or your images; default: $CIFAR_ROOT, or data
    labels: str = "fine"  # fine | coarse: the 20 superclasses of cifar100
    # validate on official: the test images | stratified: a part of `pool` | tail, holdout: of the training images
    split: str = "official"
    pool: str = "all"  # of split=stratified. all: all 60,000 images | train: the official training images
    # validation images as a number or a fraction below 1; null: stratified 1/6, tail 0.14, holdout 0.1
    val_size: float | None = None
    split_seed: int = 0  # of stratified and holdout, apart from the run's seed
    normalize: str = "mean_image"  # mean_image: less the mean image | channel: mean 0, sd 1 per channel | none
    augment: bool = True  # false: no flips and no translations
    flip: bool = True  # mirror half of the training images, left to right
    # of flip: true: a random half of them in the odd epochs, the others in the even ones (Jordan, arXiv 2404.00498)
    alternating_flip: bool = False
    translate: str = "shift"  # shift: subpixel, by the top-level key shift | pad_crop: whole pixels, by padding | none
    padding: int = 4  # of translate=pad_crop, pixels on each side, 1 to 8
    # beyond the edge with translate=pad_crop: mean: 0 when normalized | black: 0 before | reflect: mirrored, normalized
    fill: str = "mean"
    mixup: float = 0.0  # alpha of mixup's Beta(alpha, alpha), 1 in its paper (Zhang et al., arXiv 1710.09412); 0: off
    cutmix: float = 0.0  # the same of CutMix (Yun et al., arXiv 1905.04899); with mixup too, half of the images each
    randaugment: int = 0  # RandAugment's operations on each image (Cubuk et al., arXiv 1909.13719), 2 is usual; 0: off
    magnitude: int = 9  # of randaugment, in 0..30
    # pixels a side of a square that is 0 in each image, 8 or 16 (DeVries & Taylor, arXiv 1708.04552); 0: off
    cutout: int = 0
    brightness: float = 0.0  # x in [0, 1]: each image's times a factor from 1 - x to 1 + x (torchvision's); 0: off
    contrast: float = 0.0  # the same of the contrast, after the brightness (torchvision's ColorJitter); 0: off
    limit: int | None = None  # use the first N training and N/5 validation images, for quick looks; null: all
    resolution: int | None = None  # pixels per side, 8 or 16, by means over squares, for quick looks; null: all
    resize: int | None = None  # your images, scaled to cover this many pixels a side, and cropped; null: as they are
    skip_broken: bool = False  # of folder. true: leave out files that cannot be used | false: name them, and stop
    balance: str = "none"  # of unequal classes. weights: in the training loss | sampling: drawn equally often | none
    device: str = "auto"  # where the images stay. auto: on the training device | cpu: in host memory
    # of the images, which must have it; set for images of your own by composing or build(config, data); null: any
    digest: str | None = None
    eval_batch_size: int | None = None  # images per batch of validation; null: 500 on a CPU, 5,000 on a GPU

    def check(self) -> None:
        """Raises ConfigError, naming the key, the value and what it may be."""
        for key, names in {"resolution": tuple(SIDES), "resize": OWN, "skip_broken": OWN[:1]}.items():
            used = self.name in names or not getattr(self, key)
            require(used, f"data.{key}", getattr(self, key), f"go with data={' or '.join(names)}; leave it out")
        check_limits("data", vars(self))
        if self.fill != "mean" and self.translate != "pad_crop":
            raise ConfigError(f"data.fill (={self.fill}) is used by data.translate=pad_crop only; leave it out")
        if self.labels == "coarse" and self.name != "cifar100":
            raise ConfigError(f"data.labels (=coarse) is for data=cifar100; {self.name} has one kind of label")
        if self.val_size is not None and self.split == "official":
            raise ConfigError(f"data.val_size (={self.val_size:g}) is not used by data.split=official; leave it out")
        if self.pool != "all" and self.split != "stratified":
            raise ConfigError(f"data.pool (={self.pool}) is used by data.split=stratified only; leave it out")
        if self.resolution is not None and self.name in SIDES:
            sides = [side for side in (8, 16) if side < SIDES[self.name]]
            must = f"be {' or '.join(map(str, sides))} pixels a side, or null for the {SIDES[self.name]} of {self.name}"
            require(self.resolution in sides, "data.resolution", self.resolution, must)
        mixed = next((key for key in ("mixup", "cutmix") if getattr(self, key)), None)
        require(not mixed or self.balance != "weights", "data.balance", "weights", f"be sampling with data.{mixed}")
        require(not mixed or self.device != "cpu", "data.device", "cpu", f"be auto with data.{mixed}")
        if self.name in OWN:
            self.check_parts(self.index)
        if self.name in (*OWN, *SIZES):
            self.sizes()
            most = 2 * max(self.size()) - 2
            require(self.cutout <= most, "data.cutout", self.cutout, f"be at most {most}: more covers every image")

    def check_parts(self, index: Index) -> None:
        """Raises ConfigError if the split cannot be made of images of your own."""
        _, test, untouched = self.parts
        fits = bool(test) if self.split == "official" else not untouched
        holds = "train, val and test" if untouched else "train alone; take holdout or stratified"
        require(fits, "data.split", self.split, f"fit the images of {self.root}, {holds}")
        pooled = index.counts[: 2 if self.split == "stratified" and self.pool == "all" else 1]
        for name, *counts in zip(index.class_names, *pooled, strict=True):
            if self.split in ("stratified", "holdout") and sum(counts) < 2:
                raise ConfigError(f"data.split (={self.split}) needs two images of class {name}, not {sum(counts)}")

    @cached_property
    def index(self) -> Index:
        """Of images of your own, which are decoded if they are new. Raises DataError."""
        return open_images(self)[0]

    @property
    def parts(self) -> list[int]:
        """Training, test and untouched images before the split, as of a Source."""
        return [*map(sum, self.index.counts), 0][:3] if self.name in OWN else [*SIZES[self.name][:2], 0]

    def sizes(self) -> tuple[int, int]:
        """Training and validation images after the split, before the limit. Raises ConfigError if a side is empty."""
        train, test, _ = self.parts
        classes = len(self.index.class_names) if self.name in OWN else SIZES[self.name][2]
        classes = COARSE_CLASSES if self.labels == "coarse" else classes
        return split_sizes(self.split, train, test, self.pool, self.val_size, classes)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps an epoch, the last, partial batch included."""
        return -(-self.images() // batch_size)

    def val_images(self) -> int:
        """Validation images after the split and the limit."""
        count = self.sizes()[1]
        return count if self.limit is None else min(count, self.limit // 5)

    def eval_batch(self, device_type: str) -> int:
        """Images in a batch of validation, on a device of that type."""
        return self.eval_batch_size or (500 if device_type == "cpu" else 5_000)

    def size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.index.size if self.name in OWN else (self.resolution or SIDES[self.name],) * 2

    def images(self) -> int:
        """Training images after the split and the limit."""
        return min(self.sizes()[0], self.limit or self.sizes()[0])


@dataclass
class CustomData(Data):
    """Images that a function of the user's returns: function(**parameters), a dict of the arrays of data=arrays."""

    name: str = "custom"
    function: str = "???"  # dotted path of the function, such as my_module.images; must be given
    parameters: Any = None  # its keyword arguments, such as 'data.parameters={side: 32}'; null: none


DATA = {name: CustomData() if name == "custom" else Data(name=name) for name in (*SOURCES, *OWN)}
