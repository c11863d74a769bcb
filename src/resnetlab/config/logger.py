"""The logger group: to which trackers the rows of metrics.csv are sent as well. None of it belongs to the recipe."""

from dataclasses import dataclass, field
from importlib.util import find_spec

from resnetlab.errors import ConfigError, check_limits, require

NAMES = ("tensorboard", "csv", "wandb", "mlflow", "trackio")  # the last three: packages, and extras of those names


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
            require(name in NAMES, "logger.use", name, f"be of {', '.join(NAMES)}")
            if name in NAMES[2:] and find_spec(name) is None:
                raise ConfigError(f"logger={name} needs a package that is not here: pip install 'resnetlab[{name}]'")
        check_limits("logger", self)

    @property
    def chosen(self) -> list[str]:
        return [name for name, used in self.use.items() if used]


LOGGERS = {name: LoggerOptions(name, {name: True}) for name in NAMES} | {"none": LoggerOptions("none")}
