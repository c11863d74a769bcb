"""Sweeps that a preset brings along, and what several seeds say: in the sweep's table and in the report."""

import json
import re
import statistics
from pathlib import Path

import pytest
import torch

from conftest import tiny
from resnetlab import Config, ConfigError
from resnetlab.cli import train_main as main
from resnetlab.config.overrides import compose_jobs, jobs_of, normalize_arguments
from resnetlab.published.preset_matching import matching_presets
from resnetlab.report.groups import collect
from resnetlab.report.page import page
from resnetlab.report.table import count_text, table_md
from resnetlab.runs.sweep_records import Outcome, planned_seeds, read_plan
from resnetlab.sweeps.table import seed_lines


def found(command: str) -> list[tuple[str, Config]]:
    arguments = normalize_arguments(command.split())
    return compose_jobs([a for a in arguments if a != "-m"], multirun="-m" in arguments)


def row(label: str, config: Config) -> tuple[object, ...]:
    """What post I varies, and the published row that a run repeats."""
    preset = next(iter(matching_presets(config.identity)), None)
    return label, config.batch_size, config.trainer.precision, config.seed, preset


def check_recipe(config: Config) -> None:
    """Post I's, by hand."""
    assert (config.model.name, config.data.name, config.optimizer.name) == ("resnet56v2", "cifar10", "adam")
    assert (config.regularization.name, config.l2, config.wd, config.lr) == ("l2", 1e-4, None, 1e-3)
    assert (config.schedule.name, config.epochs, config.shift, config.study) == (
        *("piecewise_constant", 200),
        *(0.1, "post1"),
    )
    points = [[80, 1.0], [120, 0.1], [160, 0.01], [180, 0.001], [200, 0.0005]]
    assert config.schedule.milestones == points  # type: ignore[attr-defined]
    assert config.thresholds == [0.91, 0.92, 0.925, 0.927, 0.928, 0.93]
    assert (config.data.augment, config.data.normalize, config.data.split) == (True, "mean_image", "official")


def test_post_1s_batch_sizes_are_these_jobs() -> None:
    jobs = found("-m experiment=post1-batch-sizes seeds=2")
    assert [row(*job) for job in jobs] == [
        ("batch_size=32, seed=0", 32, "32-true", 0, "post1-bs32"),
        ("batch_size=32, seed=1", 32, "32-true", 1, "post1-bs32"),
        ("batch_size=64, seed=0", 64, "32-true", 0, "post1-bs64"),
        ("batch_size=64, seed=1", 64, "32-true", 1, "post1-bs64"),
        ("batch_size=128, seed=0", 128, "32-true", 0, "post1-bs128"),
        ("batch_size=128, seed=1", 128, "32-true", 1, "post1-bs128"),
    ]
    for _, config in jobs:
        check_recipe(config)


def test_post_1s_precisions_are_these_jobs_and_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="16-mixed"):
        found("-m experiment=post1-precision")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    jobs = found("-m experiment=post1-precision")
    assert [row(*job) for job in jobs] == [
        ("trainer.precision=32-true", 64, "32-true", 0, "post1-bs64"),
        ("trainer.precision=16-mixed", 64, "16-mixed", 0, "post1-bs64"),
    ]
    for _, config in jobs:
        check_recipe(config)


def test_the_command_line_wins_over_a_presets_sweep() -> None:
    jobs = found("experiment=post1-batch-sizes -m batch_size=16,64")
    assert [config.batch_size for _, config in jobs] == [16, 64]
    ((label, config),) = found("experiment=post1-batch-sizes batch_size=128")
    assert (label, config.batch_size) == ("", 128)
    assert [label for label, _ in jobs_of(["experiment=post1-batch-sizes"])] == [
        f"batch_size={size}" for size in (32, 64, 128)  # a tool needs no -m
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("experiment=post1-batch-sizes", "this preset is a sweep over batch_size=32,64,128: add -m"),
        ("-m experiment=post1-bs32,post1-batch-sizes", "experiment=post1-batch-sizes is a sweep of its own"),
    ],
)
def test_what_would_not_be_swept_is_refused(command: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert wanted in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert not any(Path().iterdir())


def test_a_sweep_of_its_own_over_seeds_and_the_report_know_each_other(sweep, preset) -> None:
    """Hydra's jobs are those that were checked and written down."""
    mine = preset("epochs: 1", 'hydra: {sweeper: {params: {wd: "0.1,1e30"}}}')
    status, out, _ = sweep(mine, "seeds=2")
    assert status == 0
    (folder,) = Path("outputs/default/sweeps").iterdir()
    planned = read_plan(folder)
    labels = [job["label"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]]
    assert labels == [f"wd={wd}, seed={n}" for wd in ("0.1", "1e+30") for n in range(2)]
    ends = [json.loads((folder / f"job-{number}.json").read_text())["folder"] for number in range(4)]
    assert [f"outputs/{job.run}" for job in planned] == ends
    values = [json.loads(Path(end, "summary.json").read_text())["final_val_acc"] for end in ends[:2]]
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    assert re.search(rf"^wd=0.1 +{mean:.4f} ± {sd:.2g} +n = 2$", out, re.MULTILINE)
    assert re.search(r"^wd=1e\+30 +\S +n = 0 of 2; 2 diverged$", out, re.MULTILINE)
    Path(ends[1], "summary.json").unlink()
    assert planned_seeds(map(Path, ends)) == {tuple(job.run.split("/")[:2]): {0, 1} for job in planned}
    outputs = [Path("outputs")]
    assert "| n = 1 of 2, no spread |" in table_md(collect(outputs), None)
    assert ">n = 1 of 2, no spread</td>" in page(collect(outputs), {}, [], None, {}, [])
    for path in folder.iterdir():
        path.write_text("{")
    assert "| n = 1, no spread |" in table_md(collect(outputs), None)


def test_seeds_in_a_table_by_hand() -> None:
    jobs = [(f"lr=0.1, seed={n}", tiny("lr=0.1", f"seed={n}")) for n in range(3)]
    jobs += [(f"lr=0.2, seed={n}", tiny("lr=0.2", f"seed={n}")) for n in (0, 1, 1)]
    outcomes = dict(
        enumerate([
            Outcome("finished", 0.92), Outcome("skipped", 0.94, "already finished"), Outcome("failed", reason="x"),
            Outcome("finished", 0.5), Outcome("skipped", 0.0, "already diverged", diverged=True), Outcome("skipped"),
        ])
    )  # fmt: skip
    assert seed_lines(outcomes, jobs, "final_val_acc") == [
        "over seeds  final_val_acc",
        "lr=0.1      0.9300 ± 0.014  n = 2 of 3; 1 failed",
        "lr=0.2      0.5000          n = 1 of 2, no spread; 1 diverged",
    ]
    assert seed_lines(outcomes, [jobs[0], jobs[3]], "final_val_acc") == []
    two = [("seed=0", jobs[0][1]), ("seed=1", jobs[1][1])]
    assert seed_lines(outcomes, two, "final_val_acc")[1] == "all seeds   0.9300 ± 0.014  n = 2"
    assert count_text(1) == "n = 1, no spread"
    assert (count_text(3), count_text(3, 3), count_text(3, 5)) == ("n = 3", "n = 3", "n = 3 of 5")


def test_a_plan_that_cannot_be_read_is_none() -> None:
    for text in ("", "[]", '{"jobs": 1}', '{"jobs": [1, {"run": "../a"}, {"run": "a/b/seed=1", "label": 1}]}'):
        Path("sweep.json").write_text(text)
        assert read_plan(Path()) == []
