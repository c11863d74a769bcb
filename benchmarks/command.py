"""The measurement from end to end: the machine, every setting, several runs at once; written as it comes."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetlab.bench.cast import data_root, expected, not_asked, spec_for, start
from resnetlab.bench.clock import Clock
from resnetlab.bench.concurrent import run_together, seconds_for
from resnetlab.bench.options import Options, Setting
from resnetlab.bench.peer import Peer, PeerFailed, module_command
from resnetlab.bench.plots import draw
from resnetlab.bench.roofline import ceiling, work_of
from resnetlab.bench.rounds import Measured, measure
from resnetlab.bench.rows import comparisons, rows
from resnetlab.bench.table import show
from resnetlab.errors import LabError
from resnetlab.files import write_json
from resnetlab.speech import speak

__all__ = ["bench"]


def bench(options: Options) -> dict[str, Any]:
    """Measures, prints the tables, writes the JSON and the plots, and returns what is in the JSON.

    Raises ConfigError for wrong options, before anything is started, and LabError where nothing could be measured.
    """
    options.check()
    clock = Clock(options.budget)
    clock.say("measuring the machine's copy and matmul rates")
    content = machine(options, clock)
    out = options.out or Path("results/bench") / slug(content["machine"]["device"]) / "bench.json"
    try:
        least = 0.0  # the first setting is tried whatever the budget
        for number, setting in enumerate(options.settings):
            if number and clock.left - reserve(options) <= least:
                content["left_out"].append(vars(setting) | {"name": "all", "reason": "the budget was spent"})
                continue
            found, least = setting_rows(options, setting, content, clock, number, out)
            content["rows"] += found
        several_at_once(options, content, clock, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; what was measured until then is in {out}") from None
    if not content["rows"]:
        write_json(out, content)
        reasons = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in content["left_out"])
        raise LabError(f"nothing was measured: {reasons}")
    content["left_out"] += not_asked(options)
    content["seconds"] = clock.elapsed
    write_json(out, content)
    show(content, options.settings)
    for path in (out, *draw(content, out)):
        speak(str(path))
    return content


def machine(options: Options, clock: Clock) -> dict[str, Any]:
    """The file's head: what the machine is, and what it can do. Raises LabError."""
    precisions = tuple(dict.fromkeys(setting.precision for setting in options.settings))
    spec = replace(spec_for(options, options.settings[0]), names=precisions)
    try:
        with Peer(["machine"], *module_command("machine", spec.line())) as peer:
            rates = peer.hear(max(60.0, clock.left))
    except PeerFailed as error:
        raise LabError(f"the machine's rates could not be measured: {error}") from None
    work = work_of(options.config.model.build(10))
    root = data_root(options)
    return {
        "machine": rates["machine"],
        "model": options.model,
        "data": "CIFAR-10" if root else "noise of CIFAR-10's shape",
        "data_loader_workers": options.worker_count,
        "rows": [],
        "comparisons": [],
        "roofline": [
            ceiling(work, precision, rate, rates["copy_bytes_per_second"])
            for precision, rate in rates["matmul_flops_per_second"].items()
        ],
        "concurrent": [],
        "left_out": [],
    }


def setting_rows(
    options: Options, setting: Setting, content: dict[str, Any], clock: Clock, number: int, out: Path
) -> tuple[list[dict[str, Any]], float]:
    """(the rows of one setting, the seconds that it took for a start and one round)."""
    names, left_out = expected(options, setting)
    roof = next((r for r in content["roofline"] if r["precision"] == setting.precision), None)
    share = clock.share(number, len(options.settings), reserve=reserve(options))
    where = f"batch {setting.batch_size} {setting.precision}"
    clock.say(f"{where}: starting {', '.join(names)}")

    def tell(measured: Measured, what: str) -> None:
        clock.say(f"{where}: {what}")
        if measured.rounds:
            write_json(out, content | {"rows": content["rows"] + rows(measured, setting, roof)})

    end = time.monotonic() + share
    measured = measure(start(options, setting, names), options.rounds, options.turn_seconds, end, tell)
    for name in names:
        if not measured.turns.get(name):
            left_out[name] = measured.failed.get(name, "the budget was spent")
    content["left_out"] += [{"name": n, "reason": why} | vars(setting) for n, why in left_out.items()]
    content["comparisons"] += [entry | vars(setting) for entry in comparisons(measured)]
    return rows(measured, setting, roof), measured.least


def reserve(options: Options) -> float:
    """Seconds that the settings leave to several at once."""
    return seconds_for(options) * len(options.counts)


def several_at_once(options: Options, content: dict[str, Any], clock: Clock, out: Path) -> None:
    """Rows of n processes at once, at the first setting, in the engine that a run would have."""
    setting = options.settings[0]
    name = "lab_graph" if options.device == "cuda" else "lab_eager"
    for count in options.counts:
        clock.say(f"{count} at once")
        try:
            if clock.left < seconds_for(options):
                raise PeerFailed("the budget was spent")
            content["concurrent"].append(run_together(options, setting, count, name, clock.left))
        except PeerFailed as error:
            content["left_out"].append({"name": f"{count} at once", "reason": str(error)} | vars(setting))
        write_json(out, content)


def slug(device: str) -> str:
    """A folder's name: "NVIDIA H200" -> "nvidia-h200"."""
    plain = re.sub(r"\((r|tm)\)|@.*", "", device.lower())
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-") or "machine"
