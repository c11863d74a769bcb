"""The bench's processes: the protocol, that nothing stays behind, and that each trains what it says."""

import ast
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.peers.protocol import PeerSpec, resident_peak
from benchmarks.peers.torch_parts import peak_mib
from benchmarks.process import ROOT, PeerFailed, PeerProcess, start_peer
from benchmarks.rounds import measure
from resnetlab.sweeps.process_setup import import_path, sigterm_as_exit

PARAMETERS = 570_602  # of a ResNet20v2 by Atienza's code, batch-norm statistics not counted
RECIPE: dict[str, Any] = {"lr": 8e-4, "wd": 0.2, "shift": 0.07, "depth": 20}
SPEC = PeerSpec(("bare", "lab_eager"), "resnet20v2", 8, "32-true", "cpu", root=None, images=16, **RECIPE)
KERAS = os.environ.get("KERAS_PYTHON") or (sys.executable if find_spec("tensorflow") and find_spec("keras") else None)
TIMEOUT = 120.0

# answers every order with the steps in it, or 4; it has a child that is never idle
SMALL = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(json.dumps({"ready": True, "child": child.pid}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    time.sleep(order.get("sleep", 0))
    if "leaps" in order:
        print("some words", file=sys.stderr)
        raise SystemExit("no such order")
    reported = {"losses": {"small": 1}, "peak_mib": {"small": 2}, "between_epochs": []}
    print(json.dumps({"grains": {"small": [[order.get("steps", 4), 0.5]]}, **reported}), flush=True)
"""

# a bench that starts a peer with two DataLoader workers and waits
BENCH = f"""
import time
from benchmarks.peers.protocol import PeerSpec
from benchmarks.process import start_peer
with start_peer({replace(SPEC, names=("torch_loop",))!r}) as peer:
    peer.read(120)
    peer.turn(120, steps=3)
    print(peer.process.pid, peer.folder.name, flush=True)
    time.sleep(600)
"""


def small(program: str = SMALL) -> PeerProcess:
    return PeerProcess(["small"], [sys.executable, "-c", program])


@pytest.fixture
def started() -> Iterator[PeerProcess]:
    with small() as peer:
        peer.child = peer.read(TIMEOUT)["child"]  # type: ignore[attr-defined]
        yield peer


def state(pid: int) -> str:
    """The kernel's letter: R or S for a process that runs or waits; "" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split() if state(int(line)) not in ("", "Z")]


def gone(*pids: int) -> bool:
    """Whether all of them end within 20 s."""
    end = time.monotonic() + 20
    while (left := [pid for pid in pids if state(pid) not in ("", "Z")]) and time.monotonic() < end:
        time.sleep(0.02)
    return not left


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@linux
def test_a_peer_ends_with_its_children_and_its_folder(started: PeerProcess) -> None:
    child, pid = started.child, started.process.pid  # type: ignore[attr-defined]
    assert started.turn(TIMEOUT, steps=3)["grains"] == {"small": [[3, 0.5]]}
    started.order(sleep=60)
    assert state(child) == "R"
    started.end()
    assert gone(pid, child)
    assert not Path(started.folder.name).exists()


@linux
def test_a_killed_bench_leaves_nothing_behind() -> None:
    environment = os.environ | {"PYTHONPATH": import_path()}
    with subprocess.Popen([sys.executable, "-c", BENCH], stdout=subprocess.PIPE, text=True, env=environment) as bench:
        assert bench.stdout is not None
        pid, folder = bench.stdout.readline().split()
        workers = children(int(pid))
        bench.kill()
    assert len(workers) >= 2
    assert gone(int(pid), *workers)
    assert not Path(folder).exists()


def test_sigterm_ends_the_peers_on_the_way_out() -> None:
    before, peer = signal.getsignal(signal.SIGTERM), small()

    def bench() -> None:
        with sigterm_as_exit(), peer:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(TIMEOUT)

    with pytest.raises(SystemExit) as stop:
        bench()
    assert stop.value.code == 143
    assert peer.process.poll() is not None
    assert not Path(peer.folder.name).exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_images_are_those_of_the_files() -> None:
    """Five files of one image each, the red, green and blue plane one after the other, row by row."""
    Path("cifar-10-batches-py").mkdir()
    for number in range(1, 6):
        pixels = np.zeros((1, 3072), np.uint8)
        pixels[0, [0, 1024 + 1, 2048 + 32]] = number  # red at (0, 0), green at (0, 1), blue at (1, 0)
        with Path(f"cifar-10-batches-py/data_batch_{number}").open("wb") as file:
            pickle.dump({"data": pixels, "labels": [number]}, file)
    pixels, labels = replace(SPEC, root=".", batch_size=2, images=5).training_images()
    assert labels.tolist() == [1, 2, 3, 4]  # whole batches
    assert pixels.shape == (4, 32, 32, 3)
    assert all(pixels[at, 0, 0, 0] == pixels[at, 0, 1, 1] == pixels[at, 1, 0, 2] == at + 1 for at in range(4))
    assert pixels.sum() == 3 * (1 + 2 + 3 + 4)


@linux
def test_the_peak_is_the_peers_own() -> None:
    """One that needs some 50 MiB, of a parent that holds 500: Linux hands a process's ru_maxrss on to its children."""
    own = "from benchmarks.peers.protocol import resident_peak; print(resident_peak())"
    parent = f"import subprocess, sys; held = b'x' * 500 * 2**20; subprocess.run([sys.executable, '-c', {own!r}])"
    done = subprocess.run([sys.executable, "-c", parent], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 300
    assert peak_mib(torch.device("cpu")) == pytest.approx(resident_peak(), rel=0.01)


def test_a_peer_that_fails_says_why(started: PeerProcess) -> None:
    with pytest.raises(PeerFailed, match=r"no answer within 0 s"):
        started.turn(0.1, sleep=1)
    os.kill(started.child, signal.SIGKILL)  # type: ignore[attr-defined]
    started.read(TIMEOUT)
    with pytest.raises(PeerFailed, match=r"^no such order$"):
        started.turn(TIMEOUT, leaps=1)


def test_the_reason_outlives_a_peer_that_ends_by_itself() -> None:
    program = "from benchmarks.peers.protocol import JsonLines; pipe = JsonLines(); raise SystemExit('a word')"
    environment = os.environ | {"PYTHONPATH": import_path()}
    with PeerProcess(["small"], [sys.executable, "-c", program], environment) as peer:
        with pytest.raises(PeerFailed, match=r"^a word$"):
            peer.read(TIMEOUT)
        assert peer.process.wait(TIMEOUT) == 1
        assert peer.errors.exists()


def test_a_peer_that_fails_costs_its_own_rows_only() -> None:
    """The second one gets as far as its first word."""
    reported: list[str] = []
    other = PeerProcess(["bare"], [sys.executable, "-c", "print('{}', flush=True); raise SystemExit('a word')"])
    found = measure([small(), other], 3, 0.1, time.monotonic() + TIMEOUT, lambda found, what: reported.append(what))
    assert found.turns == {"small": [[[4, 0.5]]] * 3}
    assert found.failed == {"bare": "a word"}
    assert reported[-3:] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_no_round_is_begun_that_would_end_too_late_but_there_is_one_at_least() -> None:
    slow = small(SMALL.replace('order.get("sleep", 0)', "0.2"))
    found = measure([slow], 1000, 0.1, time.monotonic() + 2, lambda *_: None)
    assert 1 <= found.rounds < 12
    assert 0.2 <= found.least < 20
    assert measure([small()], 5, 0.1, time.monotonic() - 1, lambda *_: None).rounds == 1


def check_training(peer: PeerProcess, *names: str) -> None:
    """It says what it has, counts images and epochs, and its loss falls when it sees the same 16 images again."""
    assert peer.read(TIMEOUT)["parameters"] == PARAMETERS
    first = peer.turn(TIMEOUT, steps=1)
    assert first["grains"].keys() == set(names)
    assert all(images == 8 for grains in first["grains"].values() for images, _ in grains)
    last = peer.turn(TIMEOUT, steps=12)
    for name in names:
        assert sum(images for images, _ in last["grains"][name]) == 12 * 8
        assert all(seconds > 0 for _, seconds in last["grains"][name])
        assert last["losses"][name] < first["losses"][name]
    assert len(last["between_epochs"]) in (5, 6)
    assert all(seconds > 0 for seconds in last["between_epochs"])
    assert last["peak_mib"].keys() == set(names)
    assert all(100 < peak < 4000 for peak in last["peak_mib"].values())


def test_the_lab_and_the_bare_loop_take_turns_step_by_step() -> None:
    with start_peer(SPEC) as peer:
        check_training(peer, "lab_eager", "bare")
        grains = peer.turn(TIMEOUT, steps=3)["grains"]
        assert [images for images, _ in grains["lab_eager"]] == [images for images, _ in grains["bare"]] == [8] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_loop", "lightning_plain", "keras"])
def test_the_others_train_the_same_network(name: str) -> None:
    if name == "keras" and KERAS is None:
        pytest.skip("no TensorFlow here, and KERAS_PYTHON names no Python that has it")
    with start_peer(replace(SPEC, names=(name,)), KERAS) as peer:
        check_training(peer, name)
        (grain,) = peer.turn(TIMEOUT, seconds=0.5)["grains"][name]
        assert grain[1] >= 0.5


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="no TensorFlow here, and KERAS_PYTHON names no Python that has it")
def test_keras_has_the_published_number_of_parameters() -> None:
    count = "from benchmarks.peers.keras import build; m = build(56); print(m.count_params(), sum(w.numpy().size for w in m.trainable_weights))"  # noqa: E501
    done = subprocess.run([str(KERAS), "-c", count], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1673738", "1663338"]


@pytest.mark.slow
def test_the_lab_runs_in_grains_and_alone() -> None:
    spec = replace(SPEC, grain=4, images=80)
    with start_peer(spec) as both, start_peer(replace(spec, names=("lab_eager",))) as alone:
        assert both.read(TIMEOUT)["ready"]
        grains = both.turn(TIMEOUT, steps=10)["grains"]
        assert [images for images, _ in grains["lab_eager"]] == [32, 32, 16]
        assert [images for images, _ in grains["bare"]] == [32, 32, 16]
        assert alone.read(TIMEOUT)["ready"]
        assert alone.turn(TIMEOUT, steps=5)["grains"].keys() == {"lab_eager"}


def test_the_keras_peer_needs_nothing_of_ours() -> None:
    """It runs in another interpreter, with the standard library, numpy and, imported late, Keras and TensorFlow."""
    found, top = set(), set()
    for name in ("__init__", "peers/__init__", "peers/protocol", "peers/keras"):
        tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] if "benchmarks" not in name else name for name in names}
            top |= set(names) if node in tree.body else set()
    assert found - set(sys.stdlib_module_names) == {"numpy", "keras", "tensorflow", "benchmarks.peers.protocol"}
    assert not top & {"keras", "tensorflow"}


@pytest.mark.slow
def test_the_command_writes_the_contracts_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--model resnet20v2 --batch-sizes 4,2 --rounds 2 --seconds-per-turn 0.2 --images 40 --budget 300"
    assert main([*arguments.split(), "--names", "torch_loop,bare,lab_eager", "--concurrent", "2"]) == 0
    (path,) = Path("results/bench").glob("*/bench.json")
    content = json.loads(path.read_text())
    assert [(row["name"], row["batch_size"]) for row in content["rows"]] == [
        (name, size) for size in (4, 2) for name in ("torch_loop", "bare", "lab_eager")
    ]
    for row in content["rows"]:
        assert row["precision"] == "32-true"
        assert row["rounds"] == len(row["images_per_second_rounds"]) == 2
        assert row["images_per_second"] > 0
        assert row["peak_mib"] > 100
        assert row["images_per_second_range"] == [f(row["images_per_second_rounds"]) for f in (min, max)]
        assert 0 < row["last_loss"] < 100
    assert {"device", "cores", "threads", "torch"} <= set(content["machine"])
    assert content["roofline"][0]["images_per_second"] > 0
    assert [(row["runs"], len(row["images_per_second_windows"])) for row in content["concurrent"]] == [(2, 3)]
    assert {p.name for p in path.parent.iterdir()} == {"bench.json", "bench-peers.png", "bench-sizes.png"}
    assert not Path("outputs").exists()
    assert "lab_eager is" in capsys.readouterr().out
