"""Trackers that a run's rows are sent to: Lightning's loggers and trackio's. What they throw never costs a run."""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from resnetlab.config.schema import Config
from resnetlab.console import print_stderr
from resnetlab.errors import first_line
from resnetlab.runs.files import read_json, write_json
from resnetlab.runs.layout import LOGGER_RUNS, run_key
from resnetlab.runs.summary import CHOICES, SETTINGS, Row, Summary
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.module import ImageClassifier

METHODS = (
    *("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"),
    *("begin", "log_step", "log_summary"),  # TensorBoardPages'
)
# MLflow (3.17) would try 7 times for 120 s each
VARIABLES = {"WANDB_SILENT": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
GRID_IMAGES, MAGNIFY = 64, 2
LAYOUT = {name: ["Multiline", [f"{name}/train", f"{name}/val"]] for name in ("accuracy", "loss")}
CARDS = {  # TensorBoard orders its cards by the alphabet: accuracy, loss and lr come first, single points (result) last
    **{"acc": "accuracy", "loss": "loss", "ce": "loss", "acc5": "more"},
    **{"time": "process", "power": "process", "weight_norm": "parameters", "relative_update": "parameters"},
}


class TrackioLogger(Logger):
    """A run of trackio's (0.43), which has no id: a resumed run goes on under its name."""

    name = version = "trackio"

    def __init__(self, project: str, run: str, config: Mapping[str, Any]) -> None:
        import trackio

        super().__init__()
        self.experiment = trackio.init(project=project, name=run, config=dict(config))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics))

    def log_hyperparams(self, params: Any) -> None:
        """Nothing: trackio takes them at the start."""


class TensorBoardPages(TensorBoardLogger):
    """Lightning's logger, which also writes what TensorBoard shows beside the scalars."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.folder.path, name="", version="", default_hp_metric=False)
        self.config = config
        self.seen = (0, 0.0, 0.0)  # epoch, and the sums of loss and images, when the steps were last logged
        self.steps = 0

    def begin(self, trainer: L.Trainer, module: Any) -> None:
        """Writes the layout of the charts and, of a new run, its first batch and network."""
        self.steps = trainer.current_epoch * module.span.steps_per_epoch
        if self.config.logger.every:
            module.step_hooks.append(partial(self.log_step, module))
        self.experiment.add_custom_scalars({"training and validation": LAYOUT})
        if trainer.current_epoch == 0:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            pixels = next(data.batches(1, module.device))[0][:GRID_IMAGES]
            pixels = pixels * data.normalizer.std + data.normalizer.mean  # of that device by now
            grid = make_grid(pixels.clamp(0, 1).cpu(), nrow=8).repeat_interleave(MAGNIFY, 1)
            self.experiment.add_image("pictures/first batch, augmented", grid.repeat_interleave(MAGNIFY, 2), 0)
            self.experiment.add_text("model", f"```\n{module.model}\n```", 0)

    def log_step(self, module: ImageClassifier) -> None:
        """Every `logger.every` steps: their mean loss, within the epoch, and lr. It waits for the device."""
        self.steps += 1
        if self.steps % (self.config.logger.every or 1):
            return
        epoch, before = module.current_epoch + 1, self.seen
        loss, _, images, *_ = module.step.metrics.sums.tolist()
        _, past_loss, past_images = before if before[0] == epoch else (epoch, 0.0, 0.0)
        lr, _ = module.lr_momentum(self.steps - 1)
        mean = (loss - past_loss) / (images - past_images)
        self.log_metrics({"steps/loss": mean, "steps/lr": lr}, step=self.steps)
        self.seen = epoch, loss, images

    def log_summary(self, summary: Summary, make_figures: Callable[[], Mapping[str, Figure]]) -> None:
        """Writes the summary's numbers to the hparams tab, and the pictures of the validation.

        Without the list of columns that SummaryWriter.add_hparams writes too: TensorBoard (2.21) would take the first
        run's for all, and hide the keys that only others have.
        """
        writer = self.experiment
        for part in hparams(hyperparameters(self.config), {})[1:]:
            writer._get_file_writer().add_summary(part)
        for key, value in final_metrics(summary).items():
            writer.add_scalar(f"result/{key}", value, summary["epochs_trained"])
        for name, figure in make_figures().items():
            writer.add_figure(f"pictures/{name}, validation", figure, summary["epochs_trained"])
        writer.flush()


class Attempts:
    """Calls of loggers. The first error of a logger is printed; its later calls do nothing."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
        """The function's result; None if it throws, or the logger has thrown before."""
        with warnings.catch_warnings(action="ignore"):
            try:
                return None if name in self.broken else function(*arguments, **keys)
            except Exception as error:
                self.broken.add(name)
                reason = f"{type(error).__name__}: {first_line(error)}"
                print_stderr(f"note: logger={name} is left out from here on: {reason}")


class Loggers(L.Callback):
    """Opens the configured loggers when training begins, and sends them each epoch's row. sweep: the sweep's folder."""

    def __init__(self, config: Config, recorder: Recorder, sweep: Path | None = None) -> None:
        self.config, self.recorder, self.sweep = config, recorder, sweep
        self.made: dict[str, Any] = {}
        self.attempt = Attempts()
        self.behind = False  # whether its first rows are a trunk's, which no tracker has yet

    def setup(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Makes them, once, in the first process; Lightning calls them too, so each of their methods is guarded."""
        for name in self.config.logger.chosen if trainer.is_global_zero else ():
            if name not in self.made and (logger := self.attempt(name, self.make, name)) is not None:
                for method in filter(partial(hasattr, logger), METHODS):
                    setattr(logger, method, partial(self.attempt, name, getattr(logger, method)))
                self.made[name] = logger
                trainer.loggers = [*trainer.loggers, logger]

    def make(self, name: str) -> Any:
        """The logger, its run on the tracker begun, or gone on with if this run has been there before."""
        place = self.config.folder.path / LOGGER_RUNS
        known = read_json(place) if place.exists() else {}
        logger = make_logger(name, self.config, known.get(name), self.sweep)
        _ = logger.experiment
        if name not in ("tensorboard", "csv"):
            logger.log_hyperparams(hyperparameters(self.config))
            write_json(place, known | {name: logger.version})
        return logger

    def catch_up(self) -> None:
        """Sends all rows so far: to every logger if they are a trunk's, else to the csv file alone, made anew."""
        self.send(self.recorder.rows, [logger for name, logger in self.made.items() if self.behind or name == "csv"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.catch_up()
        if "tensorboard" in self.made:
            self.made["tensorboard"].begin(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.send(self.recorder.rows[-1:], trainer.loggers)

    def send(self, rows: Sequence[Row], loggers: Sequence[Logger]) -> None:
        for row, logger in product(rows, loggers):
            cards = {card(column): value for column, value in row.items() if column != "epoch"}  # their axis
            logger.log_metrics(cards if isinstance(logger, TensorBoardPages) else row, step=int(row["epoch"]))

    def finish(self, trainer: L.Trainer, summary: Summary, make_figures: Callable[[], Mapping[str, Figure]]) -> None:
        """Sends the summary's numbers, and to TensorBoard the figures."""
        if trainer.state.fn is None:  # a run whose last epoch was trained before
            self.setup(trainer)
            self.catch_up()
        for name in {*self.made} - {"tensorboard", "csv"}:
            self.made[name].log_metrics(final_metrics(summary), step=summary["epochs_trained"])
        if "tensorboard" in self.made:
            self.made["tensorboard"].log_summary(summary, make_figures)

    def close(self) -> None:
        """Ends the trackers' runs in this process, which would go on with them in its next run."""
        for name in {*self.made} & {"wandb", "trackio"}:
            with suppress(Exception):
                self.made[name].experiment.finish()


def make_logger(name: str, config: Config, known: str | None, sweep: Path | None) -> Any:
    """The logger of that name. known: the tracker's id of the run, where it has been there. sweep: its folder."""
    options, folder, key = config.logger, config.folder.path, run_key(config.folder.path)
    os.environ.update(VARIABLES | os.environ)
    if name == "tensorboard":
        return TensorBoardPages(config)
    if name == "csv":
        shutil.rmtree(folder / "csv", ignore_errors=True)  # Lightning (2.6.6) empties the file too, with a warning
        return CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=1)
    if name == "wandb":
        group = sweep.name if sweep else config.study
        return WandbLogger(key, folder, offline=options.offline, id=known, project=options.project, group=group)
    if name == "mlflow":
        parent = read_json(sweep / LOGGER_RUNS) if sweep and (sweep / LOGGER_RUNS).exists() else {}
        return mlflow_logger(config, key, parent, known)
    return TrackioLogger(options.project, key, hyperparameters(config))


def mlflow_logger(config: Config, name: str, tags: dict[str, str], known: str | None = None) -> MLFlowLogger:
    """Lightning's, with mlflow's own default for the server: that of Lightning (2.6.6) is a folder."""
    import mlflow

    uri = config.logger.uri or mlflow.get_tracking_uri()
    return MLFlowLogger(config.logger.project, name, uri, tags=tags, run_id=known)


def begin_sweep(config: Config, sweep: Path) -> Callable[[Mapping[str, float], bool], None]:
    """Begins a sweep's run on MLflow's server, the parent of its jobs'; returns what ends it: (metrics, failed)."""
    attempt = Attempts()
    logger: MLFlowLogger = attempt("mlflow", mlflow_logger, config, f"{config.study}/{sweep.name}", {})
    attempt("mlflow", lambda: write_json(sweep / LOGGER_RUNS, {"mlflow.parentRunId": logger.run_id}))

    def end(metrics: Mapping[str, float], failed: bool) -> None:
        attempt("mlflow", lambda: logger.log_metrics(metrics))
        attempt("mlflow", lambda: logger.finalize("failed" if failed else "success"))

    return end


def card(column: str) -> str:
    """TensorBoard's name of a column of metrics.csv: val/acc_recal becomes accuracy/val_recal."""
    part, _, rest = column.partition("/")
    metric, _, kind = rest.partition("_")
    if part in CARDS:
        return f"{CARDS[part]}/{rest or part}"
    if metric in CARDS:
        suffix = "_".join(filter(None, (metric if metric in ("acc5", "ce") else "", kind)))
        return f"{CARDS[metric]}/{part}_{suffix}".rstrip("_")
    return column


def final_metrics(summary: Summary) -> dict[str, float]:
    """The summary's numbers that trackers show; without those that are unknown."""
    keys = ("final_val_acc", "best_val_acc", "best_epoch", "final_val_ce", "final_train_ce")
    return {key: float(summary[key]) for key in keys if summary.get(key) is not None}


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """The options, the top-level values, and what else differs from the defaults; no None."""
    values = config.identity | {choice: getattr(config, choice).name for choice in CHOICES}
    values |= {key: getattr(config, key) for key in SETTINGS}
    return {key: value if isinstance(value, bool | int | float) else str(value) for key, value in values.items()}
