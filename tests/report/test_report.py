"""The report over folders as they are found: finished, damaged, foreign, running, and named alike."""

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from resnetlab import compose
from resnetlab.cli import main
from resnetlab.published.series_report import SERIES_PLOTS, values_of
from resnetlab.report.columns import SETTINGS, ReferenceValues, columns
from resnetlab.report.compare import compare
from resnetlab.report.groups import Collection, Key, collect
from resnetlab.report.write import write_report
from resnetlab.runs.files import read_rows, write_rows
from resnetlab.runs.summary import CHOICES
from synthetic import change_summary, write_run

RUNS = Path("runs")


def reasons(collection: Collection) -> list[str]:
    return [f"{unused.kind}: {unused.reason}" for unused in collection.skipped]


def report(references: dict[Key, ReferenceValues] | None = None) -> str:
    """The page over RUNS, with the series' plots."""
    write_report(collect([RUNS]), Path("out"), references, plots=SERIES_PLOTS)
    return Path("out/report.html").read_text()


def change_identity(folder: Path, **changes: object) -> None:
    """Puts other values into a manifest's differs_from_defaults."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"differs_from_defaults": content["differs_from_defaults"] | changes}))


def table() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("out/table.csv").read_text().splitlines()))


def test_an_empty_folder() -> None:
    RUNS.mkdir()
    assert main(["report", "runs", "--out", "out"]) == 0
    assert "No finished run" in Path("out/report.html").read_text()
    assert table() == []


def test_what_cannot_be_used_is_named_with_its_reason() -> None:
    folders = [write_run(RUNS, seed=seed) for seed in range(10)]
    text = (folders[1] / "metrics.csv").read_text()
    (folders[1] / "metrics.csv").write_text(text[: len(text) // 2])
    (folders[2] / "metrics.csv").write_text(text[:-9])  # in the middle of the last number
    (folders[3] / "summary.json").write_text('{"name": "a package", "version": 1}')
    (folders[4] / "summary.json").write_text('{"status": "finished", "study"')
    (folders[5] / "summary.json").unlink()
    (folders[5] / "metrics.csv").write_text("".join(text.splitlines(keepends=True)[:4]))
    change_summary(folders[6], status="diverged", diverged_epoch=5, diverged_quantity="val/loss")
    change_summary(folders[7], best_val_acc="high")
    (folders[8] / "metrics.csv").unlink()
    (folders[9] / "metrics.csv").write_bytes(b"\x00\xff\xfe")
    collection = collect([RUNS])
    assert [run.seed for run in collection.runs] == [0]
    assert [reason.split(" (")[0] for reason in reasons(collection)] == [
        "unreadable: metrics.csv is cut off or damaged: 3 rows for 6 epochs",
        "unreadable: metrics.csv is cut off or damaged: 6 rows for 6 epochs",
        "unreadable: summary.json is not a run's: status is None",
        "unreadable: summary.json cannot be read",
        "unfinished: not finished: 3 of 6 epochs are written",
        "diverged: diverged in epoch 5: val/loss is not finite",
        "unreadable: summary.json is not a run's: best_val_acc is 'high'",
        "unreadable: metrics.csv cannot be read",
        "unreadable: metrics.csv cannot be read",
    ]
    page = report()
    for folder in folders[1:]:
        assert str(folder) in page
    assert "n = 1, no spread" in page
    assert "diverged in epoch 5" in Path("out/table.md").read_text()


def test_nan_is_left_out_with_a_remark() -> None:
    folder = write_run(RUNS, epochs=30, best=0.95)
    rows = [row | {"train/acc": float("nan")} for row in read_rows(folder / "metrics.csv")]
    rows[2]["val/loss"] = float("nan")
    write_rows(folder / "metrics.csv", rows)
    change_summary(folder, final_val_loss=float("nan"))
    page = report()
    assert "NaN or infinity in train/acc, val/loss of epochs 1, 2, 3, 4, 5 ..." in page
    assert "NaN or infinity in final_val_loss" in page
    (row,) = table()
    assert (row["final_val_loss_n"], row["final_val_loss_mean"]) == ("0", "")
    assert float(row["epoch_to_0.92_mean"]) > 1  # though it has no training accuracy there
    assert "nan" not in Path("out/table.csv").read_text()


def test_equal_names_in_two_studies_and_two_configurations_in_one_folder_name_are_kept_apart() -> None:
    write_run(RUNS, study="one", seed=0)
    write_run(RUNS, study="two", best=0.90)
    change_identity(write_run(RUNS, study="one", seed=1), **{"model.bn_momentum": 0.1})
    found = collect([RUNS]).configurations
    assert [(c.study, c.n) for c in found] == [("one", 1), ("one", 1), ("two", 1)]
    assert len({c.name for c in found}) == 1
    assert len({c.label for c in found if c.study == "one"}) == 2


def test_a_copied_run_counts_once_and_an_overlapping_folder_not_twice(tmp_path: Path) -> None:
    write_run(RUNS)
    write_run(Path("copy"))
    collection = collect([RUNS, RUNS / "one", Path("copy")])
    assert len(collection.runs) == 1
    assert [reason.split(" as in")[0] for reason in reasons(collection)] == ["repeated: study, configuration and seed"]


def test_the_table_holds_mean_sd_n_interval_and_the_published_value_with_its_distance_in_sd() -> None:
    for seed, accuracy in enumerate((0.92, 0.93, 0.94)):
        change_summary(write_run(RUNS, seed=seed), best_val_acc=accuracy)
    (configuration,) = collect([RUNS]).configurations
    page = report({configuration.key: ReferenceValues("post 4, run 7", {"best_val_acc": (0.945,)})})
    assert "published 0.9450; here -1.5 sd" in page
    assert "post 4, run 7" in page
    (row,) = table()
    parts = ("mean", "sd", "n", "low_95", "high_95", "sd_from_published")
    found = [float(row[f"best_val_acc_{part}"]) for part in parts]
    assert found == pytest.approx([0.93, 0.01, 3, 0.93 - 0.024841, 0.93 + 0.024841, -1.5], abs=1e-6)


def test_repetitions_of_a_preset_meet_its_printed_figures_and_reductions_do_not() -> None:
    identity = compose("experiment=post4-table1-09").identity | {"precision": "16-mixed"}
    for seed in (0, 1):
        change_identity(write_run(RUNS, seed=seed, epochs=60, wd=0.25), **identity)
    overrides = ("experiment=post4-table1-09", "epochs=15", "data.limit=5000", "schedule.stretch=true")
    change_identity(write_run(RUNS, study="reduced", epochs=15, wd=0.25), **compose(*overrides).identity)
    assert main(["report", "runs", "--out", "out"]) == 0
    row, reduced = table()
    filled = [key for key in row if key.endswith("_published") and not key.endswith("_sd_from_published") and row[key]]
    printed = {key.removesuffix("_published"): float(row[key]) for key in filled}
    assert printed == {  # published.csv by hand: epoch 52 0.93, best 0.9349 at 59, loss 0.0202, val_loss 0.2279
        **{"epoch_to_0.93": 52, "val_acc_at_0.93": 0.93, "best_epoch": 59, "best_val_acc": 0.9349},
        **{"final_train_loss": 0.0202, "final_val_loss": 0.2279},
    }
    page = Path("out/report.html").read_text()
    assert ">post4-table1-09 (confidence medium)</a>" in page
    assert "published 52;" in page
    assert "a reduction of post4-table1-09" in page
    assert "published presets were run with data.limit 5000, epochs 15, schedule.stretch true:" in page
    assert not any(value for key, value in reduced.items() if key.endswith("_published"))


def test_printed_values_of_several_runs_are_all_there_and_a_tables_replace_those_in_prose() -> None:
    repeats = values_of(["post2-trial2-05"], "32-true").values
    assert repeats["epoch_to_0.92"] == (48, 48, 44)
    assert repeats["best_val_acc"] == (0.923, 0.9242, 0.9242)
    assert values_of(["cifar10p2-multistep-50"], "32-true").values["best_val_acc"] == (0.9394,)  # "about 93.7-94 %"

    # seconds and watts are those of the same precision
    both = {precision: values_of(["post1-bs64"], precision).values for precision in ("32-true", "16-mixed")}
    assert both["32-true"]["power_w"] == (97,)
    assert both["32-true"]["seconds_per_epoch"] == (22,)
    assert both["16-mixed"]["power_w"] == (65,)


def test_never_reached_is_said_per_seed() -> None:
    for seed, best in enumerate((0.95, 0.95, 0.5)):
        write_run(RUNS, seed=seed, epochs=30, best=best)
    write_run(RUNS, seed=0, epochs=30, best=0.5, wd=0.5)
    page = report()
    assert "n = 2 of 3" in page
    assert "not reached" in page


def test_pairs_are_of_one_study_and_differ_in_one_key() -> None:
    for seed in (0, 1):
        write_run(RUNS, seed=seed, wd=0.1)
        write_run(RUNS, seed=seed, wd=0.3)
        write_run(RUNS, seed=seed, wd=0.3, lr=1e-3)
        write_run(RUNS, study="two", seed=seed, wd=0.2)
    found = compare(collect([RUNS]).configurations, "final_val_acc")
    assert sorted((c.first.study, c.key, *sorted(c.sides)) for c in found) == [
        ("one", "lr", "0.0008", "0.001"), ("one", "wd", "0.1", "0.3")
    ]  # fmt: skip


def test_verdicts() -> None:
    for wd, accuracies in {0.1: (0.90, 0.901, 0.902, 0.9), 0.2: (0.93, 0.931, 0.93, 0.932), 0.3: (0.9, 0.93)}.items():
        for seed, accuracy in enumerate(accuracies):
            change_summary(write_run(RUNS, seed=seed, wd=wd), final_val_acc=accuracy)
    write_run(RUNS, wd=0.4)
    verdicts = {c.sides: c.verdict for c in compare(collect([RUNS]).configurations, "final_val_acc")}
    assert verdicts["0.1", "0.2"] == "0.2 is higher"
    assert re.fullmatch(r"cannot tell at n = 4 and 2; about \d+ seeds each would show .*", verdicts["0.1", "0.3"])
    assert verdicts["0.1", "0.4"].startswith("cannot tell at n = 4 and 1; about ")


def test_the_page_is_self_contained_and_escapes_what_it_shows() -> None:
    for seed in (0, 1):
        for settings in ({"wd": 0.1}, {"wd": 0.3}, {"batch_size": 32}, {"batch_size": 128}, {"l2": 1e-4}):
            write_run(RUNS, seed=seed, epochs=15, **settings)
    folder = write_run(RUNS, study="<script>alert(1)</script>", subset=640)
    assert folder.exists()
    page = report()
    tags = " ".join(re.findall(r"<[a-z][^>]*>", page))
    loaded = re.findall(r"""\s(?:src|href|srcset|data)\s*=\s*["']?([^"'\s>]*)""", tags)
    assert loaded
    assert all(address.startswith(("data:", "#")) for address in loaded)
    assert "<script>alert" not in page
    assert "subset of 640 images" in page
    stems = {path.stem for path in Path("out/figures").iterdir()}
    assert {stem.split("-", 2)[2] for stem in stems if "-one-" in stem} >= {
        *("wd", "batch-size", "accuracy", "reached", "curves-01")
    }
    for stem in stems:
        assert ET.parse(f"out/figures/{stem}.svg").getroot().tag.endswith("svg")
        assert Path(f"out/figures/{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_selection_sets_the_best_epoch_beside_the_last_and_the_test() -> None:
    for seed, (best, last, test) in enumerate([(0.93, 0.92, 0.91), (0.94, 0.92, 0.92)]):
        figures = {"best_epoch": 5, "best_val_acc": best, "final_val_acc": last, "best_test_acc": test}
        change_summary(write_run(RUNS, seed=seed), **figures)
    page = report()
    assert "+0.0150 ± 0.0071" in page  # best - last: 0.01 and 0.02
    assert "+0.0200 ± 0" in page  # best on validation - the same weights on test


def test_watts_and_joules_are_in_the_table_and_drawn_over_the_batch_size() -> None:
    """1 Wh over six epochs is 600 J an epoch."""
    for batch_size in (32, 64):
        folder = write_run(RUNS, batch_size=batch_size)
        change_summary(folder, energy_wh=1.0 * batch_size / 32, power_w=120.0, gpu_load=75.0)
    page = report()
    found = {row["batch_size"]: row for row in table()}
    assert float(found["32"]["joules_per_epoch_mean"]) == 600
    assert float(found["64"]["joules_per_epoch_mean"]) == 1200
    assert (float(found["32"]["power_w_mean"]), float(found["32"]["gpu_load_mean"])) == (120, 75)
    drawn = Path("out/figures/01-one-batch-size.svg").read_text()
    assert {">J / epoch<", ">W<"} <= set(re.findall(">[^<]*<", drawn))
    assert "Watts and joules are the card" in page
    assert "No run has measured power" not in page


def test_the_console_table_fits_and_what_rich_takes_for_markup_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for wd in (0.1, 0.2):
        write_run(RUNS, wd=wd, study="a-study-with-a-very-long-name-that-goes-on-and-on")
    change_summary(write_run(RUNS), study="[/red]")
    assert main(["report", "runs"]) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if line[0] in "│┃├") <= 120
    assert "n = 1, no spread" in printed
    assert "[/red]" in printed
    assert not Path("out").exists()


def test_runs_outside_a_seed_folder_and_behind_a_link_are_read_and_a_loop_ends() -> None:
    write_run(RUNS).rename("moved")
    assert [c.name for c in collect([Path("moved")]).configurations] == ["resnet56v2-00000000"]
    real = write_run(Path("elsewhere")).parent
    (RUNS / "linked").symlink_to(real.absolute())
    (RUNS / "loop").symlink_to(RUNS.absolute())
    assert len(collect([RUNS]).runs) == 1


def test_only_pictures_that_a_report_wrote_are_removed() -> None:
    write_run(RUNS, wd=0.1)
    write_run(RUNS, wd=0.3)
    mine = Path("out/figures/01-mine.png")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    report()
    before = {path.name for path in mine.parent.glob("*.png")}
    shutil.rmtree(next(RUNS.rglob("*wd0.1*")))
    report()
    after = {path.name for path in mine.parent.glob("*.png")}
    assert "01-mine.png" in after < before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epochs_trained", 10**30), ("best_val_acc", 1e300), ("seed", True), ("seed", -3), ("epochs", "60")),
        *(("epochs", -4), ("final_val_acc", 10**400), ("seed", 10**400)),
    ],
)
def test_numbers_that_no_run_has_make_it_unreadable_and_spare_the_others(key: str, value: object) -> None:
    write_run(RUNS, seed=0)
    change_summary(write_run(RUNS, seed=1), **{key: value})
    collection = collect([RUNS])
    assert len(collection.runs) == 1
    assert [unused.kind for unused in collection.skipped] == ["unreadable"]


@pytest.mark.parametrize(
    "odd",
    [
        *({"model": 3}, {"epochs": "many"}, {"epochs": -4}, {"model.depth": None}, {"schedule.milestones": [5]}),
        *({"schedule.milestones": []}, {"schedule.milestones": {"a": 1}}, {"epochs": float("nan")}),
    ],
)
def test_a_manifest_that_makes_no_sense_is_as_good_as_none(odd: dict[str, object]) -> None:
    change_identity(write_run(RUNS), **odd)
    (run,) = collect([RUNS]).runs
    assert run.manifest == {}
    assert any("no manifest.json that can be read" in remark for remark in run.remarks)
    assert main(["report", "runs"]) == 0


def test_a_file_in_place_of_the_reports_folder_is_an_error_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(RUNS)
    Path("out").write_text("a file")
    assert main(["report", "runs", "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--out (=out/figures) cannot be made: Not a directory" in printed.err


def test_the_columns_file_holds_headings_titles_and_digits_once_each() -> None:
    found = columns(["0.93", "0.92"])
    assert len({c.metric for c in found}) == len({c.heading for c in found}) == len(found) == 26 + 2 * 3
    for c in found:
        assert all(isinstance(text, str) and text.strip() == text != "" for text in (c.metric, c.heading, c.title))
        assert c.digits in (None, 1, 4)
        assert "{" not in "".join((c.metric, c.heading, c.title))
    assert SETTINGS.keys() == {*CHOICES, "epochs", "batch_size", "lr", "l2", "wd", "momentum", "ema_momentum", "shift"}
    assert all(isinstance(heading, str) and heading for heading in SETTINGS.values())
