"""Process-wide state after a run: what happens inside stays inside."""

import logging
import os
import random
import signal
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch

from resnetlab.training.isolation import preserve_process_state


def mischief() -> None:
    """What a careless library may do to a process."""
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    torch.backends.cudnn.benchmark = True
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")


def state() -> list[object]:
    """What mischief changes."""
    return [
        *(torch.initial_seed(), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        *(torch.get_float32_matmul_precision(), torch.backends.mkldnn.conv.fp32_precision),
        *(torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled(), list(warnings.filters)),
        *(np.random.get_state()[1].tolist(), random.getstate(), logging.getLogger("lightning").level),
        *(list(logging.getLogger().handlers), logging.root.manager.disable, signal.getsignal(signal.SIGINT)),
        os.getcwd(),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_what_happens_inside_stays_inside(fails: bool) -> None:
    with preserve_process_state():
        torch.backends.cudnn.benchmark = False  # a Trainer of another test has turned it on
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has turned it off
        before = state()
        with preserve_process_state(threads=2):
            assert torch.get_num_threads() == 2
        with suppress(KeyError), preserve_process_state():
            mischief()
            inside = state()
            if fails:
                raise KeyError
        assert all(a != b for a, b in zip(before, inside, strict=True))
        assert state() == before


@pytest.mark.filterwarnings("ignore:.*TF32 behavior")
def test_a_precision_of_torchs_new_flags_is_kept() -> None:
    """torch.get_float32_matmul_precision() refuses to answer then."""
    with preserve_process_state():
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with preserve_process_state():
            torch.backends.cuda.matmul.fp32_precision = "ieee"
            torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.get_float32_matmul_precision() == "highest"
