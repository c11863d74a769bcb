"""What a report must not suggest: false intervals, lost columns, squashed axes, formulas, changing names."""

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from resnetlab import compose
from resnetlab.cli import main
from resnetlab.published.series_report import SERIES_PLOTS
from resnetlab.report import table
from resnetlab.report.card import model_card
from resnetlab.report.columns import columns
from resnetlab.report.derive import add_derived_metrics
from resnetlab.report.groups import Collection, bounds, collect, groups_along
from resnetlab.report.headline_plots import plot_accuracy, plot_lengths
from resnetlab.report.headlines import command, lag_line, override
from resnetlab.report.plots import Plot, color_of
from resnetlab.report.table import print_table
from resnetlab.runs.curves_plot import draw_accuracy, draw_loss, epochs_rates
from resnetlab.runs.files import safe_cell
from resnetlab.runs.load import read_run, run_paths
from resnetlab.runs.summary import lag_note
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.table import seed_metrics
from synthetic import change_summary, synthetic_rows, write_run

RUNS = Path("runs")


@pytest.mark.parametrize(
    ("metric", "values", "low", "high"),
    [
        ("final_val_acc", (0.1, 0.5, 0.9), 0.0, 1.0),
        ("averaged_test_acc", (0.99, 0.999, 0.9), None, 1.0),
        ("final_val_loss", (0.1, 4.0, 9.0), 0.0, None),
        ("seconds_per_epoch", (1.0, 90.0, 5.0), 0.0, None),
        ("best_epoch", (2, 30, 3), 1.0, None),
        ("final_val_acc", (0.1, 0.5), None, None),
    ],
)
def test_an_interval_ends_where_the_metric_does(
    metric: str, values: tuple[float, ...], low: float | None, high: float | None
) -> None:
    for seed, value in enumerate(values):
        change_summary(write_run(RUNS, seed=seed, epochs=30), **{metric: value})
    found = collect([RUNS]).configurations[0].interval(metric)
    assert found is not None
    assert (found.low is None) == (len(values) < 3)
    assert low is None or found.low == low
    assert high is None or found.high == high


def test_an_interval_ends_where_the_metric_does_in_a_tracker_and_on_a_card_too() -> None:
    jobs = [(f"wd=0.1, seed={n}", compose("wd=0.1", f"seed={n}")) for n in range(4)]
    outcomes = {n: Outcome("finished", value) for n, value in enumerate((0.99, 0.999, 0.9))}  # one has left none
    found = seed_metrics(outcomes, jobs, "final_val_acc")
    assert (found["final_val_acc/n"], found["final_val_acc/high"]) == (3, 1.0)
    for n, outcome in outcomes.items():
        change_summary(write_run(RUNS, seed=n), final_val_acc=outcome.value)
    (c,) = collect([RUNS]).configurations
    about = {"weights": "raw", "figures": {}, "model": "m", "data": "d", "classes": [], "height": 8, "width": 8}
    about |= {"identity": {}, "epoch": 6, "split": "official"}
    card = model_card(c.runs[0].path, about, c.runs[0].rows, "val/acc")
    assert f"95 % interval {found['final_val_acc/low']:.4f} to 1.0000, n = 3 seeds" in card


def test_what_has_no_bound_has_none() -> None:
    assert bounds("final_penalty") == (-float("inf"), float("inf"))
    assert bounds("epoch_to_0.92") == (1.0, float("inf"))
    assert bounds("val_acc_at_0.92") == (0.0, 1.0)


@pytest.mark.parametrize(
    ("key", "heading"),
    [
        ("final_val_acc_avg", "averaged val acc"),
        ("final_val_acc_recal", "re-estimated val acc"),
        ("averaged_test_acc", "averaged test acc"),
    ],
)
def test_averaged_and_reestimated_accuracies_are_in_every_table(
    key: str, heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change_summary(write_run(RUNS), **{key: 0.8765})
    write_run(RUNS, wd=0.5)
    assert main(["report", "runs", "--out", "out"]) == 0
    assert "0.8765" in capsys.readouterr().out
    assert "0.8765" in Path("out/report.html").read_text()
    rows = list(csv.DictReader(Path("out/table.csv").read_text().splitlines()))
    assert sorted(row[f"{key}_mean"] for row in rows) == ["", "0.8765"]
    text = Path("out/table.md").read_text()
    assert heading in text
    assert "0.8765" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_has_fewer_columns_and_wide_has_all(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        change_summary(write_run(RUNS, seed=seed), final_val_acc_recal=0.9 + seed / 100)
    monkeypatch.setattr(table, "WIDTH", width)
    print_table(collect([RUNS]))
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line[:1] in "│┃"]
    assert max(map(len, lines)) <= width
    assert "0.9050 ± 0.0071" in printed  # the re-estimated accuracy fits into 80 columns
    assert "…" not in printed
    assert "more columns: --wide" in printed
    print_table(collect([RUNS]), wide=True)
    printed = capsys.readouterr().out
    assert "s / epoch" in printed
    assert "--wide" not in printed


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", " =1", "\t=1", "\r@x", "-x"])
def test_no_text_of_a_csv_begins_a_formula(text: str) -> None:
    assert safe_cell(text) == "'" + text.replace("\r", " ")
    assert safe_cell(f"\uff1d{text}") == "'\uff1d" + text.replace("\r", " ")  # full-width
    write_run(RUNS, study="plain", model=text)
    assert main(["report", "runs", "--out", "out"]) == 0
    for row in csv.reader(io.StringIO(Path("out/table.csv").read_bytes().decode(), newline="")):
        assert not any(cell.lstrip().startswith(("=", "+", "@", "-x", "-2+3")) for cell in row)


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+2", "-1e-9", None, True, "plain", ""])
def test_numbers_of_a_csv_stay_numbers(value: object) -> None:
    assert safe_cell(value) == value


@pytest.mark.parametrize(
    "overrides",
    [
        ("data=digits", "model.depth=11", "epochs=3", "wd=0.25"),
        ("data=digits", "data.flip=true", "model.bn_momentum=0.01"),  # the lab's defaults, which digits set otherwise
        ("data=svhn", "data.flip=true"),
        (
            "model.depth=11",
            "init=null",
            'callbacks=[{function: lightning.pytorch.callbacks.ModelCheckpoint, parameters: {filename: "a b"}}]',
        ),
        ("optimizer=sgd", "regularization=coupled", "schedule=cosine", "schedule.final=0.1", "momentum=0.5"),
        ("averaging=ema", "ema_momentum=0.9", "recalibrate_bn=true", "lr=1e-5", "data.augment=false"),
        ("experiment=post4-table1-09", "trainer.precision=bf16-mixed"),
        ("schedule=multistep", "schedule.milestones=[10,20]", "data.limit=640", "data.resolution=8", "threads=2"),
    ],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2), (3, 7), (5,)])
def test_the_command_that_repeats_a_run_has_its_identity(overrides: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    config = compose(*overrides)
    identity = config.identity
    for seed in seeds:
        folder = write_run(RUNS, seed=seed)
        path = folder / "manifest.json"
        parts = {"data": {"flip": config.data.flip}, "model": {"bn_momentum": config.model.bn_momentum}}
        known = {"differs_from_defaults": identity, "config": parts}
        path.write_text(json.dumps(json.loads(path.read_text()) | known))
        said = json.loads((folder / "summary.json").read_text())
        change_summary(folder, **{key: value for key, value in identity.items() if key in said})
    (configuration,) = collect([RUNS]).configurations
    words = shlex.split(command(configuration))
    assert words[:2] == ["python", "train.py"]
    ending = {(0,): [], (0, 1, 2): ["seeds=3"], (3, 7): ["seed=3,7"], (5,): ["seed=5"]}[seeds]
    assert [word for word in words if word.startswith("seed")] == ending
    settings = [word for word in words[2:] if word != "-m" and not word.startswith("seed")]
    assert compose(*settings).identity == identity


def test_the_report_opens_with_the_best_and_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    for wd, best in ((0.1, 0.91), (0.2, 0.94), (0.3, 0.92)):
        change_summary(write_run(RUNS, wd=wd), best_val_acc=best)
    assert main(["report", "runs", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    lead = "None of 3 configurations is shown to be the best; wd 0.2 is the highest: 0.9400."
    assert f"one: {lead} wd 0.2: best validation accuracy 0.9400 (n = 1); the mean over seeds reaches 0.92" in printed
    assert re.search(r"to repeat it: python train.py .*wd=0.2", printed)
    head = Path("out/report.html").read_text().split("<section")[0]
    assert lead in head
    assert "wd 0.2: best validation accuracy 0.9400" in head
    assert "to repeat it: <code>python train.py" in head
    order = [row["wd"] for row in csv.DictReader(Path("out/table.csv").read_text().splitlines())]
    assert order == ["0.2", "0.3", "0.1"]  # the best first, as in the figures


def colors(plot: Plot | str, labels: list[str]) -> dict[str, str]:
    """{configuration: the colour of its line}."""
    assert isinstance(plot, Plot)
    lines = [line for axes in plot.figure.axes for line in axes.get_lines()]
    names = {line: re.sub(r", (n = \d+|and \d+ with the same)$", "", str(line.get_label())) for line in lines}
    return {name: to_hex(line.get_color()) for line, name in names.items() if name in labels}


def settings_of_repetition(config: dict[str, Any], **settings: Any) -> list[str]:
    """The words of the command that repeats a run of these settings, whose manifest has that configuration."""
    folder = write_run(RUNS, **settings)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"config": config}))
    return shlex.split(command(collect([RUNS]).configurations[0]))[2:]


def test_the_command_that_repeats_a_run_of_own_images_names_their_folder_and_not_their_digest() -> None:
    known = {"root": "my pictures", "skip_broken": True, "function": None, "parameters": None}
    words = settings_of_repetition({"data": known}, **{"data": "folder", "data.digest": "0" * 16})
    found = [word for word in words if word.startswith("data")]
    assert found == ["data.root='my pictures'", "data.skip_broken=true", "data=folder"]


def test_the_command_that_repeats_a_run_names_its_function_of_images_and_its_first_weights() -> None:
    known = {"root": None, "function": "mine.images", "parameters": {"side": 16}}
    first = "outputs/default/a/seed=0/checkpoints/best.ckpt"
    settings = {"data": "custom", "data.digest": "0" * 16, "init": "1" * 16}
    words = settings_of_repetition({"data": known, "init": first}, **settings)
    wanted = ["data.function=mine.images", "data.parameters={side:16}", "data=custom", f"init='{first}'"]
    assert [word for word in words if word.startswith(("data", "init"))] == wanted


def test_accuracy_against_length_joins_the_means_of_runs_that_differ_in_their_length_alone() -> None:
    ends = {4: (0.5, 0.6), 8: (0.7, 0.74), 16: (0.75, 0.79)}
    for epochs, values in ends.items():
        for seed, value in enumerate(values):
            folder = write_run(RUNS / str(epochs), seed=seed, epochs=epochs)
            change_summary(folder, final_val_acc=value, final_val_acc_recal=value + 0.1)
    write_run(RUNS / "other", epochs=8, lr=1.0)  # alone in its group
    groups = groups_along(collect([RUNS]).configurations, "epochs")
    assert [[c.setting("epochs") for c in group] for group in groups] == [[4, 8, 16]]
    plot = plot_lengths(groups, ["0.6"])
    axes = plot.figure.axes[0]
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    means = [[sum(values) / 2 + more for values in ends.values()] for more in (0.0, 0.1)]
    assert [list(line.get_xdata()) for line in drawn] == [[4, 8, 16]] * 2
    assert [list(line.get_ydata()) for line in drawn] == [pytest.approx(mean) for mean in means]
    points = {(x, y) for line in axes.get_lines() if line.get_marker() == "o" for x, y in line.get_xydata()}
    assert {(epochs, value) for epochs, values in ends.items() for value in values} <= points
    assert plot.caption.endswith("n = 2 a point.")
    main(["report", str(RUNS), "--out", "page"])
    assert Path("page/figures/01-one-lengths.png").is_file()


def test_a_configuration_has_one_colour_and_one_name_in_all_figures() -> None:
    for seed in (0, 1):
        for wd in (0.1, 0.2, 0.3):
            for norm in ({}, {"model.norm": "group"}):
                write_run(RUNS, seed=seed, epochs=30, best=0.9 + wd / 20, wd=wd, lr=8e-4 * (1 + wd), **norm)
    collection = collect([RUNS])
    labels = [c.label for c in collection.configurations]
    side = {c.label: to_hex(color_of(c)) for c in collection.configurations}
    assert len(side) == len(set(side.values())) == 6
    large = plot_accuracy(collection.configurations, ["0.92"]).figure.axes[0]
    named = {text.get_text().replace("\n", " "): to_hex(text.get_color()) for text in large.texts}
    assert {label: named[f"{label}, n\xa0=\xa02"] for label in labels[:5]} == {
        label: side[label] for label in labels[:5]
    }
    for draw in SERIES_PLOTS:
        plot = draw(collection.configurations, ["0.92"])
        if isinstance(plot, Plot) and plot.stem == "batchnorm-lag":
            for label, color in colors(plot, labels).items():
                assert side[label] == color
    texts = [text for draw in SERIES_PLOTS if isinstance(plot := draw(collection.configurations, ["0.92"]), Plot)
             for legend in plot.figure.legends for text in (t.get_text() for t in legend.get_texts())]  # fmt: skip
    assert texts
    assert not [text for text in texts if re.fullmatch(r"line \d+", text)]


def test_lines_are_named_by_what_they_differ_in() -> None:
    for wd in (0.1, 0.3):
        for extra in ({}, {"model.norm": "group"}, {"batch_size": 32}):
            write_run(RUNS, wd=wd, **extra)
    plot = SERIES_PLOTS[0](collect([RUNS]).configurations, ["0.92"])
    assert isinstance(plot, Plot)
    names = {text.get_text() for text in plot.figure.legends[0].get_texts()}
    assert names == {"default norm, batch 64", "norm group, batch 64", "default norm, batch 32"}


def test_the_series_words_are_for_its_presets_and_the_data_set_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for wd in (0.1, 0.3):
        write_run(RUNS, wd=wd, data="digits", lr=0.5)
    assert main(["report", "runs", "--out", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert not re.search("the series|post IV|transition epoch", page, re.IGNORECASE)
    assert "data digits" in page
    assert "digits" in capsys.readouterr().out
    assert "| data |" in Path("out/table.md").read_text()
    assert not re.search(r"\bm \(?(ema|0\.9)", page)


@pytest.mark.parametrize(("best", "shown"), [(0.3, []), (0.88, [0.92, 0.93]), (0.929, [0.92, 0.93]), (0.5, [])])
def test_a_threshold_far_above_the_curves_does_not_squash_them(best: float, shown: list[float]) -> None:
    axes = Figure().subplots()
    rows = [
        {"epoch": e, "train/acc": best - 0.6 * (10 - e) / 20, "val/acc": best - 0.6 * (10 - e) / 20}
        for e in range(1, 11)
    ]
    draw_accuracy(axes, rows, [0.92, 0.93])
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert [lines[f"threshold {value:g}"][0] for value in shown] == shown
    assert f"best: {best:.4f} in epoch 10" in lines
    hidden = [label for label in lines if str(label).endswith("off this axis")]
    assert len(hidden) == 2 - len(shown)
    assert axes.get_ylim()[1] < best + 0.2


@pytest.mark.parametrize(("least", "most", "shown"), [(0.3, 3.0, ["0.5", "1", "2"]), (0.02, 3.0, ["0.1", "1"])])
def test_a_logarithmic_loss_axis_has_more_labels_than_its_decade(least: float, most: float, shown: list[str]) -> None:
    figure = Figure()
    axes = figure.subplots()
    rows = [
        {"epoch": e, **dict.fromkeys(("train/loss", "train/ce", "val/loss"), v)} for e, v in ((1, most), (2, least))
    ]
    draw_loss(axes, rows, None, None)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    labels = [label.get_text() for label in axes.get_yticklabels(which="both")]
    assert {*shown} <= {label for label in labels if label and low <= float(label) <= high}


def test_thresholds_stand_in_ascending_order_and_the_runs_first_one_decides() -> None:
    folder = write_run(RUNS, epochs=30)
    change_summary(folder, **{f"epoch_to_{name}": None for name in (0.92, 0.93)})
    summary = json.loads((folder / "summary.json").read_text())
    order = {"epoch_to_0.92": None, "epoch_to_0.9": None, "epoch_to_0.93": None, "epoch_to_0.95": None}
    (folder / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if k not in order} | order))
    collection = collect([RUNS])
    assert collection.thresholds[0] == "0.92"
    ascending = ["0.9", "0.92", "0.93", "0.95"]
    assert [c.metric[9:] for c in columns(collection.thresholds) if c.metric.startswith("epoch_to_")] == ascending
    axes = Figure().subplots()
    draw_accuracy(axes, [{"epoch": 1, "val/acc": 0.9}, {"epoch": 2, "val/acc": 0.93}], [0.92, 0.91, 0.93])
    lines = {str(line.get_label()): line.get_linestyle() for line in axes.get_lines()}
    found = {label: style for label, style in lines.items() if label.startswith("threshold")}
    assert list(found.items()) == [("threshold 0.91", ":"), ("threshold 0.92", "-"), ("threshold 0.93", ":")]


def test_an_epochs_rate_stands_over_the_epoch_in_which_it_was_applied() -> None:
    rows = [{"epoch": e, "lr": 0.1 if e < 3 else 0.01} for e in range(1, 5)]
    assert epochs_rates(rows) == ([0, 1, 2, 3, 4], [0.1, 0.1, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(
    ("last", "classes", "said"),
    [
        ({"train/acc": 0.378, "val/acc": 0.14}, 10, "is at chance"),  # the README's command of 30 steps
        ({"train/acc": 0.10, "val/acc": 0.012}, 100, "is at chance"),
        ({"train/acc": 0.67, "val/acc": 0.38, "val/acc_recal": 0.60}, 10, "lag"),
        ({"train/acc": 0.378, "val/acc": 0.10, "val/acc_recal": 0.11}, 10, None),  # re-estimated: it did not learn
        ({"train/acc": 0.12, "val/acc": 0.10}, 10, None),  # learned nothing yet
        ({"train/acc": 0.99, "val/acc": 0.45}, 10, None),  # overfits
        ({"train/acc": 0.93, "val/acc": 0.92, "val/acc_recal": 0.93}, 10, None),
        ({"train/acc": 0.93, "val/acc": 0.90, "val/acc_recal": 0.96}, 10, "lag"),  # from 0.05 on
        ({"train/acc": 0.93, "val/acc": 0.90, "val/acc_recal": 0.94}, 10, None),
    ],
)
def test_lagging_statistics_are_said(last: dict[str, float], classes: int, said: str | None) -> None:
    note = lag_note([{"epoch": 1, **last}], classes)
    assert (note is None) == (said is None)
    if note is not None and said is not None:
        assert said in note
        assert "\n" not in note
        assert "recalibrate_bn=true" in note
        assert "docs/batch-norm-lag.md" in note


def test_the_report_says_in_one_line_which_runs_statistics_lag(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"train/acc": 0.4, "val/acc": 0.1} for row in synthetic_rows(6, 0.9)]
    write_run(RUNS, wd=0.1, rows=rows)
    write_run(RUNS, wd=0.2)
    assert main(["report", "runs", "--out", "out"]) == 0
    said = "Batch-norm statistics lag in 1 of 2 runs (one: wd 0.1)"
    assert said in capsys.readouterr().out
    assert said in Path("out/report.html").read_text()
    assert lag_line(Collection([])) == ""


@pytest.mark.parametrize(("classes", "lags"), [(3, 0), (2.5, 1), (None, 1), (10, 1), (47, 0)])
def test_the_manifests_number_of_classes_says_what_chance_is(classes: float | None, lags: int) -> None:
    """Validation at 0.12 and training at 0.25: of ten classes one is at chance, of three both, of 47 none."""
    folder = write_run(
        RUNS, data="emnist", rows=[r | {"train/acc": 0.25, "val/acc": 0.12} for r in synthetic_rows(6, 0.9)]
    )
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | ({} if classes is None else {"classes": classes})))
    assert bool(lag_line(collect([RUNS]))) == bool(lags)


def test_tensorboard_links_have_the_reports_names() -> None:
    folder = write_run(RUNS, wd=0.1)
    write_run(RUNS, wd=0.2, study="a/../b")
    Path("out/tensorboard").mkdir(parents=True)
    Path("out/tensorboard/mine").write_text("mine")
    assert main(["report", "runs", "--out", "out"]) == 0
    assert main(["report", "runs", "--out", "out"]) == 0
    found = {path.name: path for path in Path("out/tensorboard").iterdir()}
    assert "mine" in found
    links = {name: path.resolve() for name, path in found.items() if path.is_symlink()}
    wanted = {f"{c.study}, {c.label}, seed 0".replace("/", "_") for c in collect([Path("runs")]).configurations}
    assert links.keys() == wanted >= {"a_.._b, resnet56v2, adamw, piecewise_linear, weight_decay, seed 0"}
    assert folder.resolve() in links.values()
    assert len(links) == 2


def test_what_a_best_checkpoint_loses_on_test_images_is_of_the_same_weights() -> None:
    """With an average best.ckpt is the average's best, unless the objective says otherwise (test_checkpoints)."""
    found = {"best_val_acc": 0.92, "best_val_acc_avg": 0.94, "final_val_acc": 0.9, "best_test_acc": 0.935}
    for objective, best in (("final_val_acc_avg", 0.94), ("best_val_acc", 0.92)):
        run = read_run(write_run(RUNS))
        run.metrics, run.manifest = dict(found), {"config": {"objective": objective}}
        add_derived_metrics(run, [])
        assert run.metrics["best_minus_test"] == pytest.approx(best - 0.935)
        assert run.metrics["best_minus_final"] == pytest.approx(0.02)


def test_a_report_below_the_folder_that_it_reads_leaves_the_runs_their_places() -> None:
    folders = [write_run(RUNS, study=study, seed=seed) for study in ("alpha", "zeta") for seed in range(2)]
    for _ in range(2):
        assert main(["report", "runs", "--out", "runs/report"]) == 0
    assert sorted(run_paths([RUNS])) == sorted(folders)


def test_runs_of_long_names_have_a_link_each() -> None:
    for seed in range(3):
        write_run(RUNS, seed=seed, study="s" * 230)
    assert main(["report", "runs", "--out", "out"]) == 0
    links = {path.resolve() for path in Path("out/tensorboard").iterdir()}
    assert links == {path.resolve() for path in RUNS.rglob("seed=*")}


def test_a_copy_without_its_manifest_is_counted_once_and_listed() -> None:
    for root in ("runs/a", "runs/b"):
        for seed in range(2):
            folder = write_run(Path(root), seed=seed)
    (folder / "manifest.json").unlink()
    found = collect([RUNS])
    assert [c.n for c in found.configurations] == [2]
    assert [run.kind for run in found.skipped] == ["repeated", "repeated"]
    assert main(["status", "--once", "runs"]) == 0


def test_a_path_of_any_characters_is_quoted_for_hydra() -> None:
    for value in ("/home/j\N{LATIN SMALL LETTER O WITH DIAERESIS}rg/x", "Bob's images", "a=b", "a,b"):
        assert compose(f"data.root={override(value)}").data.root == value
