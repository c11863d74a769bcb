"""The measurement from end to end: the machine, every setting, several runs at once; written as it comes."""

import os
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.options import CORES, Options
from benchmarks.plots import draw
from benchmarks.process import PeerFailed, PeerProcess, cifar_root, spec_for, start_peer, start_peers
from benchmarks.rounds import Measurements, measure
from benchmarks.rows import comparisons, rows, together_row
from benchmarks.table import show
from resnetlab.console import say
from resnetlab.errors import LabError
from resnetlab.runs.files import write_json

START_SECONDS = 15.0  # to start a few processes of the lab
WARM_UP, WINDOWS = 0.5, 3  # turns of several at once


class Budget:
    """Counts from now on. total: seconds for everything; reserve: of these, for several runs at once."""

    def __init__(self, total: float, reserve: float = 0.0) -> None:
        self.total, self.reserve, self.start = total, reserve, time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.total - self.elapsed

    def share(self, number: int, of: int) -> float:
        """Seconds for part `number` (from 0) of what is left: the first has twice as much as each of the others."""
        left = max(0.0, self.left - self.reserve)
        return 2 * left / (of + 1) if number == 0 else left / (of - number)

    def report(self, what: str) -> None:
        elapsed, left = (timedelta(seconds=max(0, round(value))) for value in (self.elapsed, self.left))
        say(f"[{elapsed}, at most {left} left] {what}")


def bench(options: Options) -> dict[str, Any]:
    """Measure, print the tables, write the JSON and the plots, and return what is in the JSON.

    Raises LabError where nothing could be measured.
    """
    budget = Budget(options.budget, seconds_together(options) * len(options.counts))
    budget.report("measuring the machine's copy and matmul rates")
    content = machine(options, budget)
    out = options.out or Path("results/bench") / slug(content["machine"]["device"]) / "bench.json"
    try:
        least = 0.0  # the first setting is tried whatever the budget
        for number, setting in enumerate(options.settings):
            if number and budget.left - budget.reserve <= least:
                content["left_out"].append(vars(setting) | {"name": "all", "reason": "the budget was spent"})
            else:
                least = measure_setting(options, number, content, budget, out)
        for count in options.counts:
            measure_together(options, count, content, budget)
            write_json(out, content)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; what was measured until then is in {out}") from None
    if content["rows"]:
        content["seconds"] = budget.elapsed
    write_json(out, content)
    if not content["rows"]:
        reasons = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in content["left_out"])
        raise LabError(f"nothing was measured: {reasons}")
    show(content, options.settings)
    for path in (out, *draw(content, out)):
        say(str(path))
    return content


def machine(options: Options, budget: Budget) -> dict[str, Any]:
    """The file's head: what the machine is, and what it can do. Raises LabError."""
    precisions = tuple(dict.fromkeys(setting.precision for setting in options.settings))
    spec = spec_for(options, options.settings[0])
    try:
        with start_peer(replace(spec, names=precisions), module="machine") as peer:
            answer = peer.read(max(60.0, budget.left))
    except PeerFailed as error:
        raise LabError(f"the machine's rates could not be measured: {error}") from None
    return {
        "machine": answer["machine"],
        "model": options.model,
        "data": "CIFAR-10" if cifar_root(options) else "noise of CIFAR-10's shape",
        "data_loader_workers": options.workers,
        "rows": [],
        "comparisons": [],
        "roofline": answer["roofline"],
        "concurrent": [],
        "left_out": [],
    }


def measure_setting(options: Options, number: int, content: dict[str, Any], budget: Budget, out: Path) -> float:
    """Add the rows of one setting; the seconds that it took for a start and one round."""
    setting = options.settings[number]
    names, why_not = options.expected(setting)
    roof = next((r for r in content["roofline"] if r["precision"] == setting.precision), None)
    end = time.monotonic() + budget.share(number, len(options.settings))
    where = f"batch {setting.batch_size} {setting.precision}"
    budget.report(f"{where}: starting {', '.join(names)}")

    def report(found: Measurements, what: str) -> None:
        budget.report(f"{where}: {what}")
        if found.rounds:
            write_json(out, content | {"rows": content["rows"] + rows(found, setting, roof)})

    found = measure(start_peers(options, setting, names), options.rounds, options.turn_seconds, end, report)
    why_not |= {n: found.failed.get(n, "the budget was spent") for n in names if not found.turns.get(n)}
    content["left_out"] += [{"name": n, "reason": why} | vars(setting) for n, why in why_not.items()]
    content["comparisons"] += comparisons(found, setting)
    content["rows"] += rows(found, setting, roof)
    return found.least


def seconds_together(options: Options) -> float:
    """What one row of processes at once is expected to take."""
    return START_SECONDS + (WARM_UP + WINDOWS) * options.turn_seconds


def measure_together(options: Options, count: int, content: dict[str, Any], budget: Budget) -> None:
    """Add the row of `count` processes at once, at the first setting, in the engine that a run would have."""
    budget.report(f"{count} at once")
    try:
        if budget.left < seconds_together(options):
            raise PeerFailed("the budget was spent")
        content["concurrent"].append(run_together(options, count, budget))
    except PeerFailed as error:
        entry = {"name": f"{count} at once", "reason": str(error)}
        content["left_out"].append(entry | vars(options.settings[0]))


def run_together(options: Options, count: int, budget: Budget) -> dict[str, Any]:
    """One row: `count` processes, each with its share of the cores, started once. Raises PeerFailed."""
    setting, name = options.settings[0], "lab_graph" if options.device == "cuda" else "lab_eager"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() else max(1, CORES // count)
    spec = replace(spec_for(options, setting), names=(name,))

    def answers(peers: list[PeerProcess], **order: float) -> list[dict[str, Any]]:
        for peer in peers if order else ():
            peer.order(**order)
        if budget.left < 0:
            raise PeerFailed("the budget was spent")
        return [peer.read(max(1.0, budget.left)) for peer in peers]

    with ExitStack() as stack:
        peers = [stack.enter_context(start_peer(spec, threads=threads)) for _ in range(count)]
        answers(peers)
        answers(peers, steps=1)
        answers(peers, seconds=WARM_UP * options.turn_seconds)
        windows = [answers(peers, seconds=options.turn_seconds) for _ in range(WINDOWS)]
    grains = [[answer["grains"][name] for answer in window] for window in windows]
    peaks = [answer["peak_mib"][name] for answer in windows[-1]]
    return together_row(name, setting, threads, grains) | {"peak_mib": sum(peaks)}


def slug(device: str) -> str:
    """A folder's name: "NVIDIA H200" -> "nvidia-h200"."""
    plain = re.sub(r"\((r|tm)\)|@.*", "", device.lower())
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-") or "machine"
