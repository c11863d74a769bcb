"""Several runs in one process: each equals the run alone to the bit, whatever the others do to the process between."""

import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from test_isolation import mischief, state
from test_sweeps import assert_equal, block, table_of

from conftest import TINY, tiny
from resnetlab import compose
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps import one_process
from resnetlab.sweeps.jobs import Job, run_jobs
from resnetlab.sweeps.one_process import InterleavedRun, OneProcess
from resnetlab.training.build import AFTER_CHUNK
from resnetlab.training.isolation import preserve_process_state

ONE_PROCESS = ("hydra/launcher=one_process", "hydra.launcher.jobs=3")
# dropout draws from the process's generator in every step
DROPOUT = ("model=resnet56v1_concat", "model.depth=8", "averaging=ema", "recalibrate_bn=true")


def runs_equal(one: str, other: str, *common: str, **values: tuple[str, ...]) -> None:
    for key, choices in values.items():
        for value in choices:
            assert_equal(*(compose(*TINY, *common, f"study={s}", f"{key}={value}").folder for s in (one, other)))


def test_runs_in_turn_equal_runs_one_after_the_other_to_the_bit(sweep) -> None:
    optimizers = ("adamw", "sgd", "muon")
    for study, launcher in (("alone", ()), ("in_turn", ONE_PROCESS)):
        status, out, err = sweep(*DROPOUT, "epochs=2", f"study={study}", f"optimizer={','.join(optimizers)}", *launcher)
        assert (status, err) == (0, "")
        assert "3 finished of 3 jobs" in out
    runs_equal("alone", "in_turn", *DROPOUT, "epochs=2", optimizer=optimizers)


def test_the_runs_take_turns(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    original = InterleavedRun.turn
    monkeypatch.setattr(
        InterleavedRun, "turn", lambda run, *error: turns.append(run.job.number) or original(run, *error)
    )
    assert sweep("epochs=1", "wd=0.1,0.2,0.3", "hydra/launcher=one_process")[0] == 0
    first = turns.index(2)  # the third begins when one of two has ended
    assert turns[:first] == [0, 1] * (first // 2)
    assert first > 4


def test_what_a_run_changes_in_its_process_is_there_in_its_own_turns_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_job(*_: object) -> dict[str, object]:
        mischief()
        print("first")
        inside = [state(), torch.get_rng_state().tolist()]
        pause = AFTER_CHUNK.get()
        assert pause is not None
        pause(SimpleNamespace(current_epoch=0))
        assert [state(), torch.get_rng_state().tolist()] == inside
        print("second")
        return asdict(Outcome("finished"))

    monkeypatch.setattr(one_process, "train_job", train_job)
    with preserve_process_state():
        torch.backends.cudnn.benchmark = False
        backend = OneProcess([tiny()], 2)
        before = [state(), torch.get_rng_state().tolist(), sys.stdout]
        run = InterleavedRun(backend, log := Path("log"), Job(0, "", [], tiny()))
        run.turn()
        assert [state(), torch.get_rng_state().tolist(), sys.stdout] == before
        assert (run.epochs, run.outcome, log.read_text()) == ({0}, None, "first\n")
        with preserve_process_state():
            torch.rand(3)
            np.random.rand(3)
            run.turn()
        assert [state(), torch.get_rng_state().tolist(), sys.stdout] == before
        assert (run.outcome, log.read_text()) == (Outcome("finished"), "first\nsecond\n")
        run.log.close()
    assert AFTER_CHUNK.get() is None
    assert capsys.readouterr().out == ""


def test_a_failing_run_ends_no_other(sweep) -> None:
    blocked = block(tiny("epochs=1", "wd=0.2"))
    status, out, err = sweep("epochs=1", "wd=0.2,0.1,1e30", *ONE_PROCESS)
    assert (status, err.count("\n")) == (1, 1)
    assert str(blocked) in err
    assert [outcome for outcome, _ in table_of(out).values()] == ["failed", "finished", "diverged"]


def test_a_log_that_cannot_be_opened_and_an_exit_of_the_users_code_are_one_jobs_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [Job(n, "", [*TINY, "epochs=1", f"seed={n}"], tiny("epochs=1", f"seed={n}")) for n in range(3)]
    folder = SweepFolder.open("default")
    folder.log(0).mkdir()
    original = one_process.train_job
    monkeypatch.setattr(
        one_process, "train_job", lambda log, words: original(log, words) if "seed=2" in words else sys.exit(3)
    )
    run_jobs(jobs, folder, OneProcess([job.config for job in jobs], 3), lambda: None)
    outcomes = [job.outcome for job in jobs]
    assert [outcome and outcome.status for outcome in outcomes] == ["failed", "failed", "finished"]
    assert "Is a directory" in outcomes[0].reason
    assert outcomes[1].reason == "SystemExit: 3"


@pytest.mark.parametrize("between", [False, True], ids=["in a turn", "between turns"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_all_and_the_same_command_goes_on(
    number: signal.Signals, code: int, between: bool, sweep: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handlers of signals and the output are the process's again."""
    command = (*DROPOUT, "epochs=2", "study=cut", "wd=0.1,0.2", "trainer.progress=lines", *ONE_PROCESS)
    pauses, original = [], InterleavedRun.pause
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has turned it off
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def pause(run: InterleavedRun, trainer, *rest: object) -> None:
        pauses.append(run.job.number)
        if len(pauses) == 6 and not between:
            signal.raise_signal(number)
        original(run, trainer, *rest)

    def process_state() -> list:
        if len(pauses) == 6 and between:
            pauses.append(-1)
            signal.raise_signal(number)
        return saved()

    saved = one_process.process_state
    with monkeypatch.context() as patched:
        patched.setattr(InterleavedRun, "pause", pause)
        patched.setattr(one_process, "process_state", process_state)
        try:
            status = sweep(*command)[0]
        except SystemExit as end:
            status = end.code
    assert status == code
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    logs = [log.read_text() for log in Path("outputs/cut/sweeps").glob("*/job-*.log")]
    assert [text.count("interrupted; epochs kept: 1") for text in logs] == [1, 1]
    assert sweep(*command)[:1] == (0,)
    assert sweep(*DROPOUT, "epochs=2", "study=whole", "wd=0.1,0.2")[0] == 0
    runs_equal("cut", "whole", *DROPOUT, "epochs=2", wd=("0.1", "0.2"))


def test_a_gpu_gets_no_more_runs_than_its_memory_holds(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Of 10 GiB 2 are another program's; a run takes 3 GiB at its peak, and holds 1."""
    monkeypatch.setattr(one_process, "gpus_per_job", lambda *_: 1.0)
    measured_anew = Mock()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", measured_anew)  # a search launches several times
    for name, value in {"max_memory_reserved": 3, "memory_reserved": 1, "mem_get_info": (7, 10)}.items():
        found = tuple(v * 2**30 for v in value) if isinstance(value, tuple) else value * 2**30
        monkeypatch.setattr(torch.cuda, name, lambda found=found: found)
    backend = OneProcess([tiny("trainer.progress=lines")], 5)
    backend.start(first := Job(1, "", [], tiny()), Path("log"), [])
    measured_anew.assert_called_once_with()
    backend.outcome_of(first, Path("log"))
    job = Job(0, "", [], tiny())
    job.handle = SimpleNamespace(trained_an_epoch=False, turn=lambda: None)
    assert (backend.has_room([]), backend.has_room([job])) == (True, False)
    backend.wait([job])
    assert not backend.has_room([job])  # the first epoch is not over
    job.handle.trained_an_epoch = True
    backend.wait([job])
    assert (backend.has_room([job]), backend.has_room([job, job])) == (True, False)
    assert capsys.readouterr().out == "sweep: the first run takes 3.00 of the GPU's 10 GiB; 2 at once, not 5\n"
