"""The command line of train.py as configurations: which overrides are allowed, and the jobs that they make."""

import math
import os
import re
import time
from collections.abc import Sequence
from itertools import accumulate, product

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from omegaconf import DictConfig

from resnetlab.config.compose import compose_node, hydra_context, parse
from resnetlab.config.schema import GROUPS, Config
from resnetlab.console import Countdown
from resnetlab.errors import ConfigError

SEARCH = "hydra/sweeper=optuna"
UNTIL_DECIDED = "hydra/sweeper=seeds"  # what seeds=auto stands for
HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")  # Hydra's own that may be set
NOT_SET = ("_target_", "hydra.sweeper.params")  # but for these: what is called, and a preset's sweep
CHOICES = (*GROUPS, "experiment", "hydra/launcher", "hydra/sweeper")  # keys whose value is a file's name
MOST_JOBS = 10_000  # of a sweep: each is composed and checked first, which takes 0.2 to 0.5 s
MOST_CHARACTERS = 200  # of a key and of an option's name; a file's has 255 at most
DEEPEST = 20  # nesting of a value
# ~/..., quoted or not, as a value or between commas: no shell expands it behind a =
HOME = re.compile(r"""(?<![^,])(?:(["'])(~/.*?)\1|(~/(?:[^,]*[^,"'\])}])?))(?![^,])""")
NOW = re.compile(r"\$\{now:([^{}]*)\}")


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """Moves -m to the front, where argparse accepts overrides on both sides of it, and spells out seeds=N.

    A search is a sweep, with or without -m.

    >>> normalize_arguments(["lr=0.1", "-m", "wd=0.1,0.2", "seeds=3"])
    ['-m', 'lr=0.1', 'wd=0.1,0.2', 'seed=range(0,3)']
    """
    overrides, flags = [], []
    for argument in map(spell_out, arguments):
        argument = UNTIL_DECIDED if argument == "seeds=auto" else argument
        check_argument(argument)
        if argument in ("-m", "--multirun", SEARCH, UNTIL_DECIDED) or argument.startswith("seeds="):
            flags = ["-m"]
        if argument.startswith("seeds="):
            count = argument.removeprefix("seeds=")
            if not re.fullmatch(r"[1-9]\d{0,5}", count) or int(count) > MOST_JOBS:
                raise ConfigError(f"seeds (={count}) must be in 1..{MOST_JOBS:,}, such as 5 for seed=0..4, or auto")
            overrides.append(f"seed=range(0,{count})")
        elif argument not in ("-m", "--multirun", "experiment=null"):  # null: conf/config.yaml's, which Hydra refuses
            overrides.append(argument)
    twice = [override for override in overrides if override.lstrip("+").startswith("seed=")]
    if len(twice) > 1:
        raise ConfigError(f"{' '.join(twice)}: seeds=N stands for seed=0..N-1; give one of seeds and seed, once")
    if {SEARCH, UNTIL_DECIDED} <= {*overrides}:
        cure = "whose trial is one run; give the best trials seeds=auto"
        raise ConfigError(f"seeds=auto cannot go with {SEARCH}, {cure}")
    return [*flags, *overrides]


def spell_out(argument: str) -> str:
    """`${now:...}` as the time it is, which would be another in every job, and ~/ as the home folder."""
    argument = NOW.sub(lambda found: time.strftime(found[1]), argument)
    key, equals, value = argument.partition("=")
    return key + equals + HOME.sub(lambda found: f'"{os.path.expanduser(found[2] or found[3])}"', value)


def check_argument(argument: str) -> None:
    """Raises ConfigError for what Hydra allows and the lab does not."""
    key, equals, value = argument.partition("=")
    if equals and not key.strip("+~ "):
        raise ConfigError(f"{argument} has no key; write KEY=VALUE")
    for name in (key, *value.split(",")) if key in CHOICES else (key,):
        if len(name) > MOST_CHARACTERS:
            raise ConfigError(f"{name[:40]}... is not there: no key and no option has {len(name):,} characters")
    if max(accumulate((letter in "[{(") - (letter in "]})") for letter in argument), default=0) > DEEPEST:
        raise ConfigError(f"{key} (={value[:40]}...) is nested more than {DEEPEST} deep")
    if key.lstrip("+~").startswith("hydra") and (key.endswith(NOT_SET) or NOT_SET[1] in key):
        cure = "a sweep is written -m lr=0.1,0.2, a launcher hydra/launcher=..."
        raise ConfigError(f"{key} (={value}) cannot be set; {cure}")
    if key.lstrip("+~").startswith("hydra") and not key.startswith(HYDRA_KEYS):
        raise ConfigError(f"{key} is not supported; of Hydra's own keys these are: {', '.join(HYDRA_KEYS)}")
    if key in ("hydra/launcher", "hydra/sweeper") and (value in ("", "null") or value[0] in "[{"):
        raise ConfigError(f"{key} (={value}) must name one; leave it out for Hydra's own")
    if key in ("--config-name", "-cn", "--config-path", "-cp"):
        raise ConfigError(f"{key} is not supported; put your files into a folder and name it with --config-dir")
    if key.startswith("~"):
        raise ConfigError(f"{key} is not supported: a key cannot be removed; give it the value that you want")
    if key.removesuffix(".name") in GROUPS and key.endswith(".name"):
        raise ConfigError(f"{key} (={value}) cannot be set by itself; choose with {key.removesuffix('.name')}=...")
    if value.startswith("glob("):
        raise ConfigError(f"{argument} is not supported; write the options out: {key}=a,b,c")
    if key in GROUPS and value == "null":
        raise ConfigError(f"{key} (=null) must be one of {', '.join(GROUPS[key])}")


def jobs_of(arguments: Sequence[str]) -> list[tuple[str, Config]]:
    """(label, configuration) of each job of train.py's command line; a comma makes a sweep, with or without -m."""
    return compose_jobs([argument for argument in normalize_arguments(arguments) if argument != "-m"], multirun=True)


def compose_jobs(overrides: Sequence[str], multirun: bool) -> list[tuple[str, Config]]:
    """The same of overrides alone; label: the overrides that differ, "wd=0.1, seed=0", or "" for one job alone."""
    with hydra_context():
        parsed = parse_overrides(overrides)
        sweeps = preset_sweep(hydra_settings(overrides))
        if multirun:
            batches = split_sweep([*parse_overrides([f"{key}={values}" for key, values in sweeps.items()]), *parsed])
        else:
            given = {override.get_key_element() for override in parsed}
            if left := [f"{key}={values}" for key, values in sweeps.items() if key not in given]:
                one = left[0].split(",")[0]
                raise ConfigError(f"this preset is a sweep over {' '.join(left)}: add -m, or one value, {one}")
            batches = [list(overrides)]
        if not batches:
            raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
        configs, countdown = [], Countdown("checked job", len(batches))
        for batch in batches:
            node = compose_node(batch)
            if len(batches) > 1 and preset_sweep(node.hydra) != sweeps:
                chosen = f"experiment={node.hydra.runtime.choices.experiment}"
                raise ConfigError(f"{chosen} is a sweep of its own and cannot be one value of another; give it alone")
            configs.append(parse(node))
            countdown.tick()
    seen = dict[str, int]()
    for number, config in enumerate(configs):
        if seen.setdefault(repr(config), number) < number:
            raise ConfigError(f"two jobs of the sweep are the same ({' '.join(batches[number])}); name each value once")
    return list(zip(job_labels(batches), configs, strict=True))


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Within hydra_context."""
    parsed: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    return parsed


def split_sweep(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job: the product of all lists of values, the last one fastest. A later key wins.

    As Hydra's own sweeper makes them. Raises ConfigError.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        else:
            if str(override.key_or_group).startswith("hydra"):
                raise ConfigError(f"{override.input_line} is not supported: a sweep is over the lab's own keys")
            if not override.is_discrete_sweep():
                raise ConfigError(f"{override.input_line} is no list of values; {SEARCH} searches an interval")
            values[key] = [f"{key}={value}" for value in sweep_values(override)]
    if math.prod(map(len, values.values())) > MOST_JOBS:
        most = max(values, key=lambda key: len(values[key]))
        limit = f"more than {MOST_JOBS:,} jobs, the most in one command"
        raise ConfigError(f"the sweep has {limit}; give {most} fewer values")
    return [list(job) for job in product(*values.values())]


def sweep_values(override: Override) -> list[str]:
    """The values of a list or a range. Raises ConfigError for a range of more than a sweep can have."""
    sweep = override.value()
    if isinstance(sweep, RangeSweep):
        assert sweep.start is not None
        assert sweep.stop is not None
        if not sweep.step or not abs(sweep.stop - sweep.start) <= MOST_JOBS * abs(sweep.step):
            raise ConfigError(f"{override.input_line} must be a range of at most {MOST_JOBS:,} values")
    return list(override.sweep_string_iterator())


def hydra_settings(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own part of the configuration, as its sweeper and launcher find it. Within hydra_context."""
    chosen = [
        str(override.input_line)
        for override in parse_overrides(overrides)
        if str(override.key_or_group).startswith(("experiment", "hydra")) and not override.is_sweep_override()
    ]
    return hydra.compose("config", overrides=chosen, return_hydra_config=True).hydra


def preset_sweep(settings: DictConfig) -> dict[str, str]:
    """The sweep of a preset, {"batch_size": "32,64,128"}; the command line wins over it."""
    return dict(settings.sweeper.get("params") or {})


def job_labels(batches: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of each job that not all jobs share."""
    shared = set(batches[0]).intersection(*batches)
    return [", ".join(o for o in batch if o not in shared) for batch in batches]
