"""What several runs at once cost: n processes of the lab's own step, and the images a second of all together."""

import os
import statistics
import time
from contextlib import ExitStack
from typing import Any

from resnetlab.bench.cast import spec_for, start_lab
from resnetlab.bench.options import Options, Setting
from resnetlab.bench.peer import Peer, PeerFailed
from resnetlab.bench.rows import IMAGES, Grains, rate

__all__ = ["run_together", "seconds_for", "together_row"]

START_SECONDS = 15.0  # to start a few processes of the lab
WARM_UP, WINDOWS = 0.5, 3  # turns


def seconds_for(options: Options) -> float:
    """What one row is expected to take."""
    return START_SECONDS + (WARM_UP + WINDOWS) * options.turn_seconds


def run_together(options: Options, setting: Setting, count: int, name: str, patience: float) -> dict[str, Any]:
    """One row: `count` processes, each with its share of the cores, started once. Raises PeerFailed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    spec, threads = spec_for(options, setting), int(asked) if asked.isdecimal() else max(1, cores // count)
    end = time.monotonic() + patience
    with ExitStack() as stack:
        peers = [stack.enter_context(start_lab(spec, [name], threads)) for _ in range(count)]

        def all_do(**order: float) -> list[dict[str, Any]]:
            for peer in peers:
                peer.order(**order)
            return hear_all(peers, end)

        hear_all(peers, end)
        all_do(steps=1)
        all_do(seconds=WARM_UP * options.turn_seconds)
        windows = [all_do(seconds=options.turn_seconds) for _ in range(WINDOWS)]
    grains = [[answer["grains"][name] for answer in answers] for answers in windows]
    peaks = [answer["peak_mib"][name] for answer in windows[-1]]
    return together_row(name, setting, threads, grains) | {"peak_mib": sum(peaks)}


def hear_all(peers: list[Peer], end: float) -> list[dict[str, Any]]:
    if end < time.monotonic():
        raise PeerFailed("the budget was spent")
    return [peer.hear(max(1.0, end - time.monotonic())) for peer in peers]


def together_row(name: str, setting: Setting, threads: int, grains: list[list[Grains]]) -> dict[str, Any]:
    """grains: of each process in each window. All ran for about as long, so the rates of a window add up."""
    rates = [sum(map(rate, window)) for window in grains]
    median = statistics.median(rates)
    return {
        "name": name,
        "batch_size": setting.batch_size,
        "precision": setting.precision,
        "runs": len(grains[0]),
        "threads": threads,
        "images_per_second": median,
        "images_per_second_windows": rates,
        "machine_seconds_per_epoch": IMAGES / median,
    }
