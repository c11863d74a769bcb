"""Before Hydra starts anything: every job of the command line is composed and checked, and refused in one line."""

import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from resnetlab.config import GROUPS, Config, conf_dir, parse
from resnetlab.containment import contained
from resnetlab.errors import ConfigError, LabError
from resnetlab.folders import OUTPUTS
from resnetlab.hints import group_hint, preset_hint
from resnetlab.run import objective, run
from resnetlab.speech import speak
from resnetlab.sweeps.machine import check_launcher
from resnetlab.sweeps.outcomes import SweepFolder, attempt, failure
from resnetlab.sweeps.table import collect, exit_status, table_lines

__all__ = ["REFUSALS", "complain", "expand_arguments", "interrupted", "labels", "main", "refusal", "sweep"]

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)  # ConfigError is a ValueError, as are some of Hydra's
NOISE = ("full_key", "reference_type", "object_type", "provider", "Config search", "set HYDRA_FULL_ERROR", "To append")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python train.py [OVERRIDES] [-m] [OVERRIDES]`; returns the exit status."""
    try:
        sys.argv[1:] = arguments = expand_arguments(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        return complain(error)
    asked = get_args_parser().parse_args(arguments)
    looks_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    found: list[tuple[str, Config]] = []
    if not looks_only and "LOCAL_RANK" not in os.environ:  # a child of a distributed run was checked by its parent
        try:
            with contained():  # schedule=lambda is called here
                found = labelled_jobs(asked.overrides, asked.multirun)
            if not found:
                raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
        except REFUSALS as error:
            return complain(error)
        except KeyboardInterrupt as stop:
            return interrupted(stop)
    os.environ.pop(SweepFolder.VARIABLE, None)  # of a sweep that this process was started from
    application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)
    if asked.multirun and found:
        return run_sweep(application, found)
    failures.clear()
    try:
        application()
    except KeyboardInterrupt:
        return 130  # the shell's number for it
    return max(failures, default=0)


def run_sweep(application: Callable[[], Any], found: Sequence[tuple[str, Config]]) -> int:
    """Runs all jobs, whatever becomes of some, and prints what became of each; returns the exit status."""
    expected = {number: label for number, (label, _) in enumerate(found)}
    config = found[0][1]
    try:
        folder = SweepFolder.open(config.study)
    except OSError as error:
        return complain(error)
    status, lost = 0, LOST
    try:
        application()
    except KeyboardInterrupt:
        status, lost = 130, "interrupted"
    except SystemExit as end:  # a termination, or Hydra's after a message of its own
        status = end.code if isinstance(end.code, int) else 1
        lost = "interrupted" if status > 128 else LOST
    finally:
        os.environ.pop(SweepFolder.VARIABLE, None)
    outcomes = collect(folder, expected, lost)
    for line in table_lines(outcomes, expected, config.objective):
        speak(line)
    speak(f"runs: resnetlab report {OUTPUTS / config.study}; logs and outcomes: {folder.path}")
    return status or exit_status(outcomes)


LOST = "left no outcome: its process died, or all were ended with one (hydra/launcher=processes loses only the one)"
failures: list[int] = []  # the exit status of this process's job, if it could not be run


def job(node: DictConfig) -> float:
    """One run; returns the objective to the sweeper, not a number for a job that has none, so that the others go on."""
    folder = SweepFolder.current()
    if folder is not None:
        return job_of_sweep(node, folder)
    try:
        config = parse(node)
        return objective(config, run(config))
    except (LabError, OSError) as error:
        failures.append(complain(error))
        return math.nan


def job_of_sweep(node: DictConfig, folder: SweepFolder) -> float:
    """The same as one of many: a failure of any kind is said, kept for the table, and does not end the others."""
    hydra_job = HydraConfig.get().job
    log = folder.log(hydra_job.num)
    try:
        outcome = attempt(parse(node), log, refusal)
    except REFUSALS as error:  # what a sweeper made up
        outcome = failure(error, refusal(error), log)
    folder.record(hydra_job.num, replace(outcome, label=hydra_job.override_dirname))
    if outcome.status == "failed":
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    return outcome.value


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Moves -m to the front, where argparse accepts overrides on both sides of it, and spells out seeds=N.

    >>> expand_arguments(["lr=0.1", "-m", "wd=0.1,0.2", "seeds=3"])
    ['-m', 'lr=0.1', 'wd=0.1,0.2', 'seed=range(0,3)']
    """
    overrides, flags = [], []
    for argument in arguments:
        refuse_argument(argument)
        if argument in ("-m", "--multirun"):
            flags = ["-m"]
        elif argument.startswith("seeds="):
            count = argument.removeprefix("seeds=")
            if not re.fullmatch(r"[1-9]\d{0,5}", count):
                raise ConfigError(f"seeds (={count}) must be a number of seeds, such as 5 for seed=0..4")
            flags = ["-m"]
            overrides.append(f"seed=range(0,{count})")
        elif argument != "experiment=null":  # what conf/config.yaml says, which Hydra does not take back
            overrides.append(argument)
    if sum(override.lstrip("+").startswith("seed=") for override in overrides) > 1:
        raise ConfigError("seeds=N stands for seed=0..N-1; give one of seeds and seed, once")
    return [*flags, *overrides]


def refuse_argument(argument: str) -> None:
    """Raises ConfigError for what Hydra takes and we do not."""
    key, _, value = argument.partition("=")
    if key in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
        raise ConfigError(f"{key} is not supported; put your files into {conf_dir()}")
    if key.startswith("~"):
        raise ConfigError(f"{key} is not supported: a key cannot be removed; give it the value that you want")
    if key.removesuffix(".name") in GROUPS and key.endswith(".name"):
        raise ConfigError(f"{key} (={value}) cannot be set by itself; choose with {key.removesuffix('.name')}=...")
    if value.startswith("glob("):
        raise ConfigError(f"{argument} is not supported; write the options out: {key}=a,b,c")
    if key in GROUPS and value == "null":
        raise ConfigError(f"{key} (=null) must be one of {', '.join(GROUPS[key])}")


def jobs(overrides: Sequence[str], multirun: bool) -> list[Config]:
    """The configurations that the command line means, in the sweep's order; raises for the first that is wrong."""
    return [config for _, config in labelled_jobs(overrides, multirun)]


def labelled_jobs(overrides: Sequence[str], multirun: bool) -> list[tuple[str, Config]]:
    """The same with what tells each job from the others: "wd=0.1, seed=0", or "" for one job alone."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        batches: list[list[str]] = [list(overrides)]
        if multirun:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            for override in parsed:
                if override.is_sweep_override() and str(override.key_or_group).startswith("hydra"):
                    raise ConfigError(f"{override.input_line} is not supported: a sweep is over the lab's own keys")
            batches = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
        configs = [parse(hydra.compose("config", overrides=list(batch))) for batch in batches]
        if any(override.startswith("hydra.launcher.") for override in overrides):
            launcher = hydra.compose("config", overrides=batches[0], return_hydra_config=True).hydra.launcher
            check_launcher(dict(launcher))
    return list(zip(labels(batches), configs, strict=True))


def labels(batches: Sequence[Sequence[str]]) -> list[str]:
    """What tells the jobs' overrides apart: "wd=0.1, seed=0", or "" for one job alone."""
    shared = set(batches[0]).intersection(*batches) if batches else set()
    return [", ".join(o for o in batch if o not in shared) for batch in batches]


def sweep(arguments: Sequence[str]) -> list[tuple[str, Config]]:
    """(label, configuration) of each job of train.py's command line; a comma makes a sweep, with or without -m."""
    overrides = [argument for argument in expand_arguments(arguments) if argument != "-m"]
    found = labelled_jobs(overrides, multirun=True)
    if not found:
        raise ConfigError("the sweep has no jobs; one of its ranges or lists is empty")
    if len({label for label, _ in found}) < len(found):
        raise ConfigError("two jobs of the sweep are the same; name each value once")
    return found


def complain(error: Exception) -> int:
    """One line on stderr, and exit status 2 for what is wrong with the command, 1 for what is wrong with the world."""
    print(f"error: {refusal(error)}", file=sys.stderr, flush=True)
    return 2 if isinstance(error, REFUSALS) else 1


def interrupted(stop: KeyboardInterrupt) -> int:
    """One line on stderr: the interrupt's own about what is kept, if it has one; and the shell's status for it."""
    print(str(stop) or "interrupted; nothing was written", file=sys.stderr, flush=True)
    return 130


def refusal(error: BaseException) -> str:
    """What is wrong, in one line, with the valid names where OmegaConf knows them, or those that may be meant."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(NOISE))
    if missing := re.search(r"Could not find 'experiment/([^']*)'", text):
        folder = conf_dir() / "experiment"
        near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        return preset_hint(missing[1], (path.stem for path in folder.glob("*.yaml")), str(near))
    chain = [error]
    while (following := reason(chain[-1])) is not None and following not in chain:
        chain.append(following)
    causes = [str(link).splitlines()[0] for link in reversed(chain) if str(link)]
    if causes and causes[0] not in text:
        text += f": {causes[0]}"
    for link in chain:
        parent = getattr(link, "parent_node", None)
        if isinstance(parent, DictConfig) and "not in" in str(link):
            key = str(getattr(link, "full_key", ""))  # with a dot, if it is below a group
            if hint := group_hint(key, GROUPS):
                return f"unknown key {key}; {hint}"
            return f"{text} (valid: {', '.join(map(str, parent))})"
    return text


def reason(error: BaseException) -> BaseException | None:
    """What led to the error, unless it was raised `from None`."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)
