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

from resnetlab.config.schema import Config
from resnetlab.console import print_stderr
from resnetlab.errors import first_line
from resnetlab.runs.files import read_json, write_json
from resnetlab.runs.layout import LOGGER_RUNS, run_key
from resnetlab.runs.summary import Row, Summary
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.callbacks.tensorboard import final_metrics, hyperparameters, scalars

METHODS = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")
# MLflow (3.17) would try 7 times for 120 s each
VARIABLES = {"WANDB_SILENT": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


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


class Attempts:
    """Calls of loggers. The first error of a logger is printed; its later calls do nothing."""

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
        """The function's result; None if it throws, or the logger has thrown before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
        self.behind = False  # whether it begins with rows of a trunk, which have been sent to none

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        again = trainer.loggers if self.behind else [self.made[name] for name in {"csv"} & {*self.made}]  # resumed
        self.send(self.recorder.rows, again)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.send(self.recorder.rows[-1:], trainer.loggers)

    def send(self, rows: Sequence[Row], loggers: Sequence[Logger]) -> None:
        for row, logger in product(rows, loggers):
            logger.log_metrics(scalars(row) if isinstance(logger, TensorBoardLogger) else row, step=int(row["epoch"]))

    def finish(self, trainer: L.Trainer, summary: Summary) -> None:
        """Sends the summary's numbers; to TensorBoard its pages do."""
        self.setup(trainer)  # of a run whose last epoch was trained before
        for name in {*self.made} - {"tensorboard", "csv"}:
            self.made[name].log_metrics(final_metrics(summary), step=summary["epochs_trained"])

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
        return TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
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
