"""The bench's arithmetic by hand, and its refusals; tests/test_bench_peers.py has the processes. Nothing is timed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resnetlab.bench import NAMES
from resnetlab.bench.cast import expected, not_asked
from resnetlab.bench.clock import Clock
from resnetlab.bench.command import reserve
from resnetlab.bench.concurrent import together_row
from resnetlab.bench.options import Options, Setting
from resnetlab.bench.peer import PeerFailed
from resnetlab.bench.plots import draw
from resnetlab.bench.roofline import Work, ceiling, work_of
from resnetlab.bench.rounds import Measured, attempt, order_of, warm_up
from resnetlab.bench.rows import comparisons, interval, rows
from resnetlab.bench.start_up import cells, row
from resnetlab.bench.table import show
from resnetlab.cli import main
from resnetlab.models import resnet56v2
from test_project import commands

SETTING = Setting(4, "32-true")


def test_the_ceiling_by_hand() -> None:
    """100 FLOP/s at 20 FLOP an image are 5 images/s; 120 bytes/s at 3 elements an image 10, or 20 at two bytes each."""
    work = Work(flops=20, elements=3)
    full = ceiling(work, "32-true", matmul=100, copy=120)
    assert (full["images_per_second"], full["bound_by"], full["bytes_per_image"]) == (5, "arithmetic", 12)
    half = ceiling(work, "16-mixed", matmul=1000, copy=120)
    assert (half["images_per_second"], half["bound_by"], half["bytes_per_image"]) == (20, "memory", 6)
    assert half["images_per_second_arithmetic"] == 50


def test_the_work_of_a_small_network_by_hand() -> None:
    """Forward 2*27*4*1024 and the gradient of the kernel as much, since no input gradient is needed for the first
    convolution; the second has all three of 2*4*8*1024, and the head of 2*8*10."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    work = work_of(network)
    assert work.flops == 2 * (2 * 27 * 4 * 1024) + 3 * (2 * 4 * 8 * 1024) + 3 * (2 * 8 * 10)
    assert work.elements == 1024 * (3 * 3 + 2 * 4 + 3 * 4 + 2 * 8)


def test_the_work_of_the_published_network() -> None:
    """1.16 GFLOP an image, forward and backward."""
    assert work_of(resnet56v2()).flops == pytest.approx(1.16e9, rel=0.005)


def measured() -> Measured:
    """Three rounds: the loop takes 2, 4 and 2 s for 8 images; the lab and the bare loop two grains of 4 images each."""
    return Measured(
        turns={
            "torch_loop": [[[8, 2.0]], [[8, 4.0]], [[8, 2.0]]],
            "bare": [[[4, 1.0], [4, 2.0]], [[4, 1.0], [4, 1.0]], [[4, 1.0], [4, 1.0]]],
            "lab_eager": [[[4, 1.1], [4, 2.2]], [[4, 1.0], [4, 1.2]], [[4, 1.3], [4, 1.0]]],
        },
        facts={
            name: {"peak_mib": 7.0, "parameters": 3, "loss": loss}
            for name, loss in (("torch_loop", 2.5), ("bare", math.nan), ("lab_eager", 1.5))
        },
        between_epochs={"lab_eager": [0.5, 0.25, 0.75]},
    )


def test_rows_by_hand() -> None:
    loop, bare, lab = rows(measured(), SETTING, {"images_per_second": 8.0})
    assert [row["name"] for row in (loop, bare, lab)] == ["torch_loop", "bare", "lab_eager"]
    assert (loop["images_per_second"], loop["rounds"], loop["seconds_per_step"]) == (4.0, 3, 1.0)
    assert loop["images_per_second_rounds"] == [4.0, 2.0, 4.0]
    assert loop["images_per_second_range"] == [2.0, 4.0]
    assert loop["images_per_second_95"] is None  # three rounds give no interval
    assert (loop["ratio_to_bare"], loop["ratios"]) == (1.0, 3)  # 2/3, 2 and 1: within each round
    assert (bare["images_per_second"], bare["share_of_roofline"]) == (4.0, 0.5)
    assert (bare["ratio_to_bare"], bare["ratio_95"]) == (1.0, None)
    # grain by grain 1.1 and 1.1, 1.0 and 1.2, 1.3 and 1.0, so by rounds 1.1, 1.1 and 1.15
    assert lab["ratio_to_bare"] == pytest.approx(1.1)
    assert (lab["ratios"], lab["ratio_95"]) == (3, None)
    assert (lab["seconds_between_epochs"], loop["seconds_between_epochs"]) == (0.5, None)
    # 50,000 images at 8 in 2.3 s, and half a second
    assert lab["images_per_second_epoch"] == pytest.approx(50_000 / (50_000 / 8 * 2.3 + 0.5))
    assert loop["images_per_second_epoch"] is None
    assert [row["last_loss"] for row in (loop, bare, lab)] == [2.5, None, 1.5]


def test_an_interval_is_of_rounds_and_not_of_the_steps_within() -> None:
    """Six rounds of two grains each, of 1.5 and 0.5, 2.5 and 1.5, ...: by rounds 1, 2, 3, 4, 5 and 6."""
    lab = [[[4, ratio + 0.5], [4, ratio - 0.5]] for ratio in range(1, 7)]
    found = Measured(turns={"bare": [[[4, 1.0], [4, 1.0]]] * 6, "lab_eager": lab}, facts={"bare": {}, "lab_eager": {}})
    row = rows(found, SETTING, None)[1]
    assert (row["ratio_to_bare"], row["ratio_95"], row["ratios"]) == (3.5, [1.0, 6.0], 6)


def test_the_lab_against_the_others_by_hand() -> None:
    found = {(entry["name"], entry["over"]): entry for entry in comparisons(measured())}
    assert set(found) == {("lab_eager", "torch_loop"), ("lab_eager", "bare")}
    # 8 images took 3.3, 2.2 and 2.3 s against 2, 4 and 2
    seconds = 50_000 / 8
    assert found["lab_eager", "torch_loop"]["times"] == pytest.approx(2 * seconds / (2.3 * seconds + 0.5), rel=1e-9)
    # 8 images of the bare loop took 3, 2 and 2 s; the lab 1.1, 1.1 and 1.15 times as long
    assert found["lab_eager", "bare"]["times"] == pytest.approx(2 * seconds / (2.2 * seconds + 0.5), rel=1e-9)
    assert found["lab_eager", "bare"]["n"] == 3


def test_what_lies_between_epochs_counts_for_all_of_whom_it_is_known() -> None:
    """50,000 images take 1 s each; the lab loses another, the loop three."""
    turns = {"torch_loop": [[[50_000, 1.0]]], "lightning_plain": [[[50_000, 1.0]]], "lab_eager": [[[50_000, 1.0]]]}
    found = comparisons(Measured(turns=turns, between_epochs={"lab_eager": [1.0], "torch_loop": [3.0]}))
    assert {entry["over"]: entry["times"] for entry in found} == {"torch_loop": 2.0, "lightning_plain": 0.5}


def test_the_interval_is_of_ranks() -> None:
    """Of six values both ends, since 1 - 2/2^6 is above 0.95; of nine the second and the eighth."""
    assert interval([1, 2, 3, 4, 5]) is None
    assert interval([6, 1, 2, 5, 3, 4]) == [1, 6]
    assert interval([1, 2, 3, 4, 5, 6, 7, 8, 9]) == [2, 8]


def test_runs_at_once_by_hand() -> None:
    """Three windows of two processes: 50 and 25 images a second, then 50 and 50, then 10 and 10."""
    windows = [[[[100, 2.0]], [[50, 1.0], [50, 3.0]]], [[[100, 2.0]]] * 2, [[[10, 1.0]]] * 2]
    row = together_row("lab_eager", SETTING, 1, windows)
    assert (row["runs"], row["images_per_second"], row["images_per_second_windows"]) == (2, 75.0, [75.0, 100.0, 20.0])
    assert row["machine_seconds_per_epoch"] == pytest.approx(50_000 / 75)


def test_the_first_setting_has_twice_the_time() -> None:
    clock = Clock(1000)
    assert clock.share(0, 3, reserve=100) == pytest.approx(450, abs=1)
    assert clock.share(0, 2, reserve=100) == pytest.approx(600, abs=1)
    assert clock.share(1, 3, reserve=100) == pytest.approx(450, abs=1)
    assert clock.share(2, 3, reserve=100) == pytest.approx(900, abs=1)
    assert clock.share(0, 1, reserve=0) == pytest.approx(1000, abs=1)
    assert Clock(10).share(0, 2, reserve=100) == 0


def test_the_order_changes_from_round_to_round() -> None:
    orders = [tuple(order_of(list("abcd"), number)) for number in range(8)]  # type: ignore[arg-type]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(set(orders)) > 4
    assert {order[0] for order in orders} == set("abcd")


def test_what_the_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(batch_sizes=(4, 8))
    monkeypatch.setitem(options.__dict__, "device", "cpu")
    monkeypatch.setitem(options.__dict__, "why_no_keras", "no TensorFlow here")
    names, left_out = expected(options, SETTING)
    assert names == ["torch_loop", "lightning_plain", "bare", "lab_eager", "lab_compile"]
    assert left_out["keras"] == "no TensorFlow here"
    names, left_out = expected(options, Setting(8, "32-true"))
    assert "lab_compile" not in names
    assert "first one (=4)" in left_out["lab_compile"]
    options.names = ("bare",)
    assert expected(options, SETTING) == (["bare"], {})


def test_what_is_measured_only_when_asked_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    options = on("cpu", monkeypatch)
    assert [(setting.batch_size, setting.precision) for setting in options.settings] == [
        (size, "32-true") for size in (64, 32, 128)
    ]
    assert not_asked(options) == [
        {"name": "all", "reason": "on a cpu only where --batch-sizes 512 asks for it"} | vars(Setting(512, "32-true")),
        {"name": "all", "reason": "needs a CUDA device"} | vars(Setting(64, "16-mixed")),
        {"name": "all", "reason": "only where --precisions bf16-mixed asks for it"} | vars(Setting(64, "bf16-mixed")),
    ]
    options.batch_sizes, options.precisions = (8,), ("32-true",)
    assert not_asked(options) == []


def test_a_gpu_does_all_sizes_of_its_main_precision_first(monkeypatch: pytest.MonkeyPatch) -> None:
    options = on("cuda", monkeypatch)
    assert [(setting.precision, setting.batch_size) for setting in options.settings] == [
        (precision, size) for precision in ("16-mixed", "32-true") for size in (64, 32, 128, 512)
    ]
    assert [(entry["precision"], entry["batch_size"]) for entry in not_asked(options)] == [("bf16-mixed", 64)]
    assert options.turn_seconds == 2
    assert reserve(options) == 4 * (15 + 3.5 * 2)
    options.seconds = 4.0
    assert options.turn_seconds == 4


def on(device: str, monkeypatch: pytest.MonkeyPatch) -> Options:
    options = Options()
    monkeypatch.setitem(options.__dict__, "device", device)
    return options


class Steps:
    """A peer whose steps take so long, by a clock of their own."""

    names = ("bare",)

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.now, self.seconds, self.orders = 0.0, list(seconds), list[dict[str, float]]()
        monkeypatch.setattr("resnetlab.bench.rounds.time.monotonic", lambda: self.now)

    def turn(self, patience: float, **order: float) -> None:
        self.orders.append(order)
        self.now += self.seconds.pop(0) if "steps" in order else order["seconds"]

    def end(self) -> None:
        pass


@pytest.mark.parametrize(
    ("steps", "orders"),
    [
        ((1.0,), [{"steps": 1}, {"seconds": 2.0}]),
        ((90.0, 1.0), [{"steps": 1}, {"steps": 1}, {"seconds": 2.0}]),  # compiled in the first
        ((3.0, 3.0), [{"steps": 1}, {"steps": 1}]),  # a step is a turn
    ],
)
def test_the_warm_up(steps: tuple[float, ...], orders: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    peer, found = Steps(monkeypatch, *steps), Measured(facts={"bare": {}})
    warm_up(peer, found, 4.0, 1000.0)  # type: ignore[arg-type]
    assert peer.orders == orders
    assert found.facts["bare"] == {"warm_up_seconds": peer.now, "first_step_seconds": steps[0]}


def test_who_held_memory_when_it_ran_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise PeerFailed("torch.OutOfMemoryError: CUDA out of memory")

    found = Measured(facts={"bare": {}, "keras": {}, "lab_eager": {}}, failed={"keras": "no such order"})
    assert not attempt(Steps(monkeypatch), found, fails)  # type: ignore[arg-type]
    assert found.failed["bare"] == "torch.OutOfMemoryError: CUDA out of memory; lab_eager held memory too"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("--names bare,lab", f"--names (=lab) must be of {', '.join(NAMES)}"),
        ("--batch-sizes 64,x", "--batch-sizes (=64,x) must be whole numbers with commas between them"),
        ("--names ,", "--names (=) must name one at least; leave it out for the default"),
        ("--names=", "--names (=) must name one at least; leave it out for the default"),
        ("--batch-sizes=", "--batch-sizes (=) must name one at least; leave it out for the default"),
        ("--precisions=", "--precisions (=) must name one at least; leave it out for the default"),
        ("--start-up 0", "--start-up (=0) must be in 1..1000"),
        ("--start-up 1 --model resnet", "resnet"),
        ("--start-up 1 --out /dev/null/b.json", "--out (=/dev/null/b.json): File exists"),
        ("--out /dev/null/b.json", "--out (=/dev/null/b.json): File exists"),
        ("--out .", "--out (=.): not a file that may be written"),
        ("--batch-sizes 1", "--batch-sizes (=1) must be in 2..65,536"),
        ("--precisions half", "--precisions (=half) must be of 32-true, 16-mixed, bf16-mixed"),
        ("--rounds 0", "--rounds (=0) must be in 1..100,000"),
        ("--seconds-per-turn 0", "--seconds-per-turn (=0) must be in"),
        ("--budget 0", "--budget (=0) must be in"),
        ("--concurrent 0,1", "--concurrent (=0) must be in 1..256"),
        ("--images 100", "--images (=100) must be in 256..50,000"),
        ("--model resnet", "resnet"),
        ("--keras-python nowhere/python", "--keras-python (=nowhere/python) must be a Python that has keras"),
        ("--names keras --model resnet18", "--names (=keras): the series' Keras code has no resnet18"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(arguments: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert wanted in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not any(Path().iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is refused where there is no GPU")
def test_what_needs_a_gpu_is_refused_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in (("--names lab_graph", "lab_graph"), ("--precisions 16-mixed", "16-mixed")):
        assert main(["bench", *arguments.split()]) == 2
        assert f"(={wanted}) needs a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", commands("resnetlab bench"), ids=" ".join)
def test_the_commands_of_the_readme_are_understood(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    started: list[int] = []
    monkeypatch.setattr("resnetlab.bench.bench", asked.append)
    monkeypatch.setattr("resnetlab.bench.start_up", lambda model, starts, out: started.append(starts))
    assert main(["bench", *arguments]) == 0
    if started:
        assert (arguments[:2], asked) == (["--start-up", str(started[0])], [])
        return
    (options,) = asked
    assert set(options.names or ()) <= set(NAMES)
    assert options.settings[0].batch_size == 64


def test_what_is_named_twice_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    monkeypatch.setattr("resnetlab.bench.bench", asked.append)
    twice = "--names bare,keras,bare --batch-sizes 64,32,64 --precisions 32-true,32-true --concurrent 2,2,1"
    assert main(["bench", *twice.split()]) == 0
    (options,) = asked
    assert (options.names, options.batch_sizes, options.precisions, options.concurrent) == (
        *(("bare", "keras"), (64, 32)),
        *(("32-true",), (2, 1)),
    )


def test_the_start_up_table_by_hand() -> None:
    found = row("eager", [(5.0, 6.0), (9.0, 9.5), (6.0, 7.25)])
    assert found == {"name": "eager", "to_first_step": [5.0, 9.0, 6.0], "to_first_row": [6.0, 9.5, 7.25]}
    assert cells(found) == ("eager", "6.0 (5.0 to 9.0)", "7.2 (6.0 to 9.5)", "3")


def content() -> dict[str, Any]:
    """A file's content, without a measurement."""
    other = Setting(8, "32-true")
    roof = ceiling(Work(20, 3), "32-true", 1000, 1200) | {"bound_by": "memory"}
    return {
        "machine": {"device": "a machine", "torch": "2"},
        "model": "resnet20v2",
        "data": "noise",
        "rows": [*rows(measured(), SETTING, roof), *rows(measured(), other, roof)],
        "comparisons": [entry | vars(SETTING) for entry in comparisons(measured())],
        "roofline": [roof],
        "concurrent": [
            together_row("lab_eager", SETTING, 1, [[[[8, 2.0]]] * n] * 3) | {"peak_mib": 9.0} for n in (1, 2)
        ],
        "left_out": [{"name": "keras", "reason": "no TensorFlow here"} | vars(SETTING)],
    }


def test_the_tables_and_the_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    made = content()
    json.dumps(made, allow_nan=False)
    show(made, [SETTING, Setting(8, "32-true")])
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.split("batch 8")[0].splitlines() if line.startswith("lab_eager"))
    # medians over rounds: 8 images in 3.3, 2.2 and 2.3 s, of the 50 that the machine allows
    assert line.split() == [
        "lab_eager",
        *("3.5", "2.4", "to", "3.6"),
        *("1150.0", "1.100", "7.0%", "7", "\N{EN DASH}", "3"),
    ]
    assert (
        "lab_eager is 0.870 times as fast as torch_loop over an epoch (too few rounds for an interval), n = 3"
        in printed
    )
    assert printed.count("its last loss is not finite") == 2
    assert "  bare: its last loss is not finite" in printed
    assert "  roofline: 50 images/s, by the copy rate of large arrays" in printed
    assert "0.50 s, so 3.5 images/s over an epoch (lab_eager, batch 4, 32-true)" in printed
    assert "left out: keras (batch 4, 32-true): no TensorFlow here" in printed
    assert [path.name for path in draw(made, Path("bench.json"))] == ["bench-peers.png", "bench-sizes.png"]
    assert all(path.stat().st_size > 5_000 for path in Path().glob("*.png"))
    made["rows"], made["concurrent"] = made["rows"][:3], []
    assert [path.name for path in draw(made, Path("one.json"))] == ["one-peers.png"]
