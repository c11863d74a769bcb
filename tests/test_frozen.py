"""Folders and tables of an older version (fixtures/make_frozen.py): skipped, resumed, reported and searched on."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import optuna
import pytest
from test_sweeps import table_of

from conftest import TINY, deterministic
from fixtures.make_frozen import FROZEN, conditions, values, weights
from resnetlab import cli, compose, run
from resnetlab.cli import train_main as main
from resnetlab.runs.files import read_rows

# ids of claims whose rule has been deleted since: neither their verdicts are compared, nor Holm's correction over all
RETIRED = (
    *("I-01", "I-02", "I-06", "I-09", "I-12", "I-13", "II-04", "II-13", "IV-02", "IV-04", "IV-08", "IV-17", "IV-29"),
    *("NB-03", "NB-04", "NB-20", "VI-02", "VI-03"),  # NB-20: its text names the new command of the bench
)

Sweep = Callable[..., tuple[int, str, str]]


def kept(name: str) -> Any:
    return json.loads((FROZEN / name).read_text())


COMMANDS = kept("commands.json")


@pytest.fixture(autouse=True)
def copy(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen folders below the current one, as wide a terminal as when they were made, and train.py's name."""
    for name in ("outputs", "results"):
        shutil.copytree(FROZEN / name, empty_folder / name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["train.py"])


def stamps(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """{file: (time of its last change, content)}."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def said(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """(what the command prints today, what it printed)."""
    assert cli.main(COMMANDS["said"][name]) == 0
    return capsys.readouterr().out, (FROZEN / "said" / name).read_text()


def known(rows: list[list[float | str]]) -> dict[tuple[str, str], dict[str, float | str]]:
    """A table's rows, the first of them its heads, by study and configuration."""
    heads, *others = rows
    named = [dict(zip(map(str, heads), row, strict=True)) for row in others]
    return {(str(row["study"]), without_subset(str(row["configuration"]))): row for row in named}


def without_subset(label: str) -> str:
    return re.sub(r" \(subset of [^)]*\)", "", label)


def assert_holds_what_it_held(name: str) -> None:
    """table.csv may have more columns and another order of its rows, and has no interval at n = 2, the most here."""
    now, then = known(cells(Path(name))), known(cells(FROZEN / "said" / name))
    assert now.keys() == then.keys()
    for key, old in then.items():
        for head, value in old.items():
            no_interval = head.endswith(("_low_95", "_high_95"))
            same = pytest.approx(value, rel=1e-9, abs=1e-15) if isinstance(value, float) else value
            assert now[key][head] == ("" if no_interval else same), (key, head)


def accuracies(text: str) -> dict[tuple[str, str], tuple[str, str, str]]:
    """{(study, configuration): (n, best and final accuracy)} of a table on the console, as they are printed."""
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    heads, study, label, figures = [""], "", "", ("", "")
    for line in text.splitlines():
        cell, *others = [part.strip() for part in re.split("[│┃]", line)[1:-1]] or [""]
        if line[:1] == "┃":
            heads = [f"{old} {new}".strip() for old, new in zip_longest(heads, [cell, *others], fillvalue="")]
        elif line[:1] == "│" and any(others):
            label, figures = cell, (others[heads.index("best val acc") - 1], others[heads.index("final val acc") - 1])
        elif line[:1] == "│" and label:
            label += f" {cell}"
        elif line[:1] == "│":
            study = study or cell
        else:  # a line between two studies, or the last one
            study = label = ""
        if "; n = " in label:
            name, _, n = without_subset(label).partition("; ")
            found[study, name] = (n, *figures)
    return found


RENAMED = {"m (ema)": "EMA momentum"}


def assert_table_md_holds_what_it_held(name: str) -> None:
    """Each cell as it was written, without its interval: all are at n = 2, where there is none any more."""
    now, then = (
        known([row[2:-2].split(" | ") for row in path.read_text().splitlines() if row[:2] == "| " and "---" not in row])
        for path in (Path(name), FROZEN / "said" / name)
    )
    assert now.keys() == then.keys()
    for key, old in then.items():
        for head, value in old.items():
            written = re.sub(r" \(-?[\d.e+-]+ to -?[\d.e+-]+\)", "", str(value))
            assert head == "configuration" or now[key][RENAMED.get(head, head)] == written, (key, head)


def cells(path: Path) -> list[list[float | str]]:
    with path.open(newline="") as file:
        return [[number(cell) for cell in row] for row in csv.reader(file)]


def number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def assert_same_table(name: str) -> None:
    """But for the last digits of numbers, which another SciPy or processor may round differently.

    Behind the columns of pairs.csv may stand others, which are empty: of predictions, which no run kept then.
    """
    now, then = cells(Path(name)), cells(FROZEN / "said" / name)
    assert len(now) == len(then)
    for row, old in zip(now, then, strict=True):
        wanted = [cell if isinstance(cell, str) else pytest.approx(cell, rel=1e-9, abs=1e-15) for cell in old]
        assert row[: len(old)] == wanted
    assert not any(any(row[len(then[0]) :]) for row in now[1:])


def test_a_finished_run_is_skipped_and_nothing_of_it_is_touched(capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(*COMMANDS["finished"])
    before = stamps(Path("outputs"))
    assert main(COMMANDS["finished"]) == 0
    assert f"already finished: {config.folder.path}" in capsys.readouterr().out
    assert run(config) == json.loads(config.folder.summary.read_text())
    assert stamps(Path("outputs")) == before


def test_the_checkpoint_of_a_finished_run_has_the_accuracy_of_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    folder = compose(*COMMANDS["finished"]).folder
    summary = json.loads(folder.summary.read_text())
    for path, name in ((folder.best, "best_val_acc"), (folder.last, "final_val_acc")):
        assert cli.main(["evaluate", str(path)]) == 0
        figures = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert float(figures["acc"]) == pytest.approx(summary[name], abs=1e-5)  # as it is printed


@pytest.mark.parametrize("epoch", [2, 1])
def test_an_interrupted_run_ends_as_the_undisturbed_one_did(epoch: int, capsys: pytest.CaptureFixture[str]) -> None:
    """epoch: of the checkpoint that it is resumed from, the newest one or the one before.

    Equality to the bit is promised for the same processor and torch only: another one adds in another order. Elsewhere
    the epochs in the checkpoint are compared to the bit, the others to what rounding can do in so few steps.
    """
    expected = kept("interrupted.json")
    folder = compose(*COMMANDS["interrupted"]).folder
    shutil.copy(folder.previous, folder.best)  # left out of the fixtures, being the same
    if epoch == 1:
        folder.last.unlink()
    assert main(COMMANDS["interrupted"]) == 0
    assert f"resuming after epoch {epoch} from" in capsys.readouterr().out
    again = compose(*COMMANDS["interrupted"], "study=undisturbed")
    run(again)
    rows, undisturbed = (columns(path, expected["rows"]) for path in (folder.metrics, again.folder.metrics))
    old = deterministic(expected["rows"])
    assert rows[:epoch] == old[:epoch]
    if conditions() == expected["conditions"]:
        assert rows == undisturbed == old
        assert weights(folder.last) == weights(again.folder.last) == expected["weights"]
    for row in (*zip(rows, old, strict=True), *zip(undisturbed, old, strict=True)):
        assert_close(*row)


def columns(path: Path, rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows of metrics.csv without columns that have come since."""
    return deterministic([{key: row[key] for key in old} for row, old in zip(read_rows(path), rows, strict=True)])


def assert_close(row: dict[str, float], old: dict[str, float]) -> None:
    """Without vector instructions (SSE4.1) the losses moved by up to 3e-7, no accuracy did; one image may."""
    one_image = {key: 1 / (60 if key.startswith("train/") else 12) + 1e-9 for key in old if "/acc" in key}
    for key, value in old.items():
        assert row[key] == pytest.approx(value, rel=1e-5, abs=one_image.get(key)), key


def test_the_report_and_the_status_say_of_a_sweep_what_they_said(capsys: pytest.CaptureFixture[str]) -> None:
    now, then = said("sweep-report.txt", capsys)
    assert accuracies(now) == accuracies(then)
    assert [row[0] for row in accuracies(now).values()] == ["n = 1 of 2, no spread"]
    assert_holds_what_it_held("out-sweep/table.csv")
    assert_table_md_holds_what_it_held("out-sweep/table.md")
    assert_same_table("out-sweep/pairs.csv")
    now, then = said("sweep-status.txt", capsys)
    assert without_age(now) == without_age(then)


def without_age(text: str) -> list[list[str]]:
    """The words of each line, without the last column of the table: how long ago a run was written."""
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("failed:"))
    return [line.split()[:-1] if 0 < i < end else line.split() for i, line in enumerate(lines)]


def test_of_a_sweep_only_what_failed_is_trained_again(sweep: Sweep) -> None:
    blocked = compose(*TINY, *COMMANDS["sweep"][:-2], "wd=0.1", "seed=1").folder.path
    assert blocked.read_text() == "in the way\n"
    blocked.unlink()
    before = stamps(Path("outputs/sweep"))
    status, out, err = sweep(*COMMANDS["sweep"])
    assert (status, err) == (0, "")
    assert [outcome for outcome, _ in table_of(out).values()] == ["skipped", "finished", "skipped", "skipped"]
    after = stamps(Path("outputs/sweep"))
    assert {path: after[path] for path in before} == before


def test_a_search_goes_on_with_the_trial_that_is_missing(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    expected = kept("search.json")
    now, then = said("search-report.txt", capsys)
    assert accuracies(now) == accuracies(then)
    assert len(accuracies(now)) == 3
    before = stamps(Path("outputs/search"))
    status, out, err = sweep(*COMMANDS["search"])
    assert (status, err) == (0, "")
    assert [label.partition(":")[0] for label in table_of(out)] == ["trial 3"]
    assert "search: 4 complete of 4 trials" in out
    (journal,) = Path("outputs").rglob("search.journal")
    assert journal.read_bytes().startswith(before[journal][1])
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name="search", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for number, (trial, old) in enumerate(zip(trials, expected["trials"], strict=True)):
        assert number < 3 or trial.value == pytest.approx(old["value"], abs=0.084)  # one of 12 images
        if number < 3 or optuna.__version__ == expected["optuna"]:  # another version may draw another fourth
            assert trial.params == {**old["params"], "lr": pytest.approx(old["params"]["lr"], rel=1e-6)}
    after = stamps(Path("outputs/search"))
    runs = [path for path in before if "seed=0" in path.parts]
    assert len(runs) > 3
    assert {path: after[path] for path in runs} == {path: before[path] for path in runs}


def test_run_folders_have_the_names_they_had_and_options_their_values() -> None:
    """A name tells what differs from the defaults, which must stay for it to mean the same run."""
    names, defaults = kept("names.json"), kept("defaults.json")
    assert len(names) >= 60
    for words, name in names:
        config = compose(*words.split())
        assert config.name == name, words
        choice, *others = words.split()
        if choice in defaults and not any(word.startswith(choice.partition("=")[0] + ".") for word in others):
            assert_kept(values(choice, config), defaults.pop(choice), choice)
    assert not defaults


def assert_kept(now: dict[str, Any], then: dict[str, Any], where: str) -> None:
    """All keys that there were have their values; others may have come."""
    for key, old in then.items():
        if isinstance(old, dict):
            assert_kept(now[key], old, f"{where}: {key}")
        else:
            assert now[key] == old, f"{where}: {key}"


def test_the_published_results_are_listed_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    now, then = said("published.csv", capsys)
    assert now == then


def test_the_claims_have_the_verdicts_they_had(capsys: pytest.CaptureFixture[str]) -> None:
    now, then = (json.loads(text) for text in said("claims.json", capsys))
    assert [claim["id"] for claim in now["claims"]] == [claim["id"] for claim in then["claims"]]
    for claim, old in zip(now["claims"], then["claims"], strict=True):
        if claim["id"] not in RETIRED:
            assert without_p(claim) == without_p(old)
            assert p_values(claim) == [None if p is None else pytest.approx(p, rel=1e-9) for p in p_values(old)]


def without_p(claim: dict[str, Any]) -> dict[str, Any]:
    """With the seeds that a claim needs left out too: with fewer claims, Holm's correction asks for fewer."""
    parts = [{key: value for key, value in part.items() if not key.startswith("p_")} for part in claim["parts"]]
    for part in parts:
        part["why"] = re.sub(r"about \d+ seeds", "some seeds", part["why"])
    return {**claim, "parts": parts, "look": ""}  # where a claim was looked at is no verdict


def p_values(claim: dict[str, Any]) -> list[float | None]:
    return [part["p_two_sided"] for part in claim["parts"]]  # p_holm and the notes count the claims: RETIRED are gone


def test_the_report_writes_the_tables_it_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    now, then = said("report.txt", capsys)
    assert accuracies(now) == accuracies(then)
    assert len(accuracies(now)) == 12
    assert_holds_what_it_held("out/table.csv")
    assert_same_table("out/pairs.csv")
    assert_table_md_holds_what_it_held("out/table.md")
