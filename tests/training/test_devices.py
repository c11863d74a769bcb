"""One run on two devices: two processes of the CPU that talk through gloo, against one process."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from test_resume import start_and_wait
from test_sweeps_killed import children_of, gone, wait_for

from conftest import TINY, tiny
from processes import train
from resnetlab import build, run
from resnetlab.config.identity import run_folder
from resnetlab.config.overrides import configurations_of
from resnetlab.data import derive_seed
from resnetlab.errors import ConfigError
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.sweeps.launchers import refuse_several_devices
from resnetlab.training.callbacks.energy import over_cards
from resnetlab.training.evaluate import evaluate_checkpoint

# 60 images in batches of 25, 25 and 10: shares of 13 and 12, so a plain mean over the ranks would be wrong
UNEVEN = ("batch_size=25", "epochs=2", "optimizer=sgd", "schedule=cosine", "lr=0.01", "model.norm=group")

# sitecustomize: writes down every file below outputs that any process opens for writing, and its rank
WITNESS = """
import os, sys
def hear(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path, flags = os.fsdecode(arguments[0]), arguments[2]
        if "outputs" in path and flags & (os.O_WRONLY | os.O_RDWR):
            os.write(heard, f"{os.environ.get('LOCAL_RANK', '-')} {path}\\n".encode())
heard = os.open("heard", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(hear)
"""


def folder_of(*overrides: str) -> RunFolder:
    return run_folder(tiny(*UNEVEN, *overrides))


def figures(folder: RunFolder) -> list[dict[str, float]]:
    """The rows without the times."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(folder.metrics)]


def succeed(*overrides: str, **extra: str) -> None:
    done = train(*overrides, **extra)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("devices", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(devices: int) -> None:
    _, data, _ = build(tiny(*UNEVEN))
    cpu = torch.device("cpu")
    whole = list(data.batches(1, cpu))
    shares = [list(data.batches(1, cpu, (rank, devices))) for rank in range(devices)]
    for index, (x, y) in enumerate(whole):
        assert len(y) == data.batch_images(index)
        for rank in range(devices):
            torch.testing.assert_close(shares[rank][index][0], x[rank::devices], rtol=0, atol=0)
            assert shares[rank][index][1].tolist() == y[rank::devices].tolist()


def test_the_validation_images_are_shared_out_once() -> None:
    _, data, _ = build(tiny("data.limit=250", "data.eval_batch_size=16"))
    parts = [data.eval_batches(data.val, torch.device("cpu"), (rank, 3)) for rank in range(3)]
    seen = torch.cat([x.flatten(1) for part in parts for x, _ in part])
    everything = torch.cat([x.flatten(1) for x, _ in data.eval_batches(data.val, torch.device("cpu"))])
    assert sorted(seen.tolist()) == sorted(everything.tolist())
    assert len(seen) == len(data.val) == 50


def test_two_devices_equal_one_and_only_the_first_writes() -> None:
    Path("sitecustomize.py").write_text(WITNESS)
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    succeed(*UNEVEN, "trainer.devices=2", PYTHONPATH=path)
    run(tiny(*UNEVEN))
    ours, alone = figures(folder_of("trainer.devices=2")), figures(folder_of())
    assert len(ours) == len(alone) == 2
    for a, b in zip(ours, alone, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)
    heard = Path("heard").read_text().splitlines()
    assert {line.split()[0] for line in heard} <= {"-", "0"}, "a second writer"
    assert any("metrics.csv" in line for line in heard), "the witness is deaf"


@pytest.mark.slow
def test_a_batch_norm_is_validated_with_the_statistics_that_are_saved() -> None:
    overrides = (*UNEVEN, "model.norm=batch", "model.bn_momentum=0.5", "trainer.devices=2")
    succeed(*overrides)
    folder = run_folder(tiny(*overrides))
    again = evaluate_checkpoint(folder.last)
    # the same images and weights in other batches: rounding of float32
    assert figures(folder)[-1]["val/ce"] == pytest.approx(again["ce"], rel=1e-6)


@pytest.mark.slow
def test_divergence_is_the_same_result() -> None:
    succeed(*UNEVEN, "lr=1e30", "trainer.devices=2")
    ours = json.loads(run_folder(tiny(*UNEVEN, "lr=1e30", "trainer.devices=2")).summary.read_text())
    alone = run(tiny(*UNEVEN, "lr=1e30"))
    keys = ("status", "diverged_quantity", "diverged_epoch", "diverged_step", "epochs_trained")
    assert {key: ours[key] for key in keys} == {key: alone[key] for key in keys}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "second"])
def test_a_killed_process_costs_nothing(victim: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("data.limit=640", "batch_size=16", "epochs=3", "schedule=one_cycle", "trainer.devices=2")
    rows = []
    for name in ("undisturbed", "killed"):
        (empty_folder / name).mkdir()
        monkeypatch.chdir(empty_folder / name)
        if name == "killed":
            process = start_and_wait(1, overrides)
            followers = list(children_of(process.pid))
            os.kill(process.pid if victim == "first" else followers[0], signal.SIGKILL)
            assert process.wait(60) != 0
            log = Path("log").read_text()
            assert "Traceback" not in log
            if victim == "second":
                assert log.splitlines()[-1] == "error: the process of device 1 has died; the same command goes on"
            wait_for(lambda pids=followers: all(gone(pid) for pid in pids))
        succeed(*overrides)
        rows.append(figures(run_folder(tiny(*overrides))))
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_ctrl_c_ends_both_and_the_status_tells() -> None:
    process = start_and_wait(1, ("data.limit=640", "batch_size=16", "epochs=3", "trainer.devices=2"))
    followers = list(children_of(process.pid))
    os.kill(process.pid, signal.SIGINT)  # the others are in sessions of their own, which a terminal does not reach
    assert process.wait(60) == 130
    log = Path("log").read_text()
    assert "the same command goes on from there" in log
    assert "Traceback" not in log
    assert not any(Path(f"/proc/{pid}").exists() for pid in followers)


@pytest.mark.slow
def test_a_process_that_dies_before_it_has_joined_is_noticed() -> None:
    """The first one then waits for it in torch, where nothing can be raised: it ends with a line of its own."""
    Path("sitecustomize.py").write_text("import os\nif 'RESNETLAB_FOLLOWER' in os.environ: os._exit(3)\n")
    done = train(*UNEVEN, "trainer.devices=2", PYTHONPATH=str(Path.cwd()))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: the process of device 1 has died; the same command goes on"


@pytest.mark.slow
def test_runs_one_after_the_other_from_python() -> None:
    """What Lightning's own way of starting processes, which runs the script again, makes hang."""
    rows = [run(tiny(*UNEVEN, f"seed={seed}", "trainer.devices=2"))["final_train_ce"] for seed in (0, 1)]
    assert rows[0] != rows[1]
    assert "LOCAL_RANK" not in os.environ


def test_more_devices_than_validation_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices \(=3\) must be at most the 2 validation images"):
        tiny("data.limit=10", "batch_size=10", "trainer.devices=3")


def test_a_sweep_of_runs_on_several_devices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices \(=2\) cannot go with -m"):
        refuse_several_devices(configurations_of([*TINY, "trainer.devices=1,2"], multirun=True))


def test_a_last_batch_too_small_for_all_devices_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves a last batch of 1 of 61 images, 0 for one of the 2 devices"):
        tiny("data.limit=61", "batch_size=20", "trainer.devices=2")


def test_energy_of_several_cards_is_summed() -> None:
    cards = [{"power/joules": 3.0, "power/gpu_load": 50.0}, {"power/joules": 4.0, "power/gpu_load": 70.0}]
    assert over_cards(cards) == {"power/joules": 7.0, "power/gpu_load": 60.0}
    assert over_cards([cards[0], {"power/gpu_load": 70.0}]) == {"power/gpu_load": 60.0}
    assert over_cards([{}]) == {}


def test_ranks_draw_their_own_dropout() -> None:
    assert derive_seed(3, 5) == derive_seed(3, 5, 0)
    assert len({derive_seed(3, 5, rank) for rank in range(4)}) == 4
