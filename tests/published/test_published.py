"""The published rows, the presets made from them, and `resnetlab published`.

The learning rates are computed here a second time, from a row's milestones as the tables mean them.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from make_presets import digest_line, write_presets
from resnetlab import Config, ConfigError, compose
from resnetlab.cli import main
from resnetlab.config.option_files import conf_dir
from resnetlab.data import Data, ImageData
from resnetlab.optim.averaging import SWA
from resnetlab.optim.schedules import RunLength, schedule_table
from resnetlab.published.configuration import preset_of
from resnetlab.published.preset_matching import FILE, matching_presets, reduction
from resnetlab.published.results import Published, find, rows
from resnetlab.training.build import build_module
from synthetic import write_run

EXPERIMENTS = conf_dir() / "experiment"
BY_ID = {row.id: row for row in rows()}
PRESETS = list(dict.fromkeys(preset_of(row.id) for row in rows() if row.post != "fastai"))
STEPS = 40  # steps an epoch of 1cycle, enough to place its peak; the others move at whole epochs

WD_LOST = {
    *("post4-table1-03A", "post4-table1-03B", "post4-table1-04", "post4-table1-21", "post4-table2-13"),
    *("post4-table2-15", "post4-table2-16", "post4-table3-22", "post4-table3-23", "post4-table3-24"),
    *("post4-table3-25", "post5-headline-cosine", "post6-headline-20ep", "post6-headline-0.924"),
}
NO_MILESTONES = {
    *("post1-mixed-precision-bs64", "post1-mixed-precision-bs64-noaug", "post4-plot-adam-l2-8e-5"),
    *("post5-headline-cosine", "post6-headline-20ep", "post6-headline-0.924"),
}
SAME = {  # beside post1-transition-*
    "post1-run-01-bs32": "post1-bs32",
    "post1-run-04-bs64": "post1-bs64",
    "post1-mixed-precision-bs64": "post1-bs64",
    "atienza-resnet56v2-200": "post1-bs32",
    "post2-trial2-06": "post2-trial2-05",
    "post2-trial2-07": "post2-trial2-05",
    "post4-table2-15": "post4-table2-13",
    "part2nb-multistep-50": "cifar10p2-multistep-50",
    "part2nb-cosine-50": "cifar10p2-cosine-50",
    "part2nb-warm-restarts-60": "cifar10p2-warm-restarts-60",
    "part2nb-onecycle-50": "cifar10p2-onecycle-50",
    "part2nb-onecycle-30": "cifar10p2-onecycle-30",
    "post6-headline-0.924": "post6-headline-20ep",
}


@cache
def composed(preset: str) -> Config:
    return compose(f"experiment={preset}")


def rows_of(preset: str) -> list[Published]:
    return [row for row in rows() if preset_of(row.id) == preset]


def test_all_rows_are_there_and_typed() -> None:
    assert len(BY_ID) == len(rows()) == 133
    posts = {"I": 28, "atienza": 2, "II": 37, "IV": 28, "fastai": 13, "part1": 7, "part2": 15, "V": 1, "VI": 2}
    assert Counter(row.post for row in rows()) == posts
    names = {field.name for field in fields(Published)}
    for row in rows():
        assert set(row.inferred) <= names
        assert row.confidence in ("high", "medium", "low")
        assert row.source.startswith("https://")
        assert row.counts_from == (0 if row.post in ("fastai", "part1") or row.id.startswith("part2nb") else 1)
    assert {row.id for row in rows() if row.wd is None} == WD_LOST == {row.id for row in rows() if row.wd_candidates}
    assert {row.id for row in rows() if row.milestones is None} == NO_MILESTONES


def test_figures_are_as_printed_misprints_included() -> None:
    """Copied by hand from the tables."""
    row = BY_ID["post4-table1-09"]
    assert (row.optimizer, row.lr, row.wd, row.l2, row.epochs, row.batch_size) == ("adamw", 8e-4, 0.25, 0, 60, 64)
    assert row.milestones == ((20, 8e-4), (40, 8e-5), (50, 1e-5), (60, 4e-6))
    assert (row.epoch_at_threshold, row.epoch_best, row.val_acc_best) == (52, 59, 0.9349)
    assert (row.final_loss, row.final_val_loss, row.confidence) == (0.0202, 0.2279, "medium")
    assert BY_ID["post4-table1-21"].val_acc_best == 0.9365
    assert BY_ID["post4-table1-07"].milestones[:2] == ((20, 8e-4), (20, 4e-4))  # type: ignore[index]
    assert BY_ID["post2-trial3b-05"].val_acc_best == 0.92481
    assert (BY_ID["post2-trial2-01"].val_acc_at_threshold, BY_ID["post2-trial2-01"].val_acc_best) == (0.9162, 0.9117)
    assert (BY_ID["post1-bs128"].seconds_per_epoch, BY_ID["post1-bs128"].power_w) == (20.5, 114)
    transition = BY_ID["post1-transition-bs64-0.93"]
    assert (transition.bound, transition.epoch_at_threshold) == (">", 160)
    assert (BY_ID["post2-trial3b-07"].ema_momentum, BY_ID["part1-fixed-resnet18"].momentum) == (0.95, 0.9)
    # reached compares with the threshold, and epochs count from one
    assert BY_ID["post2-trial1-01"].reached is True
    assert BY_ID["post2-trial1-02"].reached is False  # 0.914 at epoch 48
    assert BY_ID["post1-transition-bs32-0.91"].reached is True  # no val_acc beside the epoch
    assert BY_ID["post1-transition-bs32-0.93"].reached is None
    notebook = BY_ID["part1-fixed-resnet18"]
    assert (notebook.epoch_best, notebook.epoch(notebook.epoch_best), notebook.epoch(None)) == (43, 44, None)


def test_every_row_has_a_preset_and_the_same_configuration_has_one() -> None:
    transitions = {row.id: row.id.replace("transition-", "").rsplit("-", 1)[0] for row in find(id="post1-transition-*")}
    assert {row.id: preset_of(row.id) for row in rows() if preset_of(row.id) != row.id} == SAME | transitions
    assert len(PRESETS) == 89
    assert {preset_of(row.id) for row in rows()} <= {path.stem for path in EXPERIMENTS.glob("*.yaml")}
    with FILE.open(newline="") as file:  # of their digests
        assert {entry["name"] for entry in csv.DictReader(file)} == {preset_of(row.id) for row in rows()}


def test_the_presets_are_what_the_data_make(tmp_path: Path) -> None:
    write_presets(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*")}
    committed = {path.name: path.read_bytes() for path in EXPERIMENTS.glob("[!nf]*")}  # by hand: nb-*, fast12-*
    by_hand = ("demo.yaml", "post1-batch-sizes.yaml", "post1-precision.yaml", "cooldowns.yaml")
    for name in (*by_hand, *(name for name in [*committed] if name.startswith("acc60-"))):
        del committed[name]
    assert committed == made, "python scripts/presets/make_presets.py"


def lr_by_hand(row: Published, t: float) -> float:
    """The lr at the start of epoch t + 1, from the milestones as the tables mean them."""
    if "averaging.start" in row.options and t >= row.options["averaging.start"]:
        return float(row.options["averaging.lr"])
    points = row.milestones
    assert points is not None
    if row.schedule == "piecewise_constant":
        return next((value for epoch, value in points if t < epoch), points[-1][1])
    passed = [point for point in points if point[0] <= t]
    if not passed or len(passed) == len(points):
        return (passed or points[:1])[-1][1]
    (t0, a), (t1, b) = passed[-1], points[len(passed)]
    x = (t - t0) / (t1 - t0)
    if row.schedule != "piecewise_linear":
        x = (1 - math.cos(math.pi * x)) / 2
    return a + (b - a) * x


def tolerance(row: Published) -> float:
    """Absolute. torch's 1cycle reaches its peak and its end one step early: at most a step's worth at the steepest."""
    if row.schedule != "one_cycle":
        return 0.0
    assert row.milestones is not None
    (start, _), (top, peak), (end, _) = row.milestones
    return math.pi / 2 * peak / (STEPS * min(top - start, end - top) - 1)


# every third here, the others in make test-slow: composing takes a quarter of a second each
SOME = [p if i % 3 == 0 else pytest.param(p, marks=pytest.mark.slow) for i, p in enumerate(PRESETS)]


@pytest.mark.parametrize("preset", SOME)
def test_a_preset_is_what_its_rows_say(preset: str) -> None:
    """In one test, so that a worker composes each preset once."""
    config = composed(preset)
    assert config.study == "published"
    assert digest_line(preset) in FILE.read_text().splitlines(), "python scripts/presets/make_presets.py"
    for row in rows_of(preset):
        check_learning_rates(config, row)
        check_keys(config, row)
    # network, optimizer and module; the digits stand in for CIFAR-10, which has ten classes too
    digits = ImageData(Data(name="digits", root="nowhere"), config.batch_size, config.shift, 0)
    module = build_module(config, digits)
    grouped = [p for group in module.build_optimizer().param_groups for p in group["params"]]
    assert sum(p.numel() for p in grouped) == sum(p.numel() for p in module.model.parameters())
    with torch.no_grad():
        assert module.model.eval()(torch.zeros(2, 3, 32, 32)).isfinite().sum() == 2 * 10


NINE = "experiment=post4-table1-09"


@pytest.mark.parametrize(
    ("overrides", "repeats", "reduces"),
    [
        ("", "post4-table1-09", None),
        ("seed=3 study=mine recalibrate_bn=true threads=2 thresholds=[0.9]", "post4-table1-09", None),
        ("trainer.precision=bf16-mixed", "post4-table1-09", None),
        ("wd=0.15", "post4-table1-08", None),
        ("wd=0.26", None, None),
        ("epochs=15 schedule.stretch=true data.limit=5000 data.resolution=16", None, "post4-table1-09"),
        ("model=resnet20v2 model.depth=11", None, "post4-table1-09"),
        ("model=resnet20v2 lr=1e-3", None, None),
        ("epochs=80", None, None),  # larger
        ("model=resnet110v2", None, None),
        ("model=resnet20v2 model.depth=110", None, None),
        ("model=resnet18", None, None),  # another family
        ("model.norm=group", None, None),
    ],
)
def test_a_run_is_known_as_a_repetition_or_a_reduction(
    overrides: str, repeats: str | None, reduces: str | None
) -> None:
    found = json.loads(json.dumps(compose(NINE, *overrides.split()).identity))  # as the manifest keeps it
    assert next(iter(matching_presets(found)), None) == repeats
    assert (reduction(found) or (None,))[0] == reduces


def test_a_reduction_names_what_is_reduced_and_nothing_else() -> None:
    found = compose("experiment=post1-bs64", "data.limit=500", "epochs=60").identity  # 60 is the lab's default
    assert reduction(found) == ("post1-bs64", "data.limit 500, epochs 60")
    assert reduction(compose(NINE, "model=resnet20v2").identity) == ("post4-table1-09", "model resnet20v2")
    # runs that differ in what Keras ignores are all found
    found = compose("experiment=post2-trial3b-05").identity
    assert matching_presets(found) == ["post2-trial3b-05", "post2-trial3b-06", "post2-trial3b-07"]


def check_learning_rates(config: Config, row: Published) -> None:
    if row.milestones is None:
        assert row.id in NO_MILESTONES
        return
    per_epoch = STEPS if row.schedule == "one_cycle" else 2
    span = RunLength(per_epoch, config.epochs)
    steps = schedule_table(config.schedule, config.lr, config.momentum or 0.9, span)
    config.averaging.override_lr(steps, span)
    epochs = 60 if row.id == "post2-trial1-01" else config.epochs  # its second milestone is only hinted at
    wanted = [lr_by_hand(row, t) for t in range(epochs)]
    np.testing.assert_allclose(steps[::per_epoch, 0][:epochs], wanted, rtol=1e-9, atol=tolerance(row))
    assert config.lr == max(value for _, value in row.milestones)


def check_keys(config: Config, row: Published) -> None:
    torchs = row.post in ("part1", "part2")
    assert (config.model.name, config.data.name, config.optimizer.name) == (row.model, row.dataset, row.optimizer)
    pairs: list[tuple[Any, Any]] = [(config.epochs, row.epochs), (config.batch_size, row.batch_size)]
    pairs += [(config.wd or 0.0, row.wd), (config.l2 or 0.0, row.l2), (config.momentum, row.momentum)]
    pairs += [(config.schedule.name, row.schedule), (config.shift, row.shift), (config.data.split, row.split)]
    pairs += [(config.data.augment, row.augmentation), (config.data.normalize, row.normalization)]
    assert all(printed is None or ours == printed for ours, printed in pairs)
    assert row.wd is not None or config.wd in row.wd_candidates
    kinds = {(False, False): "none", (True, False): "l2", (False, True): "weight_decay"}
    kind = kinds.get((bool(config.l2), bool(config.wd)), "l2_weight_decay")
    assert config.regularization.name == ("coupled" if torchs else kind)
    assert config.data.translate == ("pad_crop" if torchs else "shift")
    assert (config.averaging.name == "swa") == ("-swa-" in row.id)
    assert (config.momentum is None) == (row.schedule == "one_cycle")
    assert set(config.thresholds) >= {0.92, 0.93} | ({row.threshold} - {None})


def test_what_rows_leave_open_is_filled_as_the_header_says() -> None:
    assert composed("post1-bs32").epochs == 200
    assert (composed("post2-trial1-01").epochs, composed("post2-trial1-02").epochs) == (83, 64)
    assert composed("post1-mixed-precision-bs64-noaug").schedule == composed("post1-bs64").schedule
    assert composed("post4-plot-adam-l2-8e-5").schedule == composed("post4-table1-00").schedule
    assert (composed("post4-table1-21").wd, composed("post4-table1-03A").wd) == (0.2, 0.01)
    for preset, epochs in {"post5-headline-cosine": 21, "post6-headline-20ep": 25}.items():
        config = composed(preset)
        assert (config.epochs, config.batch_size, config.lr, config.wd, config.shift) == (epochs, 64, 8e-4, 0.2, 0.07)
        assert (config.schedule.shape, config.schedule.constant) == ("quarter", 10)  # type: ignore[attr-defined]
        assert (config.data.normalize, config.data.split, config.data.augment) == ("mean_image", "official", True)


def test_networks_differ_where_the_sources_do() -> None:
    def options(preset: str) -> tuple[object, ...]:
        model = composed(preset).model
        return tuple(getattr(model, key, None) for key in ("stem", "norm", "zero_init_residual", "shortcut_kernel"))

    assert options("part1-naive-resnet18-sgd") == ("imagenet", "batch", False, None)
    assert options("part1-fixed-resnet18") == ("cifar", "batch", True, None)
    assert options("part1-gn-ws-resnet9-bs32") == ("cifar", "group_ws", True, None)
    groups = {name for name in PRESETS if composed(name).model.channels_per_group == 4}
    assert groups == {"part1-gn-ws-resnet9-bs32", "part1-gn-ws-resnet18-bs32"}
    assert options("cifar10p2-cosine-50") == ("cifar", "batch", False, None)
    assert options("post6-headline-20ep") == (None, "batch", False, 3)
    assert composed("part1-naive-resnet18-adam").optimizer.eps == 1e-8  # type: ignore[attr-defined]
    assert composed("post1-bs64").optimizer.eps == 1e-7  # type: ignore[attr-defined]
    assert composed("atienza-resnet56v1-200").model.bn_momentum == composed("post1-bs64").model.bn_momentum == 0.01
    swa = composed("part2nb-swa-20+20").averaging
    assert isinstance(swa, SWA)
    assert (swa.start, swa.lr) == (20, 0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_header_says_what_was_published_and_what_is_filled(preset: str) -> None:
    lines = (EXPERIMENTS / f"{preset}.yaml").read_text().splitlines()
    header = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    text = " ".join(" ".join(header).split())
    assert f"  python train.py experiment={preset}" in header
    assert f"Confidence: {BY_ID[preset].confidence}" in text
    for row in rows_of(preset):
        assert row.id in text
        assert (row.val_acc_best is None) or f"best {row.val_acc_best:g}" in text
    assert ("Filled in: epochs" in text) == (BY_ID[preset].epochs is None)
    sweeps = [line.split("-m wd=")[1] for line in header if "-m wd=" in line]
    assert bool(sweeps) == (preset in WD_LOST)
    for sweep in sweeps:
        assert {float(wd) for wd in sweep.split(",")} == set(BY_ID[preset].wd_candidates)
    assert ("data.fill=black" in text) == (composed(preset).data.translate == "pad_crop")
    ema = BY_ID[preset].ema_momentum
    assert ("averaging=ema" in text) == (ema is not None)


def test_the_command_line_wins_over_a_preset() -> None:
    config = compose("experiment=post2-trial3b-07", "averaging=ema", "ema_momentum=0.95", "epochs=30")
    assert (config.averaging.name, config.ema_momentum, config.epochs) == ("ema", 0.95, 30)
    later = "schedule.milestones=[[81,1],[121,0.1],[161,0.01],[181,0.001],[200,0.0005]]"
    assert compose("experiment=post1-bs32", later).schedule == compose("schedule=piecewise_constant").schedule
    assert compose("experiment=post4-table1-21", "lr=4e-4").schedule.lr(0, 4e-4, RunLength(1, 60)) == 4e-4


def test_find_filters_and_names_what_is_valid() -> None:
    assert {row.post for row in find(post="II")} == {"II"}
    assert [row.id for row in find(post="IV", id="*-adam-*")] == ["post4-plot-adam-l2-8e-5"]
    assert len(find(id="nb-*")) == 13
    assert find(post="I", id="nb-*") == []
    with pytest.raises(ConfigError, match="post4-table1-99"):
        preset_of("post4-table1-99")


def test_published_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "--id", "post4-table*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    split = ([cell.strip() for cell in line.split("│")] for line in lines if "│" in line)
    cells = {name: rest for _, name, *rest, _ in split}
    assert len(cells) == 27
    wanted = ["0.9349 @ 59", "0.25", "0", "52@0.93", "adamw", "60", "piecewise_linear", "0.0008", "64", "resnet56v2"]
    assert cells["post4-table1-09"] == [*wanted, "0.93", "", "medium"]
    assert cells["post4-table1-21"][1] == "?"
    assert cells["post4-table1-00"][3] == "(47@0.92)"
    assert cells["post4-table2-15"][11] == "post4-table2-13"


def test_published_prints_json_and_csv_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in printed] == list(BY_ID)
    assert printed[0]["preset"] == "post1-bs32"
    assert printed[0]["milestones"][0] == [80, 0.001]
    assert set(printed[0]) == {"preset"} | {field.name for field in fields(Published)}
    assert main(["published", "--format", "csv", "--post", "part2"]) == 0
    first, *others = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["preset"], len(others)) == ("cifar10p2-multistep-50", 14)
    assert json.loads(first["milestones"]) == [[25, 0.05], [40, 0.005], [50, 0.0005]]
    assert (first["augmentation"], first["shift"]) == ("true", "")
    assert main(["published", "--format", "csv", "--post", "fastai", "--id", "post1-*"]) == 0  # no such row
    assert capsys.readouterr().out == ",".join(["preset", *(field.name for field in fields(Published))]) + "\n"


@pytest.mark.parametrize("arguments", [(), ("--post", "VI"), ("--id", "nb-*"), ("--claims", "runs", "--post", "V")])
def test_80_columns_are_readable_and_wide_prints_all(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(Path("runs"))
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a terminal
    monkeypatch.setenv("COLUMNS", "80")
    printed = []
    for further in ((), ("--wide",)):
        assert main(["published", *arguments, *further]) == 0
        printed.append(re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out))
    narrow, wide = printed
    assert "--wide" in narrow
    assert "…" not in narrow
    assert max(len(line) for line in narrow.splitlines() if line[:1] in "│┃├") <= 80
    last = "would decide it" if "--claims" in arguments else "confidence"
    assert (last in narrow, last in wide) == (False, True)
