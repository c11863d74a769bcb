"""What the report opens with: each study's headline and figures and the columns in view, against independent ones."""

import csv
import json
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from resnetlab.cli import main
from resnetlab.report.compare import compare_with_best, is_shown
from resnetlab.report.groups import Configuration, collect, short_labels
from resnetlab.report.headline_plots import headline_plots, plot_accuracy, plot_profiles, plot_reached
from resnetlab.report.headlines import Headline, headlines
from resnetlab.report.statistics import holm, share_interval, welch
from resnetlab.runs.load import Run
from synthetic import change_summary, synthetic_rows, write_run

RUNS = Path("runs")
METRIC = "best_val_acc"


def planted(name: str, *curves: Sequence[float]) -> Configuration:
    """A configuration whose runs have these validation accuracies, epoch by epoch."""
    runs = []
    for seed, curve in enumerate(curves):
        rows = [{"epoch": epoch, "val/acc": value} for epoch, value in enumerate(curve, 1)]
        summary = {"epochs": len(curve)}
        runs.append(Run(Path(name), "one", name, seed, summary, rows, {}, metrics={METRIC: max(curve)}))
    return Configuration("one", name, tuple(runs), {"x": name}, label=name)


def write(accuracies: dict[float, Sequence[float]], **settings: object) -> Headline:
    """The headline of runs of each wd with those best accuracies."""
    for wd, values in accuracies.items():
        for seed, value in enumerate(values):
            change_summary(write_run(RUNS, seed=seed, wd=wd, **settings), best_val_acc=value)
    (headline,) = headlines(collect([RUNS]))
    return headline


def test_the_best_is_compared_with_holms_correction_over_all_pairs() -> None:
    values = {"a": (0.93, 0.934, 0.932), "b": (0.931, 0.929, 0.93), "c": (0.90, 0.905, 0.91)}
    a, b, c = (planted(name, *([value] for value in found)) for name, found in values.items())
    pairs = compare_with_best(a, [b, c], METRIC)
    ps = [stats.ttest_ind(values["a"], values[other], equal_var=False).pvalue for other in "bc"]
    assert [pair.welch_p for pair in pairs] == pytest.approx(ps)
    least, most = sorted(ps)  # of three pairs
    assert sorted(pair.adjusted or 0 for pair in pairs) == pytest.approx([3 * least, min(1.0, 2 * most)])
    assert [pair.adjusted for pair in pairs] == pytest.approx(holm([*ps, 1.0])[:2])


@pytest.mark.parametrize(
    ("own", "other", "shown"),
    [
        ((0.90, 0.91, 0.92), (0.50, 0.51, 0.52), True),  # the least p of a permutation of 3 and 3 is 0.1: not asked
        ((0.90, 0.91, 0.92, 0.93), (0.50, 0.51, 0.52, 0.53), True),
        ((0.90, 0.91, 0.92, 0.93), (0.86, 0.87, 0.88, 0.905), False),  # Welch 0.03, permutation 4 of 70
    ],
)
def test_from_four_seeds_on_the_permutation_test_has_to_agree(
    own: Sequence[float], other: Sequence[float], shown: bool
) -> None:
    pair = planted("a", *([x] for x in own)), planted("b", *([x] for x in other))
    (found,) = compare_with_best(pair[0], pair[1:], METRIC)
    tested = stats.permutation_test((own, other), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf)
    assert found.permutation_p == pytest.approx(tested.pvalue)
    assert stats.ttest_ind(own, other, equal_var=False).pvalue < 0.05
    assert is_shown(found) is shown


def test_further_seeds_are_those_of_a_t_test_with_four_fifths_power() -> None:
    values = (0.93, 0.934, 0.932), (0.931, 0.929, 0.933)
    sides = [planted(name, *([value] for value in found)) for name, found in zip("ab", values, strict=True)]
    (pair,) = compare_with_best(sides[0], sides[1:], METRIC)
    sd = math.sqrt((np.var(values[0], ddof=1) + np.var(values[1], ddof=1)) / 2)
    effect = (np.mean(values[0]) - np.mean(values[1])) / sd

    def power(n: float) -> float:
        critical = stats.t.ppf(0.975, 2 * n - 2)
        return float(stats.nct.sf(critical, 2 * n - 2, effect * math.sqrt(n / 2)))

    assert pair.seeds is not None
    assert power(pair.seeds - 1) < 0.8 <= power(pair.seeds)
    headline = write({0.1: values[0], 0.2: values[1]})
    assert f"differences are as large as here: {pair.seeds - 3:.0f} from wd 0.2." in " ".join(headline.sentences)


def test_of_equal_configurations_the_best_is_seldom_shown_to_be_it() -> None:
    """Five configurations at n = 4, of which the best mean is chosen by the data: at most 5 % in 500 tables.

    It is 2.1 % of 4,000; without the pairs among the others in the correction it would be 5.3 % (here 6.2 %).
    """
    chance, shown = np.random.default_rng(0), 0
    for _ in range(500):
        table = [planted(name, *([value] for value in chance.normal(0.9, 0.01, 4))) for name in "abcde"]
        best, *others = sorted(table, key=lambda c: -c.mean(METRIC))
        shown += any(map(is_shown, compare_with_best(best, others, METRIC)))
    assert shown <= 0.05 * 500


@pytest.mark.parametrize(
    ("accuracies", "lead"),
    [
        ({0.1: (0.9, 0.91)}, "{} is the only configuration: 0.9050"),
        (
            {0.1: (0.95, 0.951, 0.952, 0.953), 0.2: (0.9, 0.901, 0.902, 0.903)},
            "wd 0.1 is the best of 2 configurations: 0.9515",
        ),
        (
            {0.1: (0.95, 0.951, 0.952, 0.953), 0.2: (0.9, 0.901, 0.902, 0.903), 0.3: (0.95, 0.951, 0.952, 0.95)},
            "wd 0.1 is the highest of 3 configurations: 0.9515; 1 of them shown to be lower",
        ),
        (
            {0.1: (0.9, 0.93), 0.2: (0.91, 0.93)},
            "None of 2 configurations is shown to be the best; wd 0.2 is the highest: 0.9200",
        ),
    ],
)
def test_the_lead_says_whether_the_best_is_shown_to_be_it(accuracies: dict[float, Sequence[float]], lead: str) -> None:
    headline = write(accuracies)
    assert headline.lead == lead.format(headline.ranked[0].label)
    values = next(iter(accuracies.values()))
    interval = re.search(r"95 % interval (\S+) to (\S+)\)", headline.sentences[0])
    assert (interval is not None) == (len(values) > 2)
    if interval is not None:
        expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
        assert [float(number) for number in interval.groups()] == pytest.approx(expected, abs=5e-5)


def test_one_run_each_tells_nothing_about_the_spread() -> None:
    headline = write({0.1: (0.9,), 0.2: (0.92,)})
    assert headline.lead.startswith("None of 2 configurations is shown to be the best")
    assert headline.sentences[-1].startswith("n = 1 in 2 of 2 configurations: nothing can be told about the spread; ")
    assert "seeds=5" in headline.sentences[-1]


def test_where_statistics_lag_the_reestimated_accuracy_decides() -> None:
    for wd, last, again in ((0.1, 0.3, 0.9), (0.2, 0.85, 0.86)):
        rows = [row | {"val/acc_recal": row["val/acc"]} for row in synthetic_rows(6, 0.86)]
        rows[-1] |= {"val/acc": last, "val/acc_recal": again}
        write_run(RUNS, wd=wd, rows=rows)
    (headline,) = headlines(collect([RUNS]))
    lead = "Batch-norm statistics lag; none of 2 re-estimated configurations is shown to be the best; wd 0.1 is the "
    assert headline.lead == f"{lead}highest: 0.9000"
    assert headline.sentences[0].startswith(
        "wd 0.1: re-estimated final validation accuracy 0.9000 (n = 1); as usually "
    )


def test_configurations_that_differ_in_their_epochs_alone_are_answered_by_how_their_means_go() -> None:
    for epochs, value in ((4, 0.5), (16, 0.8), (8, 0.7)):
        change_summary(write_run(RUNS / str(epochs), epochs=epochs), final_val_acc=value)
    (headline,) = headlines(collect([RUNS]))
    assert (
        headline.lead == "From 4 to 16 epochs the mean final validation accuracy goes from 0.5000 to 0.8000 "
        "(n = 1: not shown to differ)"
    )


def test_of_lengths_whose_statistics_lag_the_reestimated_means_are_told() -> None:
    for epochs, seeds in ((4, 2), (8, 2), (16, 1)):
        for seed in range(seeds):
            rows = [row | {"val/acc_recal": 0.5 + 0.02 * epochs} for row in synthetic_rows(6, 0.86)]
            rows[-1]["val/acc"] = 0.1
            change_summary(write_run(RUNS / str(epochs), epochs=epochs, seed=seed, rows=rows), final_val_acc=0.1)
    (headline,) = headlines(collect([RUNS]))
    start = "Batch-norm statistics lag; from 4 to 16 epochs the mean re-estimated final validation accuracy goes from "
    assert headline.lead == f"{start}0.5800 to 0.8200 (n = 1: not shown to differ)"


def test_the_mean_crosses_a_threshold_later_than_lucky_epochs_of_single_runs() -> None:
    c = planted("a", [0.5, 0.92, 0.8, 0.93, 0.95], [0.5, 0.7, 0.92, 0.91, 0.93])
    assert c.crossing("0.92") == 4  # means 0.5, 0.81, 0.86, 0.92, 0.94; the runs are there in epochs 2 and 3
    assert c.crossing("0.95") is None
    assert planted("b", [0.5, 0.9], [0.5, 0.9, 0.99]).crossing("0.92") is None  # one run alone is no mean of two


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 5), (2, 5), (5, 5), (17, 40)])
def test_the_interval_of_a_share_is_scipys(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert share_interval(k, n) == pytest.approx((expected.low, expected.high))


def test_the_share_of_runs_at_a_threshold_by_epoch() -> None:
    c = planted("a", [0.5, 0.93, 0.8], [0.5, 0.7, 0.92], [0.5, 0.6, 0.7])
    for run, first in zip(c.runs, (2, 3), strict=False):
        run.metrics["epoch_to_0.92"] = first
    axes = plot_reached([c], "0.92").figure.axes[0]
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[0, 0], [1, 0], [2, pytest.approx(1 / 3)], [3, pytest.approx(2 / 3)]]
    band = axes.collections[0].get_paths()[0].vertices
    ends = [bound for k in (0, 1, 2) for bound in stats.binomtest(k, 3).proportion_ci(method="exact")]
    assert {round(y, 9) for y in band[:, 1]} <= {round(float(bound), 9) for bound in ends}


def test_performance_profiles_by_hand() -> None:
    """a takes 2 and 9 epochs to two thresholds, b 4 and 6, c 3 to the first alone."""
    curves = {"a": (0, 0.5, *[0.6] * 6, 0.9), "b": (0, 0, 0, 0.5, 0.6, 0.9), "c": (0, 0, 0.5)}
    configurations = [planted(name, curve) for name, curve in curves.items()]
    plots = {plot.stem: plot for plot in headline_plots(configurations, ["0.5", "0.9"])}
    assert plots.keys() == {"accuracy", "profiles"}  # n = 1 has no share of runs
    lines = [line.get_xydata().tolist() for line in plots["profiles"].figure.axes[0].get_lines()]
    assert [line[:-1] for line in lines] == [
        [[1, 0], [1, 0.5], [1.5, 1]],
        [[1, 0], [1, 0.5], [2, 1]],
        [[1, 0], [1.5, 0.5]],
    ]
    assert {tuple(line[-1]) for line in lines} == {(2.1, 1), (2.1, 0.5)}
    assert plot_profiles(configurations[:1], [{("one", "a", "a"): 2.0}]).figure is not None


def test_the_large_figure_has_the_best_few_in_colour_and_the_others_grey() -> None:
    table = [planted(str(n), [0.1, 0.5, 0.9 - n / 100], [0.1, 0.5, 0.92 - n / 100]) for n in range(7)]
    axes = plot_accuracy(table, ["0.85"]).figure.axes[0]
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert [line.get_ydata()[-1] for line in curves] == pytest.approx([0.91 - n / 100 for n in (5, 6, 4, 3, 2, 1, 0)])
    grey = [line for line in curves if line.get_color() == "#b4bac1"]
    assert len(grey) == 2
    names = [text for text in axes.texts if "n\xa0=\xa02" in text.get_text()]
    assert [text.get_text()[0] for text in names] == list("01234")
    places = [text.get_position()[1] for text in names]
    assert all(high - low > 0.05 for high, low in pairwise(places))


@pytest.mark.parametrize("studies", [1, 2])
def test_eight_columns_are_in_view_and_all_are_there(studies: int) -> None:
    for study in range(studies):
        for wd in (0.1, 0.2):
            change_summary(write_run(RUNS, study=f"study{study}", wd=wd, epochs=20), final_val_acc_recal=0.9)
    assert main(["report", "runs", "--out", "out"]) == 0
    page = Path("out/report.html").read_text()
    head = page[page.index('<table id="runs">') :].split("</thead>")[0]
    hidden = len(re.findall(r'<th class="more"', head))
    assert len(re.findall("<th", head)) - 1 - hidden == 8  # without <thead>
    for row in re.findall(r"<tr>.*?</tr>", page[page.index('<table id="runs">') :].split("</table>")[0], re.DOTALL):
        assert len(re.findall('class="more"', row)) == hidden
    assert "mean at 0.92" in head
    assert page.index('id="every"') < page.index('<div class="scroll wide"')  # the switch works without JavaScript
    printed = page[page.index("@media print") :].split("</style>")[0]
    assert ".more { display: table-cell; }" in printed
    assert "details-content" in printed
    assert "prefers-color-scheme: dark" in page
    with Path("out/table.csv").open(newline="") as file:
        assert next(csv.reader(file))[-2:] == ["mean_curve_to_0.92", "mean_curve_to_0.93"]


def test_pairs_without_a_spread_have_no_number_of_seeds() -> None:
    a, b = planted("a", [0.9], [0.9]), planted("b", [0.8], [0.8])
    (pair,) = compare_with_best(a, [b], METRIC)
    assert (pair.seeds, welch([0.9, 0.9], [0.8, 0.8])) == (None, None)
    assert compare_with_best(a, [], METRIC) == []


def test_a_run_whose_accuracies_are_not_numbers_costs_no_report() -> None:
    rows = [row | {"val/acc": math.nan} for row in synthetic_rows(6, 0.9)]
    folder = write_run(RUNS, epochs=6, rows=rows)
    path = folder / "summary.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"best_val_acc": 0.9, "final_val_acc": 0.9, "best_epoch": 1})
    )
    assert main(["report", "runs", "--out", "out"]) == 0
    assert "is the only configuration: 0.9000" in Path("out/report.html").read_text()


def test_further_seeds_are_told_of_the_nearest_and_of_the_farthest_configuration() -> None:
    headline = write(
        {0.1: [0.90, 0.92, 0.91], 0.2: [0.89, 0.92, 0.90], 0.3: [0.80, 0.95, 0.90], 0.4: [0.70, 0.90, 0.86]}
    )
    best, *others = headline.ranked
    more = [pair.seeds - 3 for pair in compare_with_best(best, others, METRIC) if pair.seeds is not None]
    said = f"here: {more[0]:,.0f} from {others[0].label}; {more[-1]:,.0f} from {others[-1].label}."
    assert len(more) == 3
    assert headline.sentences[-1].endswith(said)


def test_equal_ends_around_a_better_middle_are_not_shown_to_differ() -> None:
    for epochs, value in ((4, 0.55), (8, 0.6), (16, 0.55)):
        for seed, noise in enumerate((0.0, 0.001, -0.001, 0.002)):
            folder = write_run(RUNS / str(epochs), epochs=epochs, seed=seed)
            change_summary(folder, final_val_acc=value + noise, best_val_acc=value + noise)
    (headline,) = headlines(collect([RUNS]))
    assert headline.lead.endswith("goes from 0.5505 to 0.5505 (n = 4: not shown to differ)")


def test_means_that_are_shown_to_rise_with_the_epochs_say_so_without_a_reservation() -> None:
    for epochs, value in ((4, 0.5), (16, 0.8)):
        for seed, noise in enumerate((0.0, 0.01, -0.01, 0.005)):
            change_summary(
                write_run(RUNS / str(epochs), epochs=epochs, seed=seed),
                final_val_acc=value + noise,
                best_val_acc=value + noise,
            )
    (headline,) = headlines(collect([RUNS]))
    assert headline.lead.endswith("0.8013")


def test_configurations_on_other_images_are_not_ranked_together() -> None:
    for data, value in (("cifar10", 0.9), ("digits", 0.99), ("cifar100", 0.7)):
        change_summary(write_run(RUNS / data, data=data), best_val_acc=value)
    (headline,) = headlines(collect([RUNS]))
    assert headline.lead == "digits is the only configuration: 0.9900"
    assert headline.sentences[-1] == "Those on other images are not compared."
    assert [c.label for c in headline.ranked] == ["digits"]


@pytest.mark.parametrize("key", ["digest", "labels", "split", "pool", "val_size", "split_seed"])
def test_nor_are_those_of_other_folders_labels_or_splits(key: str) -> None:
    for value, accuracy in (("a", 0.9), ("b", 0.8)):
        change_summary(write_run(RUNS, **{f"data.{key}": value}), best_val_acc=accuracy)
    (headline,) = headlines(collect([RUNS]))
    assert len(headline.ranked) == 1
    assert headline.sentences[-1] == "Those on other images are not compared."


def test_a_configuration_of_defaults_beside_others_is_called_so() -> None:
    change_summary(write_run(RUNS), best_val_acc=0.9)
    change_summary(write_run(RUNS, **{"optimizer.sam": 0.5}), best_val_acc=0.8)
    assert [c.label for c in collect([RUNS]).configurations] == ["defaults", "sam 0.5"]


def test_long_names_of_a_legend_are_wrapped_inside_the_figure_and_above_its_panels() -> None:
    name = "digits, adamw, cosine, weight_decay, 3 epochs, lr 0.0008, wd 0.2, momentum 0.9, flip false, "
    figure = plot_profiles([planted(name + end, [0.5, 0.9]) for end in ("one", "two", "three")], [{}]).figure
    figure.canvas.draw()
    legend, (axes,) = figure.legends[0].get_window_extent(), figure.axes
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert axes.get_window_extent().y1 <= legend.y0 < legend.y1 <= figure.bbox.y1
    texts = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert texts == [name + end for end in ("one", "two", "three")]


def test_names_that_are_too_long_keep_what_the_fewest_others_have() -> None:
    common = "muon, polynomial, weight_decay, lr 0.02, milestones [[0.0, 0.2], [2.4, 1.0]], warmup 1"
    labels = [common, f"{common}, adamw_lr 0.002", f"{common}, renormalize true, adamw_lr 0.002", "sgd, cosine"]
    found = short_labels([planted(label, [0.5]) for label in labels], 40)
    assert list(found.values()) == [
        "muon, polynomial, weight_decay, lr 0.02, ...",
        "muon, polynomial, adamw_lr 0.002, ...",
        "muon, renormalize true, adamw_lr 0.002, ...",
        "sgd, cosine",
    ]
    assert list(short_labels([planted("a" * 50, [0.5])], 40).values()) == ["a" * 50]  # one part is all there is
    twins = ["p of two, q 1", "p of two, q 2", *(f"r {n}, q 1" for n in range(3)), *(f"s {n}, q 2" for n in range(3))]
    assert list(short_labels([planted(label, [0.5]) for label in twins], 10).values())[:2] == twins[:2]
