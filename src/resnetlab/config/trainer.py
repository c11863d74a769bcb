"""The groups trainer (device, precision, Lightning's settings) and logger (trackers), no part of a recipe."""

from dataclasses import dataclass, field
from importlib.util import find_spec

import torch

from resnetlab.errors import ConfigError, check_limits, require

TRACKERS = ("tensorboard", "csv", "wandb", "mlflow", "trackio")  # the last three: packages, and extras of those names


@dataclass
class TrainerOptions:
    """Where and how a run computes; none of it belongs to the recipe."""

    name: str = "auto"
    accelerator: str = "auto"  # cpu | cuda | mps (of Apple) | auto: cuda where there is one
    devices: int = 1  # devices of one machine, a process each; batch_size is the batch of all together
    # 32-true | 16-mixed | bf16-mixed | auto: 16-mixed on cuda (Keras' mixed_float16), 32-true on the cpu
    precision: str = "auto"
    tf32: bool | None = None  # TF32 on a GPU for float32 products; null: torch's own, in convolutions, not in matrices
    channels_last: bool = True  # weights and images in memory as N H W C, which is faster
    compile: bool = False  # what engine=graph or auto records, through torch.compile first: fused kernels in the graph
    # steps per batch of Lightning's, whose cost is paid once a batch; null: 1, or 50 with engine=graph
    chunk: int | None = None
    profile: int | None = None  # steps of the first epoch to record in profile/trace.json.gz; null: off
    gradient_clip: float | None = None  # largest norm of a step's whole gradient, which is scaled down to it; null: off
    # a step's gradient in so many parts, one after the other, in the memory of one part; batch_size is that of all
    accumulate: int = 1
    patience: int | None = None  # early stopping: epochs without a new best val/acc; null: off
    recalibration_images: int = 6400  # training images for the batch norm of recalibrate_bn and of averages
    progress: str = "auto"  # bar | lines | off | auto: a bar on a terminal, lines elsewhere

    def check(self) -> None:
        """Raises ConfigError, naming the key, the value and what it may be."""
        check_limits("trainer", vars(self))
        for kind, backend in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
            there = self.accelerator != kind or backend.is_available()
            require(there, "trainer.accelerator", kind, f"be auto or cpu: torch sees no {kind.upper()} device here")
        if self.precision == "16-mixed" and self.resolved_accelerator != "cuda":
            raise ConfigError("trainer.precision (=16-mixed) needs a CUDA device; elsewhere take 32-true or bf16-mixed")
        parts_ok = self.accumulate == 1 or (1 < self.accumulate <= 1000 and self.devices == 1)
        must = "be in 1..1,000, and 1 on several devices, which have parts of their own"
        require(parts_ok, "trainer.accumulate", self.accumulate, must)
        most = 1 if self.accelerator == "mps" else 64
        require(1 <= self.devices <= most, "trainer.devices", self.devices, f"be in 1..{most}")
        if self.resolved_accelerator == "cuda" and self.devices > max(1, torch.cuda.device_count()):
            raise ConfigError(f"trainer.devices (={self.devices}): torch sees {torch.cuda.device_count()} CUDA devices")
        require(self.chunk in (None, 1) or self.devices == 1, "trainer.chunk", self.chunk, "be 1 on several devices")

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


TRAINERS = {"auto": TrainerOptions("auto"), "cpu": TrainerOptions("cpu", accelerator="cpu")}


@dataclass
class LoggerOptions:
    """Loggers of a run, besides its own files. What one of them throws is a note, and the run goes on without it."""

    name: str = "tensorboard"
    use: dict[str, bool] = field(default_factory=dict)  # those in use; logger=[csv,mlflow] takes several at once
    project: str = "resnetlab"  # of wandb and trackio; the experiment of mlflow
    offline: bool = False  # of wandb: into the run's folder, without an account; `wandb sync` sends it later
    uri: str | None = None  # of mlflow's tracking server; null: that of MLFLOW_TRACKING_URI, or mlflow's own default
    every: int | None = None  # of tensorboard: also the mean loss and the lr of every so many steps; null: off

    def check(self) -> None:
        """Raises ConfigError for an unknown logger, one whose package is missing, and values that make no sense."""
        for name in self.chosen:
            require(name in TRACKERS, "logger.use", name, f"be of {', '.join(TRACKERS)}")
            if name in TRACKERS[2:] and find_spec(name) is None:
                raise ConfigError(f"logger={name} needs a package that is not here: pip install 'resnetlab[{name}]'")
        check_limits("logger", vars(self))

    @property
    def chosen(self) -> list[str]:
        return [name for name, used in self.use.items() if used]


LOGGERS = {name: LoggerOptions(name, {name: True}) for name in TRACKERS} | {"none": LoggerOptions("none")}
