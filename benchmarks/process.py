"""Start the peers' processes, and give them turns."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.options import Options, Setting
from benchmarks.peers.protocol import PeerSpec
from resnetlab.sweeps.process_setup import import_path

ROOT = Path(__file__).parents[1]
EPOCH_STEPS = 8  # of the lab's epoch on the cpu, so that its end is seen
GRAIN = {"cpu": 1, "cuda": 20}  # steps of the lab, then as many of the bare loop: a GPU must be kept busy


class PeerFailed(Exception):
    """A peer that ended, or gave no answer in time; the reason in one line."""


class PeerProcess(AbstractContextManager["PeerProcess"]):
    """Starts the command in an empty folder and a process group of its own; names: the rows that it will give.

    When the bench is gone, a peer reads the end of its stdin, and ends with its folder.
    """

    def __init__(self, names: Sequence[str], command: Sequence[str], env: Mapping[str, str] = os.environ) -> None:
        self.names = tuple(names)
        self.folder = tempfile.TemporaryDirectory(prefix="resnetlab-bench-", ignore_cleanup_errors=True)
        self.errors = Path(self.folder.name) / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
                cwd=self.folder.name,
                env={**env, "RESNETLAB_BENCH_FOLDER": self.folder.name},
                process_group=0,
            )
        self.answers: queue.Queue[str] = queue.Queue()  # "" at the end
        self.reader = threading.Thread(target=self.read_all, daemon=True)
        self.reader.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the peer and its children at once: they have nothing to save."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(5.0)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self.folder.cleanup()

    def read_all(self) -> None:
        for line in self.process.stdout or ():
            self.answers.put(line)
        self.answers.put("")

    def turn(self, timeout: float, **order: float) -> dict[str, Any]:
        """Give one turn, and return the answer. Raises PeerFailed."""
        self.order(**order)
        return self.read(timeout)

    def order(self, **order: float) -> None:
        """Give an order without waiting for the answer. Raises PeerFailed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
        except BrokenPipeError:
            raise PeerFailed(self.reason()) from None

    def read(self, timeout: float) -> dict[str, Any]:
        """The next answer, within so many seconds. Raises PeerFailed."""
        try:
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise PeerFailed(f"no answer within {timeout:.0f} s") from None
        if not line:
            raise PeerFailed(self.reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def reason(self) -> str:
        """The last line that it has printed."""
        lines = [line.strip() for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it ended without a word"


def start_peers(options: Options, setting: Setting, names: Sequence[str]) -> list[PeerProcess]:
    """A process for each name, all started at once; bare lives with lab_eager, to take turns step by step."""
    spec = spec_for(options, setting)
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in names if name != "bare"}
    groups |= {"lab_eager": ("bare", "lab_eager")} if "bare" in names else {}
    return [start_peer(replace(spec, names=group), options.keras_python) for group in groups.values()]


def start_peer(
    spec: PeerSpec, keras_python: str | None = None, threads: int | None = None, module: str | None = None
) -> PeerProcess:
    """threads: of the process, where several run at once. module: of benchmarks.peers, where no name tells it."""
    first = spec.names[0]
    module = module or ("lab" if first == "bare" or first.startswith("lab_") else first)
    env, python = {**os.environ, "PYTHONPATH": import_path()}, sys.executable
    if module == "keras":  # in another interpreter, which is not to see our packages
        env |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
        env.pop("PYTHONHOME", None)
        python = keras_python or sys.executable
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    return PeerProcess(spec.names, [python, "-m", f"benchmarks.peers.{module}", spec.to_json()], env)


def spec_for(options: Options, setting: Setting) -> PeerSpec:
    config = options.config
    return PeerSpec(
        names=(),
        model=options.model,
        batch_size=setting.batch_size,
        precision=setting.precision,
        device=options.device,
        root=cifar_root(options),
        images=options.images,
        lr=config.lr,
        wd=config.wd or 0.0,
        shift=config.shift,
        depth=getattr(config.model, "depth", None),
        workers=options.workers,
        grain=GRAIN[options.device],
        epoch_steps=EPOCH_STEPS if options.device == "cpu" else None,
    )


def cifar_root(options: Options) -> str | None:
    """The folder that has CIFAR-10, or None: nothing is downloaded for a measurement."""
    root = Path(options.config.data.root).expanduser().absolute()
    return str(root) if (root / "cifar-10-batches-py" / "data_batch_1").is_file() else None
