"""docs/records.md is what scripts/write_records.py makes of records/, and a folder that breaks a rule is refused."""

import json
import runpy
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_1samp

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "records" / "2026-11-30-reduced-wsd-8"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "write_records.py"))


def test_the_page_is_what_the_script_writes(script: dict[str, Any]) -> None:
    assert script["PAGE"].read_text() == script["text"]()


def test_a_row_is_the_mean_of_the_last_epochs(script: dict[str, Any]) -> None:
    summaries = [json.loads(path.read_text()) for path in sorted(RECORD.glob("*/summary.json"))]
    values = [summary["final_val_acc"] for summary in summaries]
    p = ttest_1samp(values, 0.5, alternative="greater").pvalue
    cells = [cell.strip() for cell in script["line"](script["read_record"](RECORD)).strip("|").split("|")]
    assert cells[:2] == ["0.5", str(summaries[0]["epochs"])]
    mean = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.2g}"
    assert cells[3:5] == [f"{mean} (n = {len(values)}, p = {p:.2g})", "series"]
    assert "297,418 parameters, batch 64, subset of 5000 images, 16x16 pixels" in cells[2]


def broken_record(folder: Path, broken: str) -> None:
    """Breaks one rule in a copy of the record."""
    record, summary = folder / "record.toml", folder / "seed=1" / "summary.json"
    if broken == "target":
        record.write_text(record.read_text().replace("target = 0.5", "target = 0.6"))
    elif broken == "unfinished":
        summary.unlink()
    else:
        changes = {"data": {"data": "svhn"}, "epochs": {"epochs_trained": 7}}[broken]
        for path in folder.glob("*/summary.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        for path in folder.glob("*/manifest.json"):
            text = path.read_text()
            path.write_text(text.replace('"cifar10"', '"svhn"') if broken == "data" else text)
        for path in folder.glob("*/metrics.csv") if broken == "epochs" else ():
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:8]))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("target", "the mean final_val_acc of all seeds must reach 0.6"),
        ("unfinished", "must hold the finished runs of one configuration"),
        ("data", "must be of cifar10"),
        ("epochs", "must hold the finished runs of one configuration|must be trained for all of their epochs"),
    ],
)
def test_a_folder_that_breaks_a_rule_is_no_record(
    script: dict[str, Any], broken: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "record"
    shutil.copytree(RECORD, folder)
    broken_record(folder, broken)
    with pytest.raises(ValueError, match=said):
        script["read_record"](folder)


def test_a_full_record_has_one_of_the_targets(script: dict[str, Any]) -> None:
    record = replace(script["read_record"](RECORD), target=0.93)
    with pytest.raises(ValueError, match=r"must be one of 0.92, 0.94"):
        script["check_target"](record, reduction="")
    script["check_target"](record, reduction="fewer images")
