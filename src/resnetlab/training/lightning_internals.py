"""Lightning's internals that a run depends on, each in one function: checked with Lightning 2.6.6, tested for each."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

CHATTY = ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.distributed")
INTERRUPTIONS = (KeyboardInterrupt, SystemExit)  # of a signal; SIGTERMException is a SystemExit


def advance_global_step(trainer: L.Trainer, steps: int) -> None:
    """Adds optimizer steps that Lightning did not see to its global_step, which else stays 0 in manual optimization."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += steps
        tracker.completed += steps


def gradient_scaler(trainer: L.Trainer) -> Any:
    """The torch.amp.GradScaler of 16-mixed on a GPU; None in other precisions."""
    return getattr(trainer.precision_plugin, "scaler", None)


@contextmanager
def python_interrupts() -> Iterator[None]:
    """Around fit: SIGINT ends it with KeyboardInterrupt and SIGTERM with exit status 143, as without Lightning.

    Lightning answers SIGINT with SystemExit(1) and ignores the next one; its SIGTERMException has exit status 0. Other
    SystemExits pass: those of signal handlers, such as submitit's.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None


def exit_at_sigterm() -> None:
    """Replaces Lightning's SIGTERM handler, which waits for the other processes of a run in a broadcast."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Hides Lightning's advertisements, and torch 2.15's warning about a class that Lightning 2.6.6 uses inside."""
    with warnings.catch_warnings(), ExitStack() as levels:
        for logger in (logging.getLogger(f"lightning.{name}") for name in CHATTY):
            levels.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", message=r"GPU available but not used")  # by trainer.accelerator=cpu
        warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
        yield
