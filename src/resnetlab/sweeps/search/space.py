"""The search space, in Hydra's own syntax for sweeps."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import distributions as kinds

from resnetlab.config.identity import NOT_IDENTITY
from resnetlab.config.overrides import parse_overrides, sweep_values
from resnetlab.errors import ConfigError, first_line


class Space(NamedTuple):
    """The command line's overrides in their order: fixed ones whole, of the others the key, with its distribution."""

    overrides: tuple[tuple[str, kinds.BaseDistribution | None], ...]

    @classmethod
    def read(cls, overrides: Sequence[str]) -> "Space":
        """Raises ConfigError for what cannot be searched."""
        found: dict[str, tuple[str, kinds.BaseDistribution | None]] = {}
        for override in parse_overrides(overrides):
            key, name, line = override.get_key_element(), str(override.key_or_group), str(override.input_line)
            if not override.is_sweep_override():
                found[key] = (f"{key}={override.get_value_element_as_str()}", None)
                continue
            if name == "seed":
                cure = "a trial is one run; give the best one seeds=5"
                raise ConfigError(f"{line} (or seeds=N) cannot be searched: {cure}")
            if name in NOT_IDENTITY or name.startswith("hydra"):
                raise ConfigError(f"{line} cannot be searched: {name} does not change what a run computes")
            found[key] = (key, distribution(override, line))
        space = cls(tuple(found.values()))
        if not space.distributions:
            cure = "give values, such as 'wd=interval(0.01,0.5)'"
            raise ConfigError(f"hydra/sweeper=optuna has nothing to search; {cure}")
        return space

    @property
    def distributions(self) -> dict[str, kinds.BaseDistribution]:
        return {key: kind for key, kind in self.overrides if kind is not None}

    def job(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of one trial."""
        return [line if kind is None else f"{line}={values[line]}" for line, kind in self.overrides]

    def corners(self) -> Iterator[dict[str, Any]]:
        """The first value of every key; then each other choice, and the other end, of one key at a time."""
        first = {key: ends(kind)[0] for key, kind in self.distributions.items()}
        yield first
        for key, kind in self.distributions.items():
            for value in ends(kind)[1:]:
                yield {**first, key: value}

    def plain(self) -> dict[str, str]:
        """As text that can be compared."""
        return {key: kinds.distribution_to_json(kind) for key, kind in sorted(self.distributions.items())}


def distribution(override: Override, line: str) -> kinds.BaseDistribution:
    """range stops before its end, as in every other sweep."""
    sweep: Any = override.value()
    log = "log" in sweep.tags
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            if low is None or high is None or not low < high:
                raise ValueError("its first number must be below its second")
            if isinstance(low, int) and isinstance(high, int):
                return kinds.IntDistribution(low, high, log=log)
            return kinds.FloatDistribution(low, high, log=log)
        values = sweep_values(override)
        if not values:
            raise ValueError("it is empty")
        if len(set(values)) < len(values):
            raise ValueError("name each value once")
        if isinstance(sweep, RangeSweep):
            return steps(values, log)
        return kinds.CategoricalDistribution(values)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"{line} is no search space: {first_line(error)}") from None


def steps(values: Sequence[str], log: bool) -> kinds.BaseDistribution:
    """Of a range's values, all of one distance."""
    numbers = sorted(Decimal(value) for value in values)
    distance = numbers[1] - numbers[0] if len(numbers) > 1 else Decimal(1)
    if all(number == int(number) for number in numbers) and "." not in "".join(values):
        return kinds.IntDistribution(int(numbers[0]), int(numbers[-1]), log=log, step=int(distance))
    if log:
        raise ValueError("tag(log, ...) goes with interval(...) or whole numbers")
    high = numbers[0] + round((numbers[-1] - numbers[0]) / distance) * round(distance, 12)
    return kinds.FloatDistribution(float(numbers[0]), float(high), step=float(round(distance, 12)))


def ends(kind: kinds.BaseDistribution) -> list[Any]:
    """All choices, or the lowest and the highest number."""
    if isinstance(kind, kinds.CategoricalDistribution):
        return list(kind.choices)
    assert isinstance(kind, kinds.FloatDistribution | kinds.IntDistribution)
    return list(dict.fromkeys((kind.low, kind.high)))
