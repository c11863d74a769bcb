"""A peer's process, as the bench sees it: it runs in its own turns only."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import resnetlab
from resnetlab import bench_peers
from resnetlab.bench.guard import guard

__all__ = ["Peer", "PeerFailed", "module_command", "script"]

SOURCES = Path(resnetlab.__file__).parents[1]


class PeerFailed(Exception):
    """A peer that ended, or gave no answer in time; the reason in one line."""


class Peer:
    """Starts the command in an empty folder and a process group of its own; names: the rows that it will give.

    Between turns the whole group is stopped. A guard ends it when the bench is gone.
    """

    def __init__(self, names: Sequence[str], command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.names = tuple(names)
        self.folder = tempfile.TemporaryDirectory(prefix="resnetlab-bench-", ignore_cleanup_errors=True)
        self.errors = Path(self.folder.name) / "stderr"
        self.pending = b""
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                list(command),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.folder.name,
                env=None if env is None else dict(env),
                process_group=0,
            )
        self.guard = guard(self.process.pid, self.folder.name)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ends the peer and its children at once: they have nothing to save."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        with self.guard:  # closes its pipe, and waits for it
            self.guard.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.folder.cleanup()

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def turn(self, patience: float, **order: float) -> dict[str, Any]:
        """One turn, and the answer; the others are to be stopped. Raises PeerFailed."""
        self.order(**order)
        answer = self.hear(patience)
        self.stop()
        return answer

    def stop(self) -> None:
        """Until the next order, neither it nor its children run."""
        self.signal(signal.SIGSTOP)

    def order(self, **order: float) -> None:
        """Lets it go, without waiting for the answer."""
        self.signal(signal.SIGCONT)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise PeerFailed(self.reason()) from None

    def hear(self, patience: float) -> dict[str, Any]:
        """The next answer, within so many seconds. Raises PeerFailed."""
        assert self.process.stdout is not None
        end = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.pending:
                ended = self.process.poll() is not None  # its children may hold the pipe open
                if not selector.select(0.0 if ended else max(0.0, min(0.5, end - time.monotonic()))):
                    if ended:
                        raise PeerFailed(self.reason())
                    if time.monotonic() >= end:
                        raise PeerFailed(f"no answer within {patience:.0f} s")
                    continue
                read = os.read(self.process.stdout.fileno(), 65_536)
                if not read:
                    raise PeerFailed(self.reason())
                self.pending += read
        line, _, self.pending = self.pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def reason(self) -> str:
        """The last line that it has complained in."""
        lines = [line.strip() for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it ended without a word"


def module_command(name: str, line: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment for a peer of ours, from any folder."""
    path = os.pathsep.join([str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", f"resnetlab.bench_peers.{name}", line], {**os.environ, "PYTHONPATH": path}


def script(python: str, name: str, line: str) -> tuple[list[str], dict[str, str]]:
    """The same for one that another interpreter runs, which is not to see our packages."""
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return [python, str(Path(bench_peers.__file__).parent / f"{name}.py"), line], {**plain, "TF_CPP_MIN_LOG_LEVEL": "2"}
