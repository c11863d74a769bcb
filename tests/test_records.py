"""docs/records.md is what scripts/write_records.py makes of records/, and a folder that breaks a rule is refused."""

import json
import runpy
import shutil
import statistics
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


@pytest.mark.parametrize("broken", ["target", "unfinished"])
def test_a_folder_that_breaks_a_rule_is_no_record(script: dict[str, Any], broken: str, tmp_path: Path) -> None:
    folder = tmp_path / "record"
    shutil.copytree(RECORD, folder)
    if broken == "target":
        text = (folder / "record.toml").read_text()
        (folder / "record.toml").write_text(text.replace("target = 0.5", "target = 0.6"))
    else:
        (folder / "seed=1" / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"record (must hold|: the mean)|record: the mean"):
        script["read_record"](folder)
