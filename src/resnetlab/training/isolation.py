"""Restores process-wide state after a run: folder, generators, threads, precision flags, warnings, loggers, signals."""

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

BACKENDS: Any = torch.backends
FLAGS = (  # (module, name): plain attributes that change what torch computes
    *((BACKENDS.cudnn, name) for name in ("benchmark", "deterministic", "enabled")),  # Lightning leaves benchmark set
    (BACKENDS, "fp32_precision"),  # the general ones first: setting them sets those below
    *((module, "fp32_precision") for module in (BACKENDS.cudnn, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)),
    *((module, "fp32_precision") for module in (BACKENDS.cuda.matmul, BACKENDS.mkldnn)),
    *((module, "fp32_precision") for module in (BACKENDS.mkldnn.conv, BACKENDS.mkldnn.matmul)),
)


@contextmanager
def preserve_process_state(threads: int | None = None) -> Iterator[None]:
    """Restores on exit what a run may change, so that the next run in the process is as if it were alone.

    threads: torch's CPU threads inside; None leaves them alone. Restored is what `process_state` lists.
    """
    if torch.cuda.device_count():
        torch.cuda.init()  # makes the GPUs' generators
    restore = [*process_state()]
    for generator in torch.cuda.default_generators:  # one of its own, from which the run's graphs will read
        generator.graphsafe_set_state(generator.clone_state())
    with warnings.catch_warnings():
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            apply(restore)


def apply(calls: Iterable[tuple[Any, ...]]) -> None:
    """Makes the calls, each a function and its arguments."""
    for function, *arguments in calls:
        function(*arguments)


def process_state() -> Iterator[tuple[Any, ...]]:
    """Calls that bring back generators, warnings, torch's settings, loggers, signal handlers and folder as now."""
    yield random.setstate, random.getstate()
    yield np.random.set_state, np.random.get_state()
    yield torch.set_rng_state, torch.get_rng_state()
    for generator in torch.cuda.default_generators:  # as the object that it is, not by its value
        yield generator.graphsafe_set_state, generator.graphsafe_get_state()
    yield setattr, warnings, "filters", list(warnings.filters)
    yield setattr, warnings, "showwarning", warnings.showwarning
    yield torch.set_num_threads, torch.get_num_threads()
    with suppress(RuntimeError):  # torch refuses where a flag below was set; then the flags are enough
        yield torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()
        yield setattr, BACKENDS.cudnn, "allow_tf32", BACKENDS.cudnn.allow_tf32
    for module, name in FLAGS:
        yield setattr, module, name, getattr(module, name)
    yield torch.set_default_dtype, torch.get_default_dtype()
    yield torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()
    yield torch.set_grad_enabled, torch.is_grad_enabled()
    yield torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled()
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for logger in (logging.root, *named):
        yield setattr, logger, "level", logger.level  # logging.disable, below, clears what setLevel would
        yield setattr, logger, "handlers", list(logger.handlers)
        yield setattr, logger, "disabled", logger.disabled
    yield logging.disable, logging.root.manager.disable
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None and threading.current_thread() is threading.main_thread():  # which alone may set them
            yield signal.signal, number, handler
    yield os.chdir, os.getcwd()  # last, because the folder may have been removed meanwhile
