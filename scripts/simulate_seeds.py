"""Simulates sweeps with seeds=auto: how often a verdict is wrong, and how many seeds it takes.

    python scripts/simulate_seeds.py [SWEEPS]

In the first table three configurations have normal values of sd 1, and the mean of the first is higher by the effect.
Beside it stands the test with a number of seeds that is fixed beforehand: Student's of two samples for each pair, with
Bonferroni's correction, at the least n at which it shows the first as the best as often, where the effect is the least
difference. The second table has equal means and other distributions. It counts a sweep as wrong if any pair's interval
ever leaves out 0, also where seeds=auto would have stopped before.
"""

import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy.special import stdtrit

from resnetlab.report.sequential import FEWEST, SAME, Verdict, assess, half_widths, running

ALPHA, K, SWEEPS = 0.05, 3, 10_000
PAIRS = K * (K - 1) // 2
# least difference, most seeds, correlation of the same seed's values
DESIGNS = ((1.5, 20, 0.0), (1.5, 20, 0.5), (2.0, 20, 0.0), (1.0, 50, 0.0))


def draw(generator: np.random.Generator, sweeps: int, n: int, correlation: float = 0.0) -> np.ndarray:
    """(sweeps, K, n) normal values of sd 1."""
    own, shared = generator.standard_normal((sweeps, K, n)), generator.standard_normal((sweeps, 1, n))
    return np.sqrt(1 - correlation) * own + np.sqrt(correlation) * shared


def play(values: np.ndarray, half: np.ndarray, least: float) -> tuple[int | None, dict[int, Verdict], int]:
    """(best, verdicts, seeds of all configurations) at the end of one sweep. values: (K, most seeds)."""
    counts = dict.fromkeys(range(K), 0)
    while True:
        best, verdicts, wanted = assess({p: values[p, :n] for p, n in counts.items()}, half, least)  # type: ignore[misc]
        if not wanted:
            return best, verdicts, sum(counts.values())
        counts |= wanted


def is_wrong(verdict: Verdict, difference: float) -> bool:
    """Whether it says something false. difference: the true one."""
    if verdict.relation == "lower than":
        return difference >= 0
    return verdict.relation.startswith("no difference") and abs(difference) >= verdict.least


def sequential(effect: float, least: float, most: int, correlation: float, sweeps: int) -> Counter[str]:
    """Numbers of sweeps, and the seeds of all configurations of all of them."""
    half, found = half_widths(ALPHA / PAIRS, most), Counter[str]()
    means = np.array([effect, *[0.0] * (K - 1)])
    for values in draw(np.random.default_rng(1), sweeps, most, correlation):
        best, verdicts, seeds = play(values + means[:, None], half, least)
        relations = {verdict.relation.partition(" ")[0] for verdict in verdicts.values()}
        found["wrong"] += any(is_wrong(v, float(means[place] - means[v.other])) for place, v in verdicts.items())
        found["shown"] += best == 0 and relations == {"lower"}
        found["equal"] += relations == {"no"}
        found["open"] += "" in relations
        found["seeds"] += seeds
    return found


def fixed_power(n: int, effect: float, correlation: float, sweeps: int) -> float:
    """Share of the sweeps in which the test of n seeds shows the first configuration above each other one."""
    values = draw(np.random.default_rng(2), sweeps, n, correlation)
    means, variances = values.mean(axis=2), values.var(axis=2, ddof=1)
    t = (means[:, :1] + effect - means[:, 1:]) / np.sqrt((variances[:, :1] + variances[:, 1:]) / n)
    return float((t > stdtrit(2 * n - 2, 1 - ALPHA / (2 * PAIRS))).all(axis=1).mean())


def ever_wrong(values: np.ndarray) -> float:
    """Share of the sweeps of equal means in which any pair's interval leaves out 0 at any look."""
    half, wrong = half_widths(ALPHA / PAIRS, values.shape[2])[FEWEST - 1 :], np.zeros(len(values), dtype=bool)
    for first, second in combinations(range(K), 2):
        means, sd = (part[:, FEWEST - 1 :] for part in running(values[:, first] - values[:, second]))
        wrong |= ((np.abs(means) > half * sd) & (sd > SAME)).any(axis=1)
    return float(wrong.mean())


Distribution = Callable[[np.random.Generator, int], np.ndarray]
DISTRIBUTIONS: dict[str, Distribution] = {
    "normal": lambda g, n: draw(g, n, 20),
    "sd of 1, 4 and 16": lambda g, n: draw(g, n, 20) * np.array([1.0, 4.0, 16.0])[:, None],
    "correlation of 0.5": lambda g, n: draw(g, n, 20, 0.5),
    "Student's t of 3 degrees of freedom": lambda g, n: g.standard_t(3, (n, K, 20)),
    "exponential": lambda g, n: g.exponential(size=(n, K, 20)),
    "one exponential, the others normal": lambda g, n: np.concatenate(
        [g.exponential(size=(n, 1, 20)) - 1, draw(g, n, 20)[:, 1:]], axis=1
    ),
    "normal, rounded to multiples of 2 sd": lambda g, n: 2 * np.round(draw(g, n, 20) / 2),
}


def main(sweeps: int) -> None:
    head = ("correlation", "effect", "wrong", "best shown", "all equal", "some open", "seeds", "fixed n", "ratio")
    print(f"| least difference | most seeds | {' | '.join(head)} |")
    print("|---" * (2 + len(head)) + "|")
    for least, most, correlation in DESIGNS:
        rows = {effect: sequential(effect, least, most, correlation, sweeps) for effect in (0.0, least, 2 * least)}
        wanted = rows[least]["shown"] / sweeps
        fixed = next(n for n in range(2, 200) if fixed_power(n, least, correlation, sweeps) >= wanted)
        for effect, row in rows.items():
            shares = [f"{row[key] / sweeps:.1%}" for key in ("wrong", "shown", "equal", "open")]
            seeds = row["seeds"] / sweeps / K
            cells = [f"{least:g}", f"{most}", f"{correlation:g}", f"{effect:g}", *shares, f"{seeds:.1f}", f"{fixed}"]
            print(f"| {' | '.join(cells)} | {seeds / fixed:.2f} |", flush=True)
    print("\n| equal means | ever wrong |\n|---|---|")
    for name, distribution in DISTRIBUTIONS.items():
        print(f"| {name} | {ever_wrong(distribution(np.random.default_rng(3), sweeps)):.1%} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SWEEPS)
