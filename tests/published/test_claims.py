"""The published claims: their data, the tests behind the verdicts against scipy.stats, and verdicts on planted runs."""

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from resnetlab import compose
from resnetlab.cli import main
from resnetlab.config.option_files import conf_dir
from resnetlab.config.overrides import compose_jobs, normalize_arguments
from resnetlab.config.schema import Config
from resnetlab.published.claims import metrics
from resnetlab.published.claims.data import CLAIMS_FILE, Claim, Part, claims
from resnetlab.published.claims.part_results import NO_FLUCTUATION
from resnetlab.published.claims.print_claims import counts
from resnetlab.published.claims.run_groups import DEFAULTS, context_settings, group_runs, settings
from resnetlab.published.claims.verdicts import CANNOT, FAILS, HOLDS, PARTLY, Verdict, judge
from resnetlab.report.columns import COSTS, columns
from resnetlab.report.derive import LEVELS
from resnetlab.report.groups import Collection, Configuration, collect
from resnetlab.report.statistics import difference_test, holm, level_test
from resnetlab.runs.files import write_json
from resnetlab.runs.load import Run, read_run
from resnetlab.runs.summary import summarize
from synthetic import change_summary, manifest, write_run

COUNTS = {"I": 21, "II": 14, "IV": 29, "NB": 21, "C2": 6, "C1": 4, "III": 2, "V": 5, "VI": 4}  # of the sources' claims
BY_ID = {claim.id: claim for claim in claims()}


def rows_of(epochs: int, best: float, amplitude: float, left: float | None, seed: int) -> list[dict[str, float]]:
    """Accuracy rises to best; val/ce ranges by `amplitude` between epochs 10 and 36, by `left` once re-estimated."""
    chance, rows = random.Random(seed), []
    amplitude *= math.exp(chance.gauss(0, 0.1))
    for epoch in range(1, epochs + 1):
        high = 12 <= epoch <= 34 and epoch % 3 == 0
        ce, acc = 0.3 + 2 * math.exp(-epoch / 3), best - 0.5 * math.exp(-epoch / 4)
        val = ce + (amplitude if high else 0.0)
        rate = 8e-4 if epoch <= 20 else 8e-5 if epoch <= 50 else 1e-5
        row = {"epoch": epoch, "lr": rate, "momentum": 0.9, "train/loss": ce, "train/ce": ce, "train/acc": acc}
        row |= {"val/loss": val, "val/ce": val, "val/acc": acc, "time/epoch": 30.0}
        rows.append(row if left is None else row | {"val/ce_recal": ce + (left if high else 0.0)})
    return rows


def plant(root: Path, seed: int, best=0.93, amplitude=0.1, left=None, epochs=60, **keys: Any) -> Path:
    """A finished run with those curves; keys: what differs from the defaults, as in a manifest."""
    return write_run(root, seed=seed, epochs=epochs, rows=rows_of(epochs, best, amplitude, left, seed), **keys)


def plant_all(root: Path, seeds: int, *runs: dict[str, Any]) -> None:
    """Each of the runs with seeds from 0 on, its best accuracy 0.001 higher with each seed where it is given."""
    for seed in range(seeds):
        for keys in runs:
            plant(root, seed, **(keys | ({"best": keys["best"] + seed / 1000} if "best" in keys else {})))


def verdicts(root: Path, *asked: Claim | Part) -> list[Verdict]:
    made = [one if isinstance(one, Claim) else Claim("X", "IV", "", (one,), ("experiment=x",)) for one in asked]
    return judge(made, group_runs(collect([root])))


def verdict(root: Path, asked: Claim | Part) -> Verdict:
    return verdicts(root, asked)[0]


def spread_around(mean: float, n: int, sd: float = 0.001) -> list[float]:
    """n values with that mean and sd exactly."""
    if n == 1:
        return [mean]
    values = np.sin(1.7 * np.arange(n) + 1)
    return [float(value) for value in mean + (values - values.mean()) * sd / values.std(ddof=1)]


def test_every_published_claim_is_there_once_and_every_metric_is_named_by_one() -> None:
    expected = [f"{prefix}-{number:02d}" for prefix, n in COUNTS.items() for number in range(1, n + 1)]
    assert sorted(claim.id for claim in claims()) == sorted(expected)
    named = {part.metric for claim in claims() for part in claim.parts}
    lists = (metrics.OF_ROWS, metrics.LOGARITHMIC, COSTS, metrics.DESCRIPTIONS)
    assert {name for names in lists for name in names} <= named | {"fluctuation"}  # of needs_fluctuation


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim.id)
def test_a_claim_is_decidable_or_says_why_not(claim: Claim) -> None:
    assert sum([bool(claim.parts), bool(claim.settled), bool(claim.look), bool(claim.left_out)]) == 1
    assert claim.decided_by or not claim.parts
    assert 0 < len(claim.text) < 140
    named = {name for part in claim.parts for name in part.named_presets}
    for text in (*claim.decided_by, claim.look):
        named |= {name for names in re.findall(r"experiment=(\S+)", text) for name in names.split(",")}
    assert named <= {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}
    for part in claim.parts:
        assert part.context in CLAIMS_FILE["context"]
        known = {*metrics.OF_ROWS, *(column.metric for column in columns([*map(str, LEVELS)])), "generalization_gap"}
        assert part.metric in known or metrics.NUMBERED.fullmatch(part.metric)
        assert part.expect in {"contrast": ("higher", "lower", "equal"), "level": ("",)}[part.rule]
        assert (part.margin > 0) or part.expect != "equal"
        assert part.rule != "level" or not (part.at_least is None and part.at_most is None)


def test_what_tests_settle_is_a_test() -> None:
    root = next(folder for folder in Path(__file__).parents if folder.name == "tests")
    names = {name for path in root.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    named = {name for claim in claims() for name in re.findall(r"test_\w+", f"{claim.settled} {claim.look}")}
    assert set() < named <= names


@pytest.mark.parametrize("context", CLAIMS_FILE["context"])
def test_a_context_is_its_preset(context: str) -> None:
    preset = compose(f"experiment={CLAIMS_FILE['context'][context]['preset']}", "trainer.precision=32-true")
    top = ("epochs", "batch_size", "lr", "wd", "l2", "momentum", "ema_momentum", "shift")
    used = {key: getattr(preset, key) for key in top}
    groups = {key: getattr(preset, key).name for key in ("model", "data", "optimizer", "schedule", "regularization")}
    expected = settings(used | groups, preset.identity)
    assert context_settings(context) == expected


def test_the_defaults_are_the_labs() -> None:
    config = compose("schedule=one_cycle", "model=resnet56v2", "trainer.precision=32-true")
    options = {"schedule.shape": compose("schedule=cosine").schedule, "model.stem": compose("model=resnet18").model}
    for key, value in DEFAULTS.items():
        group, _, name = key.partition(".")
        if key in ("averaging", "precision"):
            continue
        assert getattr(options.get(key, getattr(config, group)), name) == value, key


def test_the_file_has_no_other_tables_and_its_schedule_defaults_are_the_labs() -> None:
    assert set(CLAIMS_FILE) == {"context", "defaults", "schedule_defaults", "description", "claim"}
    schedules = [compose(f"schedule={name}").schedule for name in ("piecewise_linear", "one_cycle")]
    for key, value in CLAIMS_FILE["schedule_defaults"].items():
        name = key.removeprefix("schedule.")
        assert [getattr(s, name) for s in schedules if name in {field.name for field in fields(s)}] == [value], key


def as_run(config: Config, seed: int, best: float = 0.935) -> Run:
    """A run of that configuration as it would be read, with every metric that a claim may ask for."""
    rows = [row | {"val/acc_avg": row["val/acc"] + 0.001} for row in rows_of(config.epochs, best, 3.0, 2.9, seed)]
    summary = json.loads(json.dumps(summarize(config, rows, status="finished")))
    differing = config.identity
    if "precision" in differing:
        differing["precision"] = "16-mixed"  # which needs a GPU, and stands here as bf16-mixed
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)} | {"power_w": 70.0}
    return Run(Path("x"), "one", "x", seed, summary, rows, manifest("x", differing), metrics=numbers)


def verdict_of(runs: Sequence[Run], claim: Claim) -> Verdict:
    collection = Collection([])
    collection.configurations = [Configuration("one", "x", (run,), None) for run in runs]
    return judge([claim], group_runs(collection))[0]


# of each kind that could go wrong alone: no parts, first_knot, another post's run, an own length
QUICK = {"III-02", "IV-10", "NB-19", "C2-03"}


@pytest.mark.parametrize(
    "claim",
    [pytest.param(c, id=c.id, marks=() if c.id in QUICK else pytest.mark.slow) for c in claims() if c.decided_by],
)
def test_what_would_decide_is_what_is_looked_for(claim: Claim) -> None:
    """The runs of these commands, and no others, give every part of the claim its metrics, and as published."""
    commands = [normalize_arguments(text.replace("=16-mixed", "=bf16-mixed").split()) for text in claim.decided_by]
    configs = [config for arguments in commands for _, config in compose_jobs(arguments, multirun=True)]
    found = verdict_of([as_run(config, seed) for config in configs for seed in (0, 1)], claim)
    for part in found.parts:
        assert sum(part.counts) > 1, part.part
        assert part.scope.none, part.scope


A, B = [0.931, 0.934, 0.929, 0.936], [0.925, 0.931, 0.927]


def welch(margin: float, alternative: str) -> float:
    """scipy's p of A against B moved by the margin."""
    return float(stats.ttest_ind(A, [x + margin for x in B], equal_var=False, alternative=alternative).pvalue)


@pytest.mark.parametrize(("expect", "alternative", "sign"), [("higher", "greater", 1), ("lower", "less", -1)])
@pytest.mark.parametrize("margin", [0.0, 0.002])
def test_difference_is_welchs(expect: str, alternative: str, sign: int, margin: float) -> None:
    expected = welch(sign * margin, alternative)
    assert (found := difference_test(A, B, expect, margin))
    two_sided = welch(sign * margin, "two-sided")
    assert (found.p_for, found.p_against, found.p) == pytest.approx((expected, 1 - expected, two_sided), rel=1e-9)


@pytest.mark.parametrize("margin", [0.001, 0.01])
def test_equality_is_two_one_sided_tests(margin: float) -> None:
    assert (found := difference_test(A, B, "equal", margin))
    assert found.p_for == pytest.approx(max(welch(margin, "less"), welch(-margin, "greater")), rel=1e-9)
    outside = min(welch(margin, "greater"), welch(-margin, "less"))
    assert found.p_against == pytest.approx(min(1, 2 * outside), rel=1e-9)


def test_a_level_is_students() -> None:
    above, below = (stats.ttest_1samp(A, bound, alternative="greater").pvalue for bound in (0.92, 0.94))
    assert (found := level_test(A, 0.92, None))
    assert (found.p_for, found.p_against) == pytest.approx((above, 1 - above))
    assert (found := level_test(A, None, 0.94))
    assert (found.p_for, found.p_against) == pytest.approx((1 - below, below))
    assert (found := level_test(A, 0.92, 0.94))
    assert found.p_for == pytest.approx(max(above, 1 - below))


CONTRAST = Part("contrast", "best_val_acc", "series4", a={"wd": 0.2}, b={"wd": 0.01}, expect="higher")
LEVEL = Part("level", "best_val_acc", "series4", presets=["post4-table1-21"], at_least=0.92)
APART = {0.2: 0.935, 0.01: 0.925}  # wd -> mean best val acc
EQUAL = replace(CONTRAST, expect="equal", margin=0.004)


def sweep(root: Path, means: dict[float, float], n: int, sd: float = 0.001, **keys: Any) -> Path:
    """n seeds at each wd, with those mean accuracies."""
    for wd, mean in means.items():
        for seed, best in enumerate(spread_around(mean, n, sd)):
            plant(root, seed, best=best, **({} if wd == 0.2 else {"wd": wd}), **keys)
    return root


@pytest.mark.parametrize(
    ("part", "means", "n", "expected"),
    [
        (CONTRAST, APART, 4, HOLDS),
        (CONTRAST, {0.2: 0.925, 0.01: 0.935}, 4, FAILS),
        (CONTRAST, {0.2: 0.9302, 0.01: 0.930}, 4, CANNOT),
        (CONTRAST, APART, 1, CANNOT),
        (EQUAL, {0.2: 0.9302, 0.01: 0.930}, 4, HOLDS),
        (EQUAL, {0.2: 0.925, 0.01: 0.935}, 4, FAILS),
        (EQUAL, {0.2: 0.934, 0.01: 0.930}, 4, CANNOT),
        (LEVEL, {0.2: 0.93}, 3, HOLDS),
        (LEVEL, {0.2: 0.91}, 3, FAILS),
        (LEVEL, {0.2: 0.9202}, 3, CANNOT),
        (LEVEL, {0.2: 0.93}, 1, CANNOT),
        (replace(LEVEL, at_least=None, at_most=0.92), {0.2: 0.91}, 3, HOLDS),
        (replace(LEVEL, at_least=None, at_most=0.92), {0.2: 0.93}, 3, FAILS),
    ],
)
def test_verdicts(part: Part, means: dict[float, float], n: int, expected: str, tmp_path: Path) -> None:
    found = verdict(sweep(tmp_path, means, n), part)
    assert found.verdict == expected
    assert found.scope == ""
    assert f"n = {n}" in found.parts[0].text


def test_the_seeds_that_would_do_would_do(tmp_path: Path) -> None:
    few = verdict(sweep(tmp_path / "few", {0.2: 0.9315, 0.01: 0.93}, 3), CONTRAST)
    assert (needed := re.search(r"about (\d+) seeds", few.parts[0].why))
    assert 5 < int(needed[1]) < 20
    assert verdict(sweep(tmp_path / "many", {0.2: 0.9315, 0.01: 0.93}, int(needed[1])), CONTRAST).verdict == HOLDS


def test_seeds_without_scatter_decide_nothing(tmp_path: Path) -> None:
    for found in verdicts(sweep(tmp_path, APART, 4, sd=0.0), CONTRAST, LEVEL):
        assert (found.verdict, found.parts[0].why) == (CANNOT, "the seeds do not differ")


def test_reduced_runs_decide_the_relation_and_say_so(tmp_path: Path) -> None:
    small = {"model": "resnet20v2", "data.resolution": 16, "data.limit": 640}
    sweep(tmp_path, APART, 4, epochs=20, **small)
    relation, level = verdicts(tmp_path, CONTRAST, LEVEL)
    for text in ("holds (reduced: ", "20 epochs", "data.limit 640", "data.resolution 16", "resnet20v2"):
        assert text in str(relation)
    assert not relation.full
    assert level.verdict == CANNOT
    both = verdict(tmp_path, Claim("X", "IV", "", (CONTRAST, LEVEL)))
    assert both.verdict == PARTLY
    assert "the relation, not the levels" in both.scope
    assert not both.full
    assert "0 hold, 0 do not hold, 0 hold in runs" in counts([both])
    assert "1 hold in part:" in counts([both])
    part = replace(LEVEL, presets=(), full=True)  # what only full runs may say
    assert verdict(tmp_path, part).parts[0].why == "no such runs"
    assert verdict(tmp_path, replace(part, full=False)).verdict == HOLDS


def test_full_runs_are_preferred_and_n_1_of_them_is_not(tmp_path: Path) -> None:
    sweep(tmp_path, {0.2: 0.925, 0.01: 0.935}, 4, **{"data.resolution": 16})
    sweep(tmp_path, APART, 1)
    assert str(verdict(tmp_path, CONTRAST)) == "does not hold (reduced: data.resolution 16)"
    sweep(tmp_path, APART, 3)
    assert str(verdict(tmp_path, CONTRAST)) == "holds"
    assert "of 1 other pairs 0 with this sign" in verdict(tmp_path, CONTRAST).parts[0].text


ODD, PUBLISHED = [[30.0, 1.0], [60.0, 0.1]], [[20.0, 1.0], [40.0, 0.1], [50.0, 0.0125], [60.0, 0.00625]]
FREE = replace(CONTRAST, also=["schedule.milestones"])


@pytest.mark.parametrize(
    ("part", "keys", "expected"),
    [
        (CONTRAST, {"batch_size": 128, "lr": 2e-3}, "holds (other than published: batch_size 128, lr 0.002)"),
        (CONTRAST, {"schedule": "constant"}, "holds (other than published: constant)"),  # the piecewise ones begin so
        (CONTRAST, {"schedule": "cosine"}, CANNOT),  # another recipe
        (CONTRAST, {"optimizer": "sgd"}, CANNOT),
        (CONTRAST, {"schedule.milestones": ODD}, "holds (other than published: other milestones)"),
        (FREE, {"schedule.milestones": ODD}, "holds (other than published: other milestones)"),
        (FREE, {"schedule.milestones": PUBLISHED}, HOLDS),
    ],
)
def test_differences_from_the_context_are_named(part: Part, keys: Any, expected: str, tmp_path: Path) -> None:
    found = verdict(sweep(tmp_path, APART, 4, **keys), part)
    assert str(found) == expected
    assert found.parts[0].why == ("no such runs" if expected == CANNOT else "")


def test_a_second_difference_forbids_a_contrast_and_no_decay_is_a_decay_of_0(tmp_path: Path) -> None:
    plant_all(tmp_path, 4, {"best": 0.935}, {"best": 0.925, "wd": 0.01, "lr": 2e-3})
    assert verdict(tmp_path, CONTRAST).verdict == CANNOT
    assert verdict(tmp_path, replace(CONTRAST, also=["lr"])).verdict == HOLDS
    plant_all(tmp_path, 4, {"amplitude": 3.0}, {"amplitude": 0.02, "regularization": "none", "wd": None})
    assert verdict(tmp_path, BY_ID["IV-15"].parts[0]).verdict == HOLDS


@pytest.mark.parametrize("change", ["device", "threads", "recalibrate_bn"])
def test_costs_are_compared_on_one_machine_that_does_one_work(change: str, tmp_path: Path) -> None:
    part = replace(CONTRAST, metric="seconds_per_epoch", expect="lower")
    for seed, wd in product(range(3), (0.2, 0.01)):
        change_summary(plant(tmp_path, seed, wd=wd), seconds_per_epoch=seed + (20.0 if wd == 0.2 else 30.0))
    assert verdict(tmp_path, part).verdict == HOLDS
    for path in tmp_path.rglob("manifest.json"):
        found = json.loads(path.read_text())
        if found["differs_from_defaults"]["wd"] == 0.01:
            if change == "recalibrate_bn":
                found["differs_from_defaults"][change] = True
            write_json(path, found | {change: 4})
    assert verdict(tmp_path, part).parts[0].why == "no such runs"
    assert verdict(tmp_path, CONTRAST).parts[0].counts == (3, 3)


def test_p_is_holms_over_all_parts(tmp_path: Path) -> None:
    sweep(tmp_path, {0.2: 0.9325, 0.01: 0.93}, 4)
    asked = [CONTRAST, *(replace(LEVEL, at_least=0.9325 - k / 5000) for k in range(1, 4))]
    found = [judged.parts[0] for judged in verdicts(tmp_path, *asked)]
    assert [part.adjusted for part in found] == holm([part.test and part.test.p for part in found])
    ps = [part.test.p for part in found if part.test]
    assert found[ps.index(min(ps))].adjusted == pytest.approx(4 * min(ps))
    assert (verdict(tmp_path, CONTRAST).parts[0].adjusted or 0) < (found[0].adjusted or 0)


@pytest.mark.parametrize(
    ("amplitude", "left", "group", "expected"),
    [(3.0, 0.05, 0.05, FAILS), (3.0, 2.9, 2.8, HOLDS), (3.0, 0.05, 2.8, FAILS), (0.01, 0.01, 0.01, CANNOT)],
)
def test_batchnorm_lag(amplitude: float, left: float, group: float, expected: str, tmp_path: Path) -> None:
    """Does the amplitude go with re-estimated statistics, or with group norm? Then it is not the loss surface's."""
    plant_all(tmp_path, 4, {"amplitude": amplitude, "left": left}, {"amplitude": group, "model.norm": "group"})
    found = verdict(tmp_path, BY_ID["IV-26"])
    assert str(found) == expected
    if expected == CANNOT:
        assert [part.why for part in found.parts] == [NO_FLUCTUATION, NO_FLUCTUATION]


def test_a_seed_of_three_studies_counts_once_with_re_estimated_statistics_if_any_has_them(tmp_path: Path) -> None:
    for study, left in (("a", None), ("b", 0.05), ("c", None)):
        plant_all(tmp_path, 2, {"amplitude": 3.0, "left": left, "study": study})
    (group,) = group_runs(collect([tmp_path]))
    assert [(run.study, run.seed) for run in group.runs] == [("b", 0), ("b", 1)]


def test_reduced_runs_without_fluctuation_say_nothing_of_it(tmp_path: Path) -> None:
    part = replace(CONTRAST, metric="amplitude", b={"wd": 0.0})
    plant_all(tmp_path, 4, {"amplitude": 0.2, "epochs": 20}, {"amplitude": 0.02, "epochs": 20, "wd": 0.0})
    assert verdict(tmp_path, part).parts[0].why.startswith("the validation loss does not fluctuate in these runs")
    plant_all(tmp_path, 4, {"amplitude": 0.2}, {"amplitude": 0.02, "wd": 0.0})
    assert str(verdict(tmp_path, part)) == HOLDS


def test_what_another_post_published_is_not_as_published() -> None:
    """Runs of post I are no runs of post IV, however they are named there."""
    runs = []
    for precision, mean in (("32-true", 0.9301), ("bf16-mixed", 0.9302)):
        config = compose("experiment=post1-bs64", f"trainer.precision={precision}")
        runs += [as_run(config, seed, best) for seed, best in enumerate(spread_around(mean, 4, 0.0005))]
    assert str(verdict_of(runs, replace(BY_ID["I-18"], parts=BY_ID["I-18"].parts[2:]))) == HOLDS
    assert verdict_of(runs, BY_ID["IV-25"]).parts[0].why == "no such runs"


def test_what_a_part_names_is_as_published() -> None:
    config = compose("experiment=post2-trial4-01", "trainer.precision=32-true")
    runs = [as_run(config, seed, best) for seed, best in enumerate(spread_around(0.93, 4))]
    (named, any_one) = (replace(LEVEL, presets=names) for names in (["post2-trial4-01"], []))
    assert str(verdict_of(runs, Claim("X", "IV", "", (named,)))) == HOLDS
    assert str(verdict_of(runs, Claim("X", "IV", "", (any_one,)))).startswith("holds (other than published: l2 ")


def test_a_penalty_in_place_of_a_decay_says_nothing_unless_it_is_the_claim(tmp_path: Path) -> None:
    penalty = {"regularization": "l2", "wd": None, "l2": 2e-4}
    plant_all(tmp_path, 4, {"best": 0.935, "batch_size": 128} | penalty, {"best": 0.925} | penalty)
    part = replace(CONTRAST, a={"batch_size": 128}, b={"batch_size": 64})
    assert verdict(tmp_path, part).parts[0].why == "no such runs"
    assert str(verdict(tmp_path, replace(part, where={"l2": 2e-4}))) == "holds (other than published: wd 0)"


def test_runs_that_never_reach_it_are_not_dropped(tmp_path: Path) -> None:
    for seed, (fast, slow) in enumerate([(0.93, 0.91), (0.935, 0.921), (0.94, 0.9205), (0.945, 0.91)]):
        plant(tmp_path, seed, best=fast, batch_size=128)
        plant(tmp_path, seed, best=slow)
    part = replace(CONTRAST, metric="epoch_to_0.92", a={"batch_size": 128}, b={"batch_size": 64}, expect="lower")
    level = replace(LEVEL, metric="epoch_to_0.92", at_least=20)
    for found in verdicts(tmp_path, part, level):
        assert found.verdict == CANNOT
        assert found.parts[0].why.endswith(": 2 of 4 runs never reach it")
        assert "(n = 2 of 4)" in found.parts[0].text
    none = verdict(tmp_path, replace(part, metric="epoch_to_0.943"))
    assert none.parts[0].why == "batch_size 128: 3 of 4 runs never reach it; batch_size 64: 4 of 4 runs never reach it"
    assert verdict(tmp_path, replace(part, metric="epoch_to_0.9")).verdict == HOLDS


def test_fluctuation_is_asked_of_the_runs_that_were_chosen(tmp_path: Path) -> None:
    plant_all(tmp_path, 5, {"amplitude": 0.01})
    plant_all(tmp_path, 3, {"amplitude": 3.0, "wd": 0.3})
    first = verdict(tmp_path, BY_ID["IV-05"]).parts[0]
    assert (first.counts, first.why) == ((5,), NO_FLUCTUATION)


def test_a_loss_that_falls_evenly_does_not_fluctuate(tmp_path: Path) -> None:
    for seed in range(4):
        rows = [row | {"val/ce": 4 - 0.05 * row["epoch"]} for row in rows_of(60, 0.93, 0.0, None, seed)]
        write_run(tmp_path, seed=seed, epochs=60, rows=rows)
    assert verdict(tmp_path, BY_ID["IV-05"]).parts[0].why == NO_FLUCTUATION


def test_of_equal_configurations_the_one_nearest_to_the_published_is_tested(tmp_path: Path) -> None:
    nearest, far = {"amplitude": 3.0, "optimizer.eps": 1e-8}, {"amplitude": 0.01, "optimizer.beta2": 0.99}
    plant_all(tmp_path, 3, nearest, far | {"optimizer.eps": 1e-8}, far | {"data.resolution": 16})
    assert verdict(tmp_path, BY_ID["IV-05"]).parts[0].scope.other == ("optimizer.eps 1e-08",)


def test_of_pairs_the_one_with_most_seeds_is_tested_whether_it_fluctuates_or_not(tmp_path: Path) -> None:
    part = replace(CONTRAST, metric="amplitude", b={"wd": 0.0})
    plant_all(tmp_path, 5, {"amplitude": 0.1, "wd": 0.2, "lr": 1e-3}, {"amplitude": 0.01, "wd": 0.0, "lr": 1e-3})
    plant_all(tmp_path, 3, {"amplitude": 3.0, "wd": 0.2, "lr": 2e-3}, {"amplitude": 0.3, "wd": 0.0, "lr": 2e-3})
    assert verdict(tmp_path, part).parts[0].why == NO_FLUCTUATION
    ending_early = ({"amplitude": 3.0, "wd": wd, "epochs": 20} for wd in (0.2, 0.0))  # which are looked at last
    plant_all(tmp_path, 9, *ending_early)
    assert verdict(tmp_path, part).parts[0].counts == (5, 5)


def of(path: Path, *names: str) -> list[float | None]:
    return [metrics.value_of(read_run(path), name) for name in names]


def test_metrics_of_the_rows(tmp_path: Path) -> None:
    path = plant(tmp_path, 0, best=0.93, amplitude=3.0, left=0.3)
    rows = rows_of(60, 0.93, 3.0, 0.3, 0)
    inside = [row for row in rows if 10 <= row["epoch"] <= 36]
    ranges = []
    for column in ("val/ce", "val/ce_recal"):
        values = np.array([row[column] for row in inside])
        places = np.arange(len(values))
        ranges.append(float(np.ptp(values - np.polyval(np.polyfit(places, values, 1), places))))
    val, train = (np.array([row[column] for row in inside]) for column in ("val/ce", "train/ce"))
    jump_ratio = np.abs(np.diff(val)).max() / np.abs(np.diff(train)).max()
    expected = [np.ptp(val), ranges[1] / ranges[0], jump_ratio, 12, 0.93 - 0.5 * math.exp(-2.5)]
    assert of(path, "amplitude", "fluctuation_left", "jump_ratio", "onset", "lowest_acc") == pytest.approx(expected)
    assert of(path, "best_by_50", "best_by_61") == [pytest.approx(0.93 - 0.5 * math.exp(-12.5)), None]
    first = math.ceil(4 * math.log(0.5 / 0.01))
    assert of(path, "epoch_to_0.92", "epoch_to_0.94", "power_w", "train_acc_at_0.94") == [first, None, None, None]
    assert None not in of(path, "calm_ratio")
    text = (path / "metrics.csv").read_text()
    (path / "metrics.csv").write_text(text.replace("3,0.0008,", "3,nan,", 1))  # a rate is missing
    assert of(path, "calm_ratio") == [None]
    path = plant(tmp_path, 0, amplitude=3.0, left=0.3, **{"schedule.stretch": True})  # has none of numbered epochs
    assert of(path, *metrics.WINDOWED, "onset") == [*[None] * 6, 12]


def test_the_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        plant(tmp_path, seed, best=0.93 + seed / 2000, amplitude=3.0, left=0.05)
    change_summary(plant(tmp_path, 9), status="diverged", diverged_epoch=7)
    command = ["published", "--claims", "."]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert all(claim.id in table for claim in claims())
    assert max(map(len, table.splitlines()[:-3])) <= 220
    shown = ("5 runs of 1 configurations", "not used (1 diverged)", "p is Holm's", "Of 106 claims", "seeds=5")
    assert all(text in table for text in shown)
    of_all, found = (
        {entry["id"]: entry for entry in json.loads(text)["claims"]}
        for extra in ((), ("--post", "IV"))
        if main([*command, "--format", "json", *extra]) == 0 and (text := capsys.readouterr().out)
    )
    assert len(found) == COUNTS["IV"]
    assert found.items() <= of_all.items()  # --post leaves the correction as it is
    assert found["IV-26"]["verdict"] == FAILS
    assert found["IV-26"]["would_decide"] == []
    assert found["IV-02"]["would_decide"] == [
        "python train.py experiment=post4-table1-21 wd=0.01,0.05,0.1,0.2,0.3,0.4 seeds=5"
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("--claims .", ["no finished run below (1 diverged)"]),
        ("--claims . --post VII", ["post (=VII) must be one of I, II"]),
        ("--claims . --format xml", ["format (=xml) must be one of table, json"]),
        ("--claims . --id post4-*", ["--id (=post4-*) does not go with --claims"]),
        ("--post VII", ["post (=VII)", "IV", "part1"]),
        ("--id post9-*", ["id (=post9-*)", "post4-table1-09"]),
        ("--format xml", ["format (=xml)", "table", "json"]),
    ],
)
def test_bad_input_is_one_line(arguments: str, wanted: list[str], tmp_path: Path, capsys: Any) -> None:
    change_summary(plant(tmp_path, 0), status="diverged")
    assert main(["published", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert all(text in printed.err for text in wanted)
