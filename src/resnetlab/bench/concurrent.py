"""What several runs at once cost: n processes of the lab's own step, and the images a second of all together."""

import os
import time
from contextlib import ExitStack
from typing import Any

from resnetlab.bench.cast import spec_for, start_lab
from resnetlab.bench.options import Options, Setting
from resnetlab.bench.peer import Peer, PeerFailed

__all__ = ["run_together", "together_row"]

IMAGES = 50_000  # an epoch of CIFAR-10


def run_together(options: Options, setting: Setting, count: int, name: str, patience: float) -> dict[str, Any]:
    """One row: `count` processes, each with its share of the cores. Raises PeerFailed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spec, threads = spec_for(options, setting), max(1, cores // count)
    end = time.monotonic() + patience
    with ExitStack() as stack:
        peers = [stack.enter_context(start_lab(spec, [name], threads)) for _ in range(count)]

        def all_do(**order: float) -> list[dict[str, Any]]:
            for peer in peers:
                peer.order(**order)
            return hear_all(peers, end)

        hear_all(peers, end)
        all_do(steps=1)
        all_do(seconds=options.seconds / 2)
        answers = all_do(seconds=2 * options.seconds)
    grains = [[grain for part in answer["grains"].values() for grain in part] for answer in answers]
    peaks = [peak for answer in answers for peak in answer["peak_mib"].values()]
    return together_row(name, setting, threads, grains) | {"peak_mib": sum(peaks)}


def hear_all(peers: list[Peer], end: float) -> list[dict[str, Any]]:
    if end < time.monotonic():
        raise PeerFailed("the budget was spent")
    return [peer.hear(max(1.0, end - time.monotonic())) for peer in peers]


def together_row(name: str, setting: Setting, threads: int, grains: list[list[list[float]]]) -> dict[str, Any]:
    """grains: of each process. All ran for about as long, so their rates add up."""
    rates = [sum(images for images, _ in part) / sum(seconds for _, seconds in part) for part in grains]
    return {
        "name": name,
        "batch_size": setting.batch_size,
        "precision": setting.precision,
        "runs": len(grains),
        "threads": threads,
        "images_per_second": sum(rates),
        "images_per_second_each": rates,
        "machine_seconds_per_epoch": IMAGES / sum(rates),
    }
