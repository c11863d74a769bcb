"""A sweep with trunk=auto trains a common beginning once: which job waits for which, and equality to the bit."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from test_sweeps import PROCESSES
from test_sweeps_killed import kill_one, started, wait_for, workers
from test_trunk import assert_equal_runs, plan

from conftest import TINY, tiny
from resnetlab import Config, compose, run
from resnetlab.config.option_files import conf_dir
from resnetlab.config.overrides import jobs_of
from resnetlab.runs.files import read_json
from resnetlab.sweeps.jobs import Job, next_job
from resnetlab.sweeps.trunk_plan import plan_trunks
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.trunk import shared_epochs

SIX_OF_TEN = ("schedule=wsd", "schedule.decay=4", "schedule.interval=step", "epochs=10")
FOUR = ("schedule.shape=linear,cosine", "schedule.final=0,0.1")


def four(*overrides: str) -> list[Config]:
    values = product(*(override.split("=")[1].split(",") for override in FOUR))
    return [compose(*TINY, *SIX_OF_TEN, f"schedule.shape={a}", f"schedule.final={b}", *overrides) for a, b in values]


def test_four_schedules_share_six_epochs_of_each_seed() -> None:
    configs = [config for seed in (0, 1) for config in four("trunk=auto", f"seed={seed}")]
    assert plan_trunks(configs) == {1: (0, 6), 2: (0, 6), 3: (0, 6), 5: (4, 6), 6: (4, 6), 7: (4, 6)}
    assert plan_trunks([replace(config, trunk="off") for config in configs]) == {}
    assert plan_trunks([replace(config, force=True) for config in configs]) == {}


def test_the_plan_is_that_of_all_pairs() -> None:
    """In any order; the epochs that are left are those of the union of all (epoch, all before it)."""
    kinds = ("schedule=constant", "schedule=multistep schedule.milestones=[2,5]", "schedule=wsd")
    ends = ("epochs=4", "epochs=6", "epochs=7 averaging=swa averaging.start=3")
    texts = [*(f"{kind} {end}" for kind, end in product(kinds, ends)), "wd=0.1", "averaging=ema"]
    configs = [tiny("trunk=auto", *text.split()) for text in texts]
    random.Random(1).shuffle(configs)
    found, left = plan_trunks(configs), 0
    for j, mine in enumerate(configs):
        common = [shared_epochs(plan(mine), plan(theirs))[0] for theirs in configs[:j]]
        most = max(common, default=0)
        assert found.get(j, (0, 0))[1] == most
        assert most == 0 or common[found[j][0]] == most
        left += mine.epochs - most
    backwards = plan_trunks(configs[::-1]).values()
    assert sum(config.epochs for config in configs) - sum(epoch for _, epoch in backwards) == left


def test_a_job_waits_until_its_trunk_has_passed_the_epoch_or_ended() -> None:
    """Others do not wait, and not for an interrupted trunk that has its snapshot."""
    configs = [tiny("epochs=3", f"wd=0.{number}") for number in (1, 2, 3)]
    trunk, branch, other = (Job(number, "", [], config) for number, config in enumerate(configs))
    branch.trunk = 0, 2
    assert next_job([branch, other], [trunk]) is other
    assert next_job([branch, trunk], [other]) is trunk
    assert next_job([branch], [trunk]) is None
    assert next_job([branch], [other]) is branch
    trunk.config.folder.checkpoints.mkdir(parents=True)
    trunk.config.folder.snapshot(2).touch()
    assert next_job([branch, other], [trunk]) is branch


def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run of every epoch that is trained in this process from now on."""
    found: list[str] = []
    original = Recorder.on_train_epoch_end
    monkeypatch.setattr(
        Recorder,
        "on_train_epoch_end",
        lambda self, *rest: (found.append(str(self.folder.path)), original(self, *rest))[1],
    )
    return found


def test_a_sweep_trains_what_its_jobs_share_once(
    sweep: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = epochs_trained(monkeypatch)
    common = ("schedule=wsd", "schedule.decay=1", "schedule.interval=step")
    status, out, err = sweep(*common, "epochs=2,3", "trunk=auto")
    assert (status, err) == (0, "")
    assert "trunk=auto: 4 of 5 epochs are trained, 1 are shared\n" in out
    assert len(trained) == 4
    configs = [tiny(*common, f"epochs={epochs}") for epochs in (2, 3)]
    assert "trunk" not in read_json(configs[0].folder.manifest)
    assert read_json(configs[1].folder.manifest)["trunk"]["epoch"] == 1


def check_four(sharing: Sequence[int]) -> None:
    """Each equals the same run from the beginning. sharing: the epochs that each may have from another."""
    configs = four()
    for config in configs:
        run(reference := replace(config, study="reference"))
        assert_equal_runs(config, reference)
    shared = [read_json(config.folder.manifest).get("trunk", {}).get("epoch", 0) for config in configs]
    assert shared == list(sharing)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), PROCESSES], ids=str)
def test_four_schedules_train_22_epochs_instead_of_40(
    launcher: tuple[str, ...], sweep: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = epochs_trained(monkeypatch)
    status, out, _ = sweep(*SIX_OF_TEN, *FOUR, "trunk=auto", *launcher)
    assert status == 0, out
    assert "trunk=auto: 22 of 40 epochs are trained, 18 are shared\n" in out
    assert len(trained) == (0 if launcher else 22)
    check_four([0, 6, 6, 6])


@pytest.mark.slow
def test_after_ten_kills_of_trunk_branches_and_sweep_all_is_the_same() -> None:
    chance, targets = random.Random(5), ["worker"] * 5 + ["parent"] * 5
    longer = ("data.limit=320", "batch_size=8", "trainer.progress=lines")
    command_line = (*SIX_OF_TEN, *FOUR, *longer, "trunk=auto", *PROCESSES, "hydra.launcher.retries=100")
    configs = four(*longer)
    chance.shuffle(targets)
    while targets:
        with started(*command_line) as parent:
            while targets and parent.poll() is None:
                wait_for(lambda: workers(parent.pid) or parent.poll() is not None)
                time.sleep(chance.uniform(0, 1.5))  # an idle machine trains all of it in a minute
                if kill_one(parent, targets[-1], chance):
                    targets.pop()
            assert targets == [] or parent.poll() != 0, "finished too soon for all kills"
    with started(*command_line) as parent:
        assert parent.wait(600) == 0, Path("log").read_text()
    for config in configs:
        run(reference := replace(config, study="reference"))
        assert_equal_runs(config, reference)
    shared = [read_json(config.folder.manifest).get("trunk", {}).get("epoch", 0) for config in configs]
    assert sum(epochs > 0 for epochs in shared) >= 2, shared


def epochs_left(presets: str, *overrides: str) -> tuple[int, int]:
    """(epochs that a sweep over these presets trains, epochs of its jobs)."""
    configs = [config for _, config in jobs_of([f"experiment={presets}", "trunk=auto", *overrides])]
    total = sum(config.epochs for config in configs)
    return total - sum(epoch for _, epoch in plan_trunks(configs).values()), total


@pytest.mark.parametrize(
    ("rows", "trained", "planned"),
    [
        ("1-05,1-06,1-07", 60 + (60 - 21) + (60 - 20), 180),  # wd 0.1
        ("1-21,3-22,3-23,3-24,3-25", 156, 236),  # wd 0.2
    ],
)
def test_published_rows_of_one_weight_decay_share_their_first_epochs(rows: str, trained: int, planned: int) -> None:
    assert epochs_left(",".join(f"post4-table{row}" for row in rows.split(","))) == (trained, planned)


@pytest.mark.slow
def test_all_rows_of_post_iv_cost_what_the_documentation_says() -> None:
    """And the preset that is a trunk with cooldowns, for each seed: 55 epochs and six times five."""
    page = (Path(__file__).parents[2] / "docs" / "published.md").read_text()
    names = sorted(path.stem for path in (conf_dir() / "experiment").glob("post4-*.yaml"))
    left, total = epochs_left(",".join(names))
    assert total == 1556
    assert f"| {len(names)} | {total:,} | {left:,} |" in page
    assert epochs_left("cooldowns", "seeds=2") == (2 * (55 + 6 * 5), 2 * 175)
