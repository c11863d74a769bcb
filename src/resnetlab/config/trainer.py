"""The trainer group: device, precision and what Lightning is told; resolved once, recorded in the manifest."""

from dataclasses import dataclass

import torch

from resnetlab.errors import ConfigError

ACCELERATORS = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")
PROGRESS = ("auto", "bar", "lines", "off")


@dataclass
class TrainerOptions:
    """Where and how a run computes; none of it belongs to the recipe."""

    name: str = "auto"
    accelerator: str = "auto"  # auto: cuda where there is one, else cpu
    devices: int = 1  # of one machine, a process each; batch_size stays the batch of all together
    precision: str = "auto"  # auto: 16-mixed on cuda (Keras' mixed_float16), 32-true on the cpu
    channels_last: bool = True
    chunk: int | None = (
        None  # steps in a batch of Lightning's, which pays its cost once; null: 1, or 50 of engine=graph
    )
    profile: int | None = None  # steps of the first epoch to record: profile/trace.json.gz; null = off
    patience: int | None = None  # early stopping: epochs without a new best val/acc; null = off
    recalibration_images: int = 6400  # training images for recalibrate_bn and for averages
    progress: str = "auto"  # auto: a bar on a terminal, lines elsewhere

    def check(self) -> None:
        """Raises ConfigError, naming the key, the value and what it may be."""
        for key, choices in (("accelerator", ACCELERATORS), ("precision", PRECISIONS), ("progress", PROGRESS)):
            value = getattr(self, key)
            if value not in choices:
                raise ConfigError(f"trainer.{key} (={value}) must be one of {', '.join(choices)}")
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator (=cuda): torch sees no CUDA device here; take auto or cpu")
        if self.precision == "16-mixed" and self.resolved_accelerator == "cpu":
            raise ConfigError(
                "trainer.precision (=16-mixed) needs a CUDA device; on the cpu take 32-true or bf16-mixed"
            )
        if not 1 <= self.devices <= 64:
            raise ConfigError(f"trainer.devices (={self.devices}) must be in 1..64")
        if self.resolved_accelerator == "cuda" and self.devices > max(1, torch.cuda.device_count()):
            raise ConfigError(f"trainer.devices (={self.devices}): torch sees {torch.cuda.device_count()} CUDA devices")
        if self.chunk is not None and not 1 <= self.chunk <= 10_000:
            raise ConfigError(f"trainer.chunk (={self.chunk}) must be in 1..10,000 steps, or null")
        if (self.chunk or 1) > 1 and self.devices > 1:
            raise ConfigError(f"trainer.chunk (={self.chunk}) must be 1 on several devices")
        if self.profile is not None and not 1 <= self.profile <= 1000:
            raise ConfigError(f"trainer.profile (={self.profile}) must be in 1..1,000 steps, or null for no profile")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"trainer.patience (={self.patience}) must be at least 1 epoch, or null for none")
        if self.recalibration_images < 2:
            raise ConfigError(f"trainer.recalibration_images (={self.recalibration_images}) must be at least 2")

    @property
    def resolved_accelerator(self) -> str:
        if self.accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.accelerator

    @property
    def resolved_precision(self) -> str:
        if self.precision == "auto":
            return "16-mixed" if self.resolved_accelerator == "cuda" else "32-true"
        return self.precision

    @property
    def device(self) -> torch.device:
        return torch.device(self.resolved_accelerator)


TRAINERS: dict[str, TrainerOptions] = {
    options.name: options for options in (TrainerOptions("auto"), TrainerOptions("cpu", accelerator="cpu"))
}

ENGINES = ("auto", "eager", "compile", "graph")
