"""The bench's processes: the protocol, that only one of them runs at a time, and that each trains what it says."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from resnetlab import bench_peers
from resnetlab.bench.cast import start_lab
from resnetlab.bench.peer import Peer, PeerFailed, module_command, script
from resnetlab.bench.rounds import measure
from resnetlab.bench_peers.keras_series import resident_peak
from resnetlab.bench_peers.spec import Spec
from resnetlab.bench_peers.turns import peak_mib
from resnetlab.cli import main
from resnetlab.lifeline import sigterm_exits

PARAMETERS = 570_602  # of a ResNet20v2 by Atienza's code, batch-norm statistics not counted
SPEC = Spec((), "resnet20v2", batch_size=8, precision="32-true", device="cpu", root=None, images=16)
KERAS = os.environ.get("KERAS_PYTHON") or (sys.executable if find_spec("tensorflow") and find_spec("keras") else None)
PATIENCE = 120.0

# answers {"steps": n} at once, and other orders end it; its child is never idle
SMALL = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(json.dumps({"ready": True, "child": child.pid}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "sleep" in order:
        time.sleep(order["sleep"])
    if "steps" not in order:
        print("some words", file=sys.stderr)
        raise SystemExit("no such order")
    told = {"losses": {"small": 1}, "peak_mib": {"small": 2}, "between_epochs": []}
    print(json.dumps({"grains": {"small": [[order["steps"], 0.5]]}, **told}), flush=True)
"""


# a bench that does nothing but hold a stopped peer
BENCH = f"""
import os, sys, time
from resnetlab.bench.peer import Peer
with Peer(["small"], [sys.executable, "-c", {SMALL!r}]) as peer:
    child = peer.hear(120)["child"]
    peer.stop()
    print(os.getpid(), peer.process.pid, child, peer.folder.name, flush=True)
    time.sleep(600)
"""

# runs it in a session of its own, adopts what it leaves behind, and ends when that is gone
ADOPT = """
import ctypes, os, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1) == 0  # PR_SET_CHILD_SUBREAPER
bench = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
try:
    while True:
        os.wait()
except ChildProcessError:
    os._exit(0)
"""


def state(pid: int) -> str:
    """The kernel's letter: R or S for a process that runs or waits, T for one that is stopped; "" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == pid]


def parent_of(path: Path) -> int:
    try:
        return int(path.read_text().rsplit(") ", 1)[1].split()[1])
    except OSError:
        return -1


def becomes(pid: int, states: str) -> bool:
    """Whether the process gets into one of the states; a signal takes a moment."""
    end = time.monotonic() + 20
    while state(pid) not in states and time.monotonic() < end:
        time.sleep(0.01)
    return state(pid) in states


@pytest.fixture
def small() -> Iterator[Peer]:
    with Peer(["small"], [sys.executable, "-c", SMALL]) as peer:
        yield peer


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@linux
def test_a_peer_and_its_children_run_in_their_own_turns_only(small: Peer) -> None:
    child, pid = small.hear(PATIENCE)["child"], small.process.pid
    assert state(child) == "R"
    small.stop()
    assert becomes(pid, "T")
    assert becomes(child, "T")
    assert small.turn(PATIENCE, steps=3)["grains"] == {"small": [[3, 0.5]]}
    assert becomes(pid, "T")
    assert becomes(child, "T")
    small.order(sleep=1, steps=1)
    assert becomes(child, "R")
    small.end()
    assert state(pid) == ""
    assert becomes(child, "Z") or state(child) == ""
    assert not Path(small.folder.name).exists()


@linux
def test_a_killed_bench_leaves_nothing_behind() -> None:
    """Not where its stopped peers are adopted by a process of its session either, so that the system lets them be."""
    command = [sys.executable, "-c", ADOPT, BENCH]
    environment = module_command("", "")[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as host:
        assert host.stdout is not None
        *pids, folder = host.stdout.readline().split()
        bench, peer, child = map(int, pids)
        try:
            assert becomes(peer, "T")
            assert becomes(child, "T")
            os.kill(bench, signal.SIGKILL)
            assert host.wait(30) == 0
        finally:
            for group in (peer, host.pid):
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
    assert state(peer) == state(child) == ""
    assert not Path(folder).exists()


def test_sigterm_ends_the_peers_on_the_way_out() -> None:
    before, peer = signal.getsignal(signal.SIGTERM), willing()

    def bench() -> None:
        with sigterm_exits(), peer:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)

    with pytest.raises(SystemExit) as stop:
        bench()
    assert stop.value.code == 143
    assert peer.process.poll() is not None
    assert not Path(peer.folder.name).exists()
    assert signal.getsignal(signal.SIGTERM) is before


@linux
def test_the_peak_is_the_peers_own() -> None:
    """One that needs some 50 MiB, of a parent that holds 500: Linux hands a process's ru_maxrss on to its children."""
    own = "from keras_series import resident_peak; print(resident_peak())"
    parent = f"import subprocess, sys; held = b'x' * 500 * 2**20; subprocess.run([sys.executable, '-c', {own!r}])"
    folder = str(Path(bench_peers.__file__).parent)
    done = subprocess.run([sys.executable, "-c", parent], cwd=folder, capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 300
    assert peak_mib(torch.device("cpu")) == pytest.approx(resident_peak(), rel=0.01)


def test_a_peer_that_fails_says_why(small: Peer) -> None:
    small.hear(PATIENCE)
    with pytest.raises(PeerFailed, match=r"^no such order$"):
        small.turn(PATIENCE, leaps=1)


def test_a_peer_that_says_nothing_is_not_waited_for(small: Peer) -> None:
    small.hear(PATIENCE)
    with pytest.raises(PeerFailed, match="no answer within 0 s"):
        small.turn(0.1, sleep=600)


def test_a_peer_that_fails_costs_its_own_rows_only() -> None:
    """The second one gets as far as its first word."""
    told: list[str] = []
    peers = [willing(), Peer(["bare"], [sys.executable, "-c", "print('{}', flush=True); raise SystemExit('a word')"])]
    found = measure(peers, 3, 0.1, time.monotonic() + PATIENCE, lambda measured, what: told.append(what))
    assert found.turns == {"small": [[[4, 0.5]]] * 3}
    assert found.failed == {"bare": "a word"}
    assert told[-3:] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_no_round_is_begun_that_would_end_too_late() -> None:
    found = measure([willing("time.sleep(0.2)")], 1000, 0.1, time.monotonic() + 2, lambda *_: None)
    assert 1 <= found.rounds < 12
    assert 0.2 <= found.least < 20


def test_there_is_one_round_at_least() -> None:
    assert measure([willing()], 5, 0.1, time.monotonic() - 1, lambda *_: None).rounds == 1


def willing(nap: str = "pass") -> Peer:
    """The small peer, which takes every order for one of 4 steps."""
    program = SMALL.replace('"steps" not in order', "False").replace('order["steps"]', "4")
    return Peer(["small"], [sys.executable, "-c", program.replace('time.sleep(order["sleep"])', "pass").replace(
        "    order = json.loads(line)", f"    order = json.loads(line); {nap}")])  # fmt: skip


def trains(peer: Peer, *names: str) -> None:
    """It says what it has, counts images and epochs, and its loss falls when it sees the same 16 images again."""
    assert peer.hear(PATIENCE)["parameters"] == PARAMETERS
    first = peer.turn(PATIENCE, steps=1)
    assert first["grains"].keys() == set(names)
    assert all(images == 8 for grains in first["grains"].values() for images, _ in grains)
    last = peer.turn(PATIENCE, steps=12)
    for name in names:
        assert sum(images for images, _ in last["grains"][name]) == 12 * 8
        assert all(seconds > 0 for _, seconds in last["grains"][name])
        assert last["losses"][name] < first["losses"][name]
    assert len(last["between_epochs"]) in (5, 6)
    assert all(seconds > 0 for seconds in last["between_epochs"])
    assert last["peak_mib"].keys() == set(names)
    assert all(100 < peak < 4000 for peak in last["peak_mib"].values())


@linux
@pytest.mark.slow
def test_the_plain_loop_trains_and_its_workers_stop_with_it() -> None:
    with Peer(["torch_loop"], *module_command("torch_loop", SPEC.line())) as peer:
        trains(peer, "torch_loop")
        workers = [pid for pid in children(peer.process.pid) if state(pid) not in ("", "Z")]
        assert len(workers) >= 2
        assert all(becomes(pid, "T") for pid in (peer.process.pid, *workers))
        timed = peer.turn(PATIENCE, seconds=0.5)["grains"]["torch_loop"]
        assert len(timed) == 1
        assert timed[0][1] >= 0.5


def test_the_lab_and_the_bare_loop_take_turns_step_by_step() -> None:
    with start_lab(SPEC, ["bare", "lab_eager"]) as peer:
        trains(peer, "lab_eager", "bare")
        grains = peer.turn(PATIENCE, steps=3)["grains"]
        assert [images for images, _ in grains["lab_eager"]] == [images for images, _ in grains["bare"]] == [8] * 3


@pytest.mark.slow
def test_plain_lightning_trains() -> None:
    with Peer(["lightning_plain"], *module_command("lightning_plain", SPEC.line())) as peer:
        trains(peer, "lightning_plain")


@pytest.mark.slow
def test_the_lab_runs_in_grains_and_the_bare_loop_alone() -> None:
    spec = replace(SPEC, grain=4, images=80)
    with start_lab(spec, ["bare", "lab_eager"]) as both, start_lab(spec, ["bare"]) as bare:
        assert both.hear(PATIENCE)["ready"]
        grains = both.turn(PATIENCE, steps=10)["grains"]
        assert [images for images, _ in grains["lab_eager"]] == [32, 32, 16]
        assert [images for images, _ in grains["bare"]] == [32, 32, 16]
        assert bare.hear(PATIENCE)["ready"]
        assert [images for images, _ in bare.turn(PATIENCE, steps=5)["grains"]["bare"]] == [40]


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="no TensorFlow here, and KERAS_PYTHON names no Python that has it")
def test_keras_trains_the_same_network() -> None:
    told = json.loads(SPEC.line()) | {"depth": 20, "shift": 0.07, "lr": 8e-4, "wd": 0.2}
    with Peer(["keras"], *script(str(KERAS), "keras_series", json.dumps(told))) as peer:
        trains(peer, "keras")
    count = "from keras_series import build; m = build(56); print(m.count_params(), sum(w.numpy().size for w in m.trainable_weights))"  # noqa: E501
    folder = str(Path(bench_peers.__file__).parent)
    done = subprocess.run([str(KERAS), "-c", count], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1673738", "1663338"]


def test_the_keras_peer_needs_nothing_of_ours() -> None:
    """It runs in another interpreter: at its top it imports the standard library and numpy only."""
    tree = ast.parse((Path(bench_peers.__file__).parent / "keras_series.py").read_text())
    found = {n.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    found |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found - set(sys.stdlib_module_names) == {"numpy", "keras", "tensorflow"}
    top = {n.name for node in tree.body if isinstance(node, ast.Import) for n in node.names}
    assert not top & {"keras", "tensorflow"}


@pytest.mark.slow
def test_the_command_writes_the_contracts_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "bench --model resnet20v2 --batch-sizes 4,2 --rounds 2 --seconds-per-turn 0.2 --images 40 --budget 300"
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
    assert [entry["precision"] for entry in content["left_out"] if entry["name"] == "all"] == ["16-mixed", "bf16-mixed"]
    assert {p.name for p in path.parent.iterdir()} == {"bench.json", "bench-peers.png", "bench-sizes.png"}
    assert not Path("outputs").exists()
    assert "lab_eager is" in capsys.readouterr().out


@pytest.mark.slow
def test_the_wait_for_the_first_row_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "resnet20v2", "--start-up", "1"]) == 0
    (path,) = Path("results/bench").glob("*/start_up.json")
    content = json.loads(path.read_text())
    engines = ["eager", "compile", "graph"] if torch.cuda.is_available() else ["eager", "compile"]
    assert [row["name"] for row in content["rows"]] == ["compile, empty cache", *engines]
    for row in content["rows"]:
        ((step,), (end,)) = row["to_first_step"], row["to_first_row"]
        assert 0 < step < end
    assert content["model"] == "resnet20v2"
    assert not Path("outputs").exists()
    assert "to the first row" in capsys.readouterr().out
