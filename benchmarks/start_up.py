"""How long a user waits: from the command to the first step, and to the first epoch's row."""

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE
from typing import Any

import torch

from resnetlab.bench.command import slug
from resnetlab.bench.guard import guard
from resnetlab.bench.options import writable
from resnetlab.bench.peer import SOURCES
from resnetlab.bench.table import table
from resnetlab.config import compose
from resnetlab.errors import ConfigError, LabError
from resnetlab.files import read_rows, write_json
from resnetlab.manifest import processor
from resnetlab.speech import Countdown, speak

__all__ = ["start_up"]

COMMAND = "import sys; from resnetlab.front_door import main; sys.exit(main(sys.argv[1:]))"
RUN = ("data=digits", "data.limit=256", "schedule=constant", "epochs=1", "trainer.progress=off")  # 4 steps
FIRST = "compile, empty cache"
MOST_SECONDS = 1200.0  # of a start


def start_up(model: str, starts: int, out: Path | None) -> dict[str, Any]:
    """Starts a short run so often in each engine, by turns; prints the medians, and returns what it writes as JSON.

    torch.compile's first start, in an empty cache, is a row of its own. Raises ConfigError for a wrong number, and
    LabError where a run fails.
    """
    if not 1 <= starts <= 1000:
        raise ConfigError(f"--start-up (={starts}) must be in 1..1000")
    compose(f"model={model}")  # refuses a name that it does not know
    if out is not None:
        writable(out)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    engines = ("eager", "compile", "graph") if torch.cuda.is_available() else ("eager", "compile")
    names = [FIRST, *engines * starts]
    waits: dict[str, list[tuple[float, float]]] = {}
    countdown = Countdown("start", len(names))
    with tempfile.TemporaryDirectory(prefix="resnetlab-caches-") as caches:
        for name in names:
            waits.setdefault(name, []).append(wait(model, name.partition(",")[0], caches))
            countdown.tick()
    content = {
        "machine": {"device": device, "cores": os.cpu_count(), "python": platform.python_version()}
        | {package: version(package) for package in ("torch", "lightning")},
        "model": model,
        "overrides": RUN,
        "rows": [row(name, of) for name, of in waits.items()],
    }
    out = out or Path("results/bench") / slug(device) / "start_up.json"
    write_json(out, content)
    speak(f"{model}, {device}, torch {version('torch')}: seconds from the command, median (least to most)")
    lines = [cells(row(name, of)) for name, of in waits.items()]
    speak(table([("", "to the first step", "to the first row", "n"), *lines]))
    speak(str(out))
    return content


def wait(model: str, engine: str, caches: str) -> tuple[float, float]:
    """Seconds until (the first step began, the first epoch's row was written)."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "TORCHINDUCTOR_CACHE_DIR": caches}
    command = [sys.executable, "-c", COMMAND, f"model={model}", f"engine={engine}", *RUN]
    with tempfile.TemporaryDirectory(dir=caches) as folder:
        begun = time.time()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True, process_group=0
        )
        watch = guard(process.pid, caches)
        try:
            _, errors = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError(f"engine={engine}: no row within {MOST_SECONDS:.0f} s") from None
        finally:
            with watch:
                watch.kill()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        found = list(Path(folder).rglob("metrics.csv"))
        if process.returncode or len(found) != 1:
            raise LabError(f"engine={engine}: {(errors.strip().splitlines() or ['no row, and no word'])[-1]}")
        written = found[0].stat().st_mtime - begun
        (epoch,) = read_rows(found[0])
        return written - epoch["time/epoch"], written


def row(name: str, waits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {"name": name, "to_first_step": [step for step, _ in waits], "to_first_row": [end for _, end in waits]}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = (row["to_first_step"], row["to_first_row"])
    spread = [f"{statistics.median(of):.1f} ({min(of):.1f} to {max(of):.1f})" for of in figures]
    return (row["name"], *spread, f"{len(row['to_first_row'])}")
