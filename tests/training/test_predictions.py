"""predictions.npz: what it holds, that it costs a run nothing, and a kill before the summary."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import tiny
from resnetlab import Config, run
from resnetlab.cli import main
from resnetlab.data import ImageData
from resnetlab.report.groups import collect
from resnetlab.training import conclude
from resnetlab.training.callbacks.checkpoints import network_state, read_checkpoint
from resnetlab.training.evaluate import evaluate_checkpoint, open_checkpoint, write_predictions

KEPT = ("predictions=true", "data.flip=true")


def arrays(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def logits_by_hand(config: Config, mirrored: bool) -> torch.Tensor:
    """By a forward pass of the bare network with the weights of last.ckpt."""
    network, data = config.model.build(10, torch.Generator()).eval(), ImageData(config.data, 32, config.shift, 0)
    network.load_state_dict(network_state(read_checkpoint(config.folder.last), "raw"))
    pixels = data.val.pixels.flip(3) if mirrored else data.val.pixels
    with torch.no_grad():
        found: torch.Tensor = network(data.normalizer(pixels))
    return found


def test_a_run_keeps_the_logits_of_its_last_weights_and_their_labels() -> None:
    config = tiny(*KEPT)
    assert config.identity == tiny("data.flip=true").identity
    summary, found = run(config), arrays(config.folder.path)
    assert {name: str(array.dtype) for name, array in found.items() if name not in ("images", "ece")} == {
        **{"logits": "float16", "mirrored": "float16", "labels": "int64"}
    }
    labels = ImageData(config.data, 32, config.shift, 0).val.labels
    assert found["labels"].tolist() == labels.tolist()
    for name in ("logits", "mirrored"):
        wanted = logits_by_hand(config, name == "mirrored")
        wanted = wanted - wanted.max(1, keepdim=True).values
        np.testing.assert_allclose(found[name], wanted.numpy(), rtol=1e-3, atol=1e-5)
        assert found[name].max(1).tolist() == [0.0] * len(labels)
    assert (found["logits"].argmax(1) == found["labels"]).mean() == summary["final_val_acc"]
    views = sum(logits_by_hand(config, mirrored).softmax(1) for mirrored in (False, True))
    assert found["ece"] == evaluate_checkpoint(config.folder.last)["ece"]
    (c,) = collect([Path("outputs")]).configurations
    assert c.values("final_val_ece") == [found["ece"]]
    assert c.values("final_val_acc_flip") == [(views.argmax(1) == labels).float().mean()]  # type: ignore[union-attr]
    assert c.runs[0].remarks == []


def test_a_finished_run_says_how_to_make_them(capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny())
    config = tiny("predictions=true", "trainer.progress=lines")
    for missing in (True, False):
        capsys.readouterr()
        run(config)
        found = re.findall(r"resnetlab (evaluate \S+ --out \S+)", capsys.readouterr().out)
        assert len(found) == missing
        if missing:
            assert main(found[0].split()) == 0
    assert (arrays(config.folder.path)["logits"].argmax(1) == arrays(config.folder.path)["labels"]).any()


def test_a_kill_between_predictions_and_summary_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config, write = tiny(*KEPT), conclude.write_json

    def stopped(path: Path, content: Any) -> None:
        raise KeyboardInterrupt if path == config.folder.summary else AssertionError(path)

    monkeypatch.setattr(conclude, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert not config.folder.summary.exists()
    path, rows = config.folder.path / "predictions.npz", config.folder.metrics.read_text()
    before, _ = path.read_bytes(), path.unlink()  # as if it had not been written either
    monkeypatch.setattr(conclude, "write_json", write)
    run(config)
    assert (path.read_bytes(), config.folder.metrics.read_text()) == (before, rows)  # nothing was trained again


def test_evaluate_keeps_those_of_a_run_that_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(*KEPT, "epochs=1")
    run(config)
    path = config.folder.path / "predictions.npz"
    written, _ = path.read_bytes(), path.unlink()
    command = ["evaluate", str(config.folder.last), "--out", str(path.parent)]
    assert main(command) == 0
    assert path.read_bytes() == written
    assert main([*command, "--on", "train"]) == 0  # another file
    assert path.read_bytes() == written
    path.with_name("train_predictions.npz").rename(path)
    (remark,) = collect([Path("outputs")]).runs[0].remarks
    assert "it is of other weights or images" in remark
    capsys.readouterr()


def test_images_that_training_does_not_mirror_are_not_mirrored(finished: Config) -> None:
    module, data, _ = open_checkpoint(finished.folder.last)
    logits = torch.zeros(len(data.val), 10)
    logits[:, 3:5] = torch.tensor([10.001, 10.002])  # one number in float16
    write_predictions(Path("some.npz"), module, data, data.val, ({"ece": 0.0}, logits))
    with np.load("some.npz", allow_pickle=False) as file:
        assert {*file} == {"logits", "labels", "images", "ece"}
        assert file["logits"].argmax(1).tolist() == [4] * len(logits)
