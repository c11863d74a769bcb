"""The bench's arithmetic by hand, and its errors; test_peers.py has the processes. Nothing is timed."""

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from benchmarks.__main__ import main
from benchmarks.bench import Budget
from benchmarks.options import NAMES, Options, Setting
from benchmarks.peers.machine import Work, ceiling, work_of
from benchmarks.peers.protocol import TurnCounter
from benchmarks.plots import draw
from benchmarks.process import ROOT
from benchmarks.rounds import Measurements, order_of, warm_up
from benchmarks.rows import comparisons, interval, rows, together_row
from benchmarks.table import show
from resnetlab.models import resnet56v2

SETTING = Setting(4, "32-true")
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="it is an error where there is no GPU")


def test_the_ceiling_by_hand() -> None:
    """100 FLOP/s at 20 FLOP an image are 5 images/s; 120 bytes/s at 3 elements an image 10, or 20 at two bytes each."""
    work = Work(flops=20, elements=3)
    full = ceiling(work, "32-true", matmul=100, copy=120)
    assert (full["images_per_second"], full["bound_by"], full["bytes_per_image"]) == (5, "arithmetic", 12)
    half = ceiling(work, "16-mixed", matmul=1000, copy=120)
    assert (half["images_per_second"], half["bound_by"], half["bytes_per_image"]) == (20, "memory", 6)
    assert half["images_per_second_arithmetic"] == 50


def test_the_work_of_networks() -> None:
    """Forward 2*27*4*1024 and the gradient of the kernel as much, since no input gradient is needed for the first
    convolution; the second has all three of 2*4*8*1024, and the head of 2*8*10. ResNet56v2: 1.16 GFLOP an image."""
    convolutions = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1)
    work = work_of(nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)))
    assert work.flops == 2 * (2 * 27 * 4 * 1024) + 3 * (2 * 4 * 8 * 1024) + 3 * (2 * 8 * 10)
    assert work.elements == 1024 * (3 * 3 + 2 * 4 + 3 * 4 + 2 * 8)
    assert work_of(resnet56v2()).flops == pytest.approx(1.16e9, rel=0.005)


def measurements() -> Measurements:
    """Three rounds: the loop takes 2, 4 and 2 s for 8 images; the lab and the bare loop two grains of 4 images each."""
    losses = (("torch_loop", 2.5), ("bare", math.nan), ("lab_eager", 1.5))
    return Measurements(
        turns={
            "torch_loop": [[[8, 2.0]], [[8, 4.0]], [[8, 2.0]]],
            "bare": [[[4, 1.0], [4, 2.0]], [[4, 1.0], [4, 1.0]], [[4, 1.0], [4, 1.0]]],
            "lab_eager": [[[4, 1.1], [4, 2.2]], [[4, 1.0], [4, 1.2]], [[4, 1.3], [4, 1.0]]],
        },
        facts={name: {"peak_mib": 7.0, "parameters": 3, "loss": loss} for name, loss in losses},
        between_epochs={"lab_eager": [0.5, 0.25, 0.75]},
    )


def test_rows_by_hand() -> None:
    loop, bare, lab = rows(measurements(), SETTING, {"images_per_second": 8.0})
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


def test_the_rows_have_the_keys_of_the_published_files() -> None:
    (path,) = (ROOT / "results" / "bench").glob("*/bench.json")
    committed = json.loads(path.read_text())
    assert set(committed) - {"seconds"} == set(content())
    for part in ("rows", "comparisons", "roofline", "concurrent"):
        assert list(content()[part][0]) == list(committed[part][0])
    assert {row["name"] for row in committed["rows"]} <= set(NAMES)


def test_an_interval_is_of_rounds_and_not_of_the_steps_within() -> None:
    """Six rounds of two grains each, of 1.5 and 0.5, 2.5 and 1.5, ...: by rounds 1, 2, 3, 4, 5 and 6."""
    turns = {
        "bare": [[[4, 1.0], [4, 1.0]]] * 6,
        "lab_eager": [[[4, ratio + 0.5], [4, ratio - 0.5]] for ratio in range(1, 7)],
    }
    row = rows(Measurements(turns, {"bare": {}, "lab_eager": {}}), SETTING, None)[1]
    assert (row["ratio_to_bare"], row["ratio_95"], row["ratios"]) == (3.5, [1.0, 6.0], 6)
    # it is of ranks: of six values both ends, since 1 - 2/2^6 is above 0.95; of nine the second and the eighth
    assert interval([1, 2, 3, 4, 5]) is None
    assert interval([6, 1, 2, 5, 3, 4]) == [1, 6]
    assert interval([1, 2, 3, 4, 5, 6, 7, 8, 9]) == [2, 8]


def test_the_lab_against_the_others_by_hand() -> None:
    found = {(entry["name"], entry["over"]): entry for entry in comparisons(measurements(), SETTING)}
    assert set(found) == {("lab_eager", "torch_loop"), ("lab_eager", "bare")}
    # 8 images took 3.3, 2.2 and 2.3 s against 2, 4 and 2
    seconds = 50_000 / 8
    assert found["lab_eager", "torch_loop"]["times"] == pytest.approx(2 * seconds / (2.3 * seconds + 0.5), rel=1e-9)
    # 8 images of the bare loop took 3, 2 and 2 s; the lab 1.1, 1.1 and 1.15 times as long
    assert found["lab_eager", "bare"]["times"] == pytest.approx(2 * seconds / (2.2 * seconds + 0.5), rel=1e-9)
    assert found["lab_eager", "bare"]["n"] == 3
    # what lies between epochs counts for all of whom it is known: 50,000 images take 1 s, the lab loses 1, the loop 3
    turns = {name: [[[50_000, 1.0]]] for name in ("torch_loop", "lightning_plain", "lab_eager")}
    losing = comparisons(Measurements(turns, between_epochs={"lab_eager": [1.0], "torch_loop": [3.0]}), SETTING)
    assert {entry["over"]: entry["times"] for entry in losing} == {"torch_loop": 2.0, "lightning_plain": 0.5}


def test_runs_at_once_by_hand() -> None:
    """Three windows of two processes: 50 and 25 images a second, then 50 and 50, then 10 and 10."""
    windows = [[[[100, 2.0]], [[50, 1.0], [50, 3.0]]], [[[100, 2.0]]] * 2, [[[10, 1.0]]] * 2]
    row = together_row("lab_eager", SETTING, 1, windows)
    assert (row["runs"], row["images_per_second"], row["images_per_second_windows"]) == (2, 75.0, [75.0, 100.0, 20.0])
    assert row["machine_seconds_per_epoch"] == pytest.approx(50_000 / 75)


def test_the_first_setting_has_twice_the_time() -> None:
    shares = [Budget(1000, reserve=100).share(*part) for part in ((0, 3), (0, 2), (1, 3), (2, 3))]
    assert shares == pytest.approx([450, 600, 450, 900], abs=1)
    assert Budget(1000).share(0, 1) == pytest.approx(1000, abs=1)
    assert Budget(10, reserve=100).share(0, 2) == 0


class FakePeer:
    """A peer whose steps take so long, by a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float, name: str = "bare") -> None:
        self.names, self.now, self.seconds, self.orders = (name,), 0.0, list(seconds), list[dict[str, float]]()
        monkeypatch.setattr("benchmarks.rounds.time.monotonic", lambda: self.now)

    def turn(self, timeout: float, **order: float) -> None:
        self.orders.append(order)
        self.now += self.seconds.pop(0) if "steps" in order else order["seconds"]

    def end(self) -> None:
        pass


def test_the_order_changes_from_round_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    peers: Any = [FakePeer(monkeypatch, name=name) for name in "abcd"]
    orders = ["".join(peer.names[0] for peer in order_of(peers, number)) for number in range(8)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(set(orders)) > 4
    assert {order[0] for order in orders} == set("abcd")


@pytest.mark.parametrize(
    ("steps", "orders"),
    [
        ((1.0,), [{"steps": 1}, {"seconds": 2.0}]),
        ((90.0, 1.0), [{"steps": 1}, {"steps": 1}, {"seconds": 2.0}]),  # compiled in the first
        ((3.0, 3.0), [{"steps": 1}, {"steps": 1}]),  # a step is a turn
    ],
)
def test_the_warm_up(steps: tuple[float, ...], orders: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    peer, found = FakePeer(monkeypatch, *steps), Measurements(facts={"bare": {}})
    warm_up(peer, found, 4.0, 1000.0)  # type: ignore[arg-type]
    assert peer.orders == orders
    assert found.facts["bare"] == {"warm_up_seconds": peer.now, "first_step_seconds": steps[0]}


def test_batches_that_were_fetched_in_the_others_turns_are_not_counted() -> None:
    orders, answers = [{"steps": 1}, {"seconds": 0.0}], list[dict[str, Any]]()

    class Lines:
        def read(self) -> dict[str, Any]:
            return orders.pop(0) if orders else {}

        def write(self, **answer: Any) -> None:
            answers.append(answer)

    turns = TurnCounter(Lines(), "a", 8, lambda: None, lambda: {"losses": {"a": 1.0}}, lead=2)  # type: ignore[arg-type]
    turns.begin()
    for _ in range(4):
        turns.stepped()
    assert [[images for images, _ in answer["grains"]["a"]] for answer in answers] == [[8], [8]]
    assert turns.steps == 0


def test_what_the_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options.from_command_line(["--batch-sizes", "4,8"])
    monkeypatch.setitem(options.__dict__, "device", "cpu")
    monkeypatch.setitem(options.__dict__, "why_no_keras", "no TensorFlow here")
    names, left_out = options.expected(SETTING)
    assert names == ["torch_loop", "lightning_plain", "bare", "lab_eager", "lab_compile"]
    assert left_out["keras"] == "no TensorFlow here"
    names, left_out = options.expected(Setting(8, "32-true"))
    assert "lab_compile" not in names
    assert "first one (=4)" in left_out["lab_compile"]
    options.names = ("bare",)
    assert options.expected(SETTING) == (["bare", "lab_eager"], {})  # which bare is measured with


def test_a_gpu_does_all_sizes_of_its_main_precision_first(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options.from_command_line([])
    monkeypatch.setitem(options.__dict__, "device", "cuda")
    assert [(setting.precision, setting.batch_size) for setting in options.settings] == [
        (precision, size) for precision in ("16-mixed", "32-true") for size in (64, 32, 128, 512)
    ]
    assert (options.turn_seconds, options.counts) == (2, (1, 2, 4, 8))
    monkeypatch.setitem(options.__dict__, "device", "cpu")
    assert options.settings == [Setting(size, "32-true") for size in (64, 32, 128)]
    assert (options.turn_seconds, options.counts) == (5, (1, 2))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("--names bare,lab", f"--names (=lab) must be of {', '.join(NAMES)}"),
        ("--batch-sizes 64,x", "--batch-sizes (=x) must be a number in 2..65,536"),
        ("--names ,", "--names (=) must name one at least; leave it out for the default"),
        ("--batch-sizes=", "--batch-sizes (=) must name one at least; leave it out for the default"),
        ("--precisions=", "--precisions (=) must name one at least; leave it out for the default"),
        ("--out /dev/null/b.json", "--out (=/dev/null/b.json): File exists"),
        ("--out .", "--out (=.): not a file that may be written"),
        ("--batch-sizes 1", "--batch-sizes (=1) must be a number in 2..65,536"),
        ("--precisions half", "--precisions (=half) must be of 32-true, 16-mixed, bf16-mixed"),
        ("--rounds 0", "--rounds (=0) must be a number in 1..100,000"),
        ("--rounds many", "--rounds (=many) must be a number in 1..100,000"),
        ("--seconds-per-turn 0", "--seconds-per-turn (=0) must be a number in"),
        ("--budget nan", "--budget (=nan) must be a number in"),
        ("--concurrent 0,1", "--concurrent (=0) must be a number in 1..256"),
        ("--images 100", "--images (=100) must be a number in 256..50,000"),
        ("--model resnet", "resnet"),
        ("--keras-python nowhere/python", "--keras-python (=nowhere/python) must be a Python that has keras"),
        ("--names keras --model resnet18", "--names (=keras): the series' Keras code has no resnet18"),
        ("--start-up 1", "unrecognized arguments: --start-up 1"),
        pytest.param("--names lab_graph", "(=lab_graph) needs a CUDA device", marks=WITHOUT_GPU),
        pytest.param("--precisions 16-mixed", "(=16-mixed) needs a CUDA device", marks=WITHOUT_GPU),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(arguments: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert wanted in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not any(Path().iterdir())


def test_an_interrupt_before_anything_was_done_is_one_line(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("benchmarks.__main__.bench", Mock(side_effect=KeyboardInterrupt))
    assert main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_commands_of_the_documentation_are_understood() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    found = re.findall(r"^python -m benchmarks *([^#\n]*)", text, re.MULTILINE)
    found += re.findall(r'^make bench ARGS="([^"]*)"', text, re.MULTILINE)
    for line in found:
        if "DIR/" not in line and "16-mixed" not in line:  # what this machine may not have
            assert Options.from_command_line(shlex.split(line)).settings[0].batch_size > 1
    # what is named twice is measured once
    twice = "--names bare,lab_eager,bare --batch-sizes 64,32,64 --precisions 32-true,32-true --concurrent 2,2,1"
    options = Options.from_command_line(twice.split())
    assert (options.names, options.batch_sizes) == (("bare", "lab_eager"), (64, 32))
    assert (options.precisions, options.concurrent) == (("32-true",), (2, 1))
    assert Options.from_command_line(["--concurrent", ""]).counts == ()


def content() -> dict[str, Any]:
    """A file's content, without a measurement."""
    roof = ceiling(Work(20, 3), "32-true", 1000, 1200) | {"bound_by": "memory"}
    windows = [[[[8, 2.0]]]] * 3, [[[[8, 2.0]]] * 2] * 3
    return {
        "machine": {"device": "a machine", "torch": "2"},
        "model": "resnet20v2",
        "data": "noise",
        "data_loader_workers": 2,
        "rows": [*rows(measurements(), SETTING, roof), *rows(measurements(), Setting(8, "32-true"), roof)],
        "comparisons": comparisons(measurements(), SETTING),
        "roofline": [roof],
        "concurrent": [together_row("lab_eager", SETTING, 1, of) | {"peak_mib": 9.0} for of in windows],
        "left_out": [{"name": "keras", "reason": "no TensorFlow here"} | vars(SETTING)],
    }


def test_the_tables_and_the_plots(capsys: pytest.CaptureFixture[str]) -> None:
    made = content()
    json.dumps(made, allow_nan=False)
    show(made, [SETTING, Setting(8, "32-true")])
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.split("batch 8")[0].splitlines() if line.startswith("lab_eager"))
    # medians over rounds: 8 images in 3.3, 2.2 and 2.3 s, of the 50 that the machine allows
    expected = ["lab_eager", "3.5", "2.4", "to", "3.6", "1150.0", "1.100", "7.0%", "7", "\N{EN DASH}", "3"]
    assert line.split() == expected
    found = "times as fast as torch_loop over an epoch (too few rounds for an interval), n = 3"
    assert f"lab_eager is 0.870 {found}" in printed
    assert printed.count("its last loss is not finite") == 2
    assert "  bare: its last loss is not finite" in printed
    assert "  roofline: 50 images/s, by the copy rate of large arrays" in printed
    assert "0.50 s, so 3.5 images/s over an epoch (lab_eager, batch 4, 32-true)" in printed
    assert "left out: keras (batch 4, 32-true): no TensorFlow here" in printed
    assert [path.name for path in draw(made, Path("bench.json"))] == ["bench-peers.png", "bench-sizes.png"]
    assert all(path.stat().st_size > 5_000 for path in Path().glob("*.png"))
    made["rows"], made["concurrent"] = made["rows"][:3], []
    assert [path.name for path in draw(made, Path("one.json"))] == ["one-peers.png"]
