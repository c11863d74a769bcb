"""Parts of the user's own, init and freeze, clipping, accumulation and mixing, against plain torch and torchvision."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import stop_after
from torch.nn.utils import clip_grad_norm_
from torchvision.transforms import v2

from conftest import tiny
from resnetlab import Config, ConfigError, DataError, LabError, compose, load_model, run
from resnetlab.cli import main
from resnetlab.config.compose import to_plain
from resnetlab.config.messages import error_message
from resnetlab.data import ImageData
from resnetlab.data.augment import mix
from resnetlab.data.epoch_plan import mixing
from resnetlab.dotted import code_digest
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.optimizers.base import set_lr_momentum
from resnetlab.optim.regularization import REGULARIZATIONS
from resnetlab.runs.files import read_rows
from resnetlab.training.build import build_module
from resnetlab.training.engine.step import clip_gradients
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.module import ImageClassifier
from rig import Rig

NET = """
import helper_of_mine, torch
class Net(torch.nn.Sequential):
    def __init__(self, classes, width=4):
        layers = torch.nn.Conv2d(3, width, 3), torch.nn.BatchNorm2d(width), torch.nn.AdaptiveAvgPool2d(1)
        super().__init__(*layers, torch.nn.Flatten(), torch.nn.Linear(width, classes))
class Buffered(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("table", torch.ones(3), persistent=False)
def wrong(num_classes): return torch.nn.Flatten()
def no_network(num_classes): return 3
def fails(num_classes): raise KeyError("gone\\nfor good")
"""


@pytest.fixture
def mine(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes net_of_mine.py and helper_of_mine.py, as edited between two commands."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(net: str = NET, helper: str = "WIDTH = 4\n") -> None:
        for name, text in (("net_of_mine", net), ("helper_of_mine", helper)):
            (empty_folder / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)

    write()
    yield write
    for name in ("net_of_mine", "helper_of_mine"):
        sys.modules.pop(name, None)


def custom(*overrides: str) -> Config:
    keys = "data=digits", "data.limit=60", "batch_size=32", "epochs=2", "trainer.progress=off", "logger=none"
    return compose("model=custom", "model.function=net_of_mine.Net", *keys, *overrides)


def test_a_network_of_ones_own_is_trained_resumed_and_evaluated_by_name_alone(mine: Callable[..., None]) -> None:
    config = custom("model.parameters={width: 6}")
    summary = run(config)
    assert summary["parameters"] == 6 * 27 + 6 + 12 + 60 + 10
    sys.modules.pop("net_of_mine")
    with pytest.raises(DataError, match=r"code is not in it; name it, if you trust it: --model net_of_mine.Net"):
        evaluate_checkpoint(config.folder.last)
    assert "net_of_mine" not in sys.modules
    found = evaluate_checkpoint(config.folder.last, model="net_of_mine.Net")
    assert found["acc"] == pytest.approx(summary["final_val_acc"])
    for name in ("net_of_mine.Other", "net_of_mine.wrong"):
        with pytest.raises(ConfigError, match="--model") as caught:
            evaluate_checkpoint(config.folder.last, model=name)
        assert "\n" not in str(caught.value)


def test_a_buffer_that_is_not_saved_leaves_every_checkpoint_readable(mine: Callable[..., None]) -> None:
    config = custom("model.function=net_of_mine.Buffered", "averaging=ema", "recalibrate_bn=true", "data.split=holdout")
    summary = run(config)
    assert summary["best_test_acc"] is not None
    for path in (config.folder.best, config.folder.last):
        evaluated = evaluate_checkpoint(path, weights="averaged", model="net_of_mine.Buffered")
        row = read_rows(config.folder.metrics)[evaluated["epoch"] - 1]
        assert evaluated["acc"] == pytest.approx(row["val/acc_avg"])


def test_every_command_takes_the_network_by_name(mine: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    config = custom("data.flip=false")
    run(config)
    named, last, best = ("--model", "net_of_mine.Net"), str(config.folder.last), str(config.folder.best)
    np.save("a.npy", np.zeros((2, 16, 16, 3), np.uint8) + 9 * np.arange(3, dtype=np.uint8) + 200)
    commands = ("predict", best, "a.npy"), ("export", best, "--to", "torch-export"), ("interpolate", best, last)
    for command in commands:
        sys.modules.pop("net_of_mine", None)
        assert main([*command]) == 1
        assert "name it, if you trust it: --model net_of_mine.Net" in capsys.readouterr().err
        assert "net_of_mine" not in sys.modules
        more = ("--alpha", "0,1", "--limit", "10") if command[0] == "interpolate" else ()
        assert main([*command, *named, *more]) == 0, capsys.readouterr().err
    with pytest.raises(DataError, match="network of the user's own"):
        ImageClassifier.load_from_checkpoint(last)
    loaded = ImageClassifier.load_from_checkpoint(last, config=config)
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    torch.testing.assert_close(load_model(last, model="net_of_mine.Net")(pixels), loaded.eval()(pixels))


def test_the_users_code_is_digested_once_in_a_run(mine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    config, paths = custom("optimizer=custom", "optimizer.function=torch.optim.RMSprop"), []
    monkeypatch.setattr("resnetlab.config.schema.code_digest", lambda path: (paths.append(path), code_digest(path))[1])
    run(config)
    assert paths == ["net_of_mine.Net", "torch.optim.RMSprop"]


def test_edited_source_is_refused_and_comments_are_not(mine: Callable[..., None]) -> None:
    config = custom()
    summary = run(config)
    mine(f"# a comment\n{NET}")
    assert run(custom()) == summary
    mine(NET.replace("AdaptiveAvgPool2d", "AdaptiveMaxPool2d"))
    with pytest.raises(LabError, match=r"other code than model.function \(=net_of_mine.Net\) has now"):
        run(custom())
    mine(NET, "WIDTH = 5\n")
    with pytest.raises(LabError, match="restore it, name another study, or start over"):
        run(custom())
    assert code_digest("torch.nn.Linear") == code_digest("math.cos")  # libraries are not the user's


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model.function=net_of_mine.Nett", "model.function (=net_of_mine.Nett) must be the dotted path of a class or"),
        ("model.function=net_of_mine.wrong", "model (=custom) must return (2, 10) for images of (2, 3, 16, 16), not"),
        ("model.function=net_of_mine.no_network", "must return a Module for (num_classes, **parameters), not int"),
        ("model.function=net_of_mine.fails", "KeyError: 'gone\\nfor good'"),
        ("model.parameters={depth: 3}", "unexpected keyword argument 'depth'"),
        ("model.bn_eps=0.1", "model.bn_eps (=0.1) must be left out with model=custom"),
        ("optimizer=custom", "optimizer.function must be given"),
        ("optimizer=custom optimizer.function=math.cos", "must return a Optimizer for"),
        ("optimizer=custom optimizer.function=torch.optim.SGD optimizer.parameters={momentum: 0.1}", "top-level keys"),
        ("init=nowhere.ckpt", "init (=nowhere.ckpt) must be a checkpoint that is there"),
        ("freeze=[stem]", "freeze (=stem) must be a part of the network, such as 0, 1, 4"),
        ("trainer.gradient_clip=0", "trainer.gradient_clip (=0.0) must be above 0"),
        ("trainer.accumulate=0", "trainer.accumulate (=0) must be in 1..1,000"),
        ("trainer.accumulate=32", "0 for one of the 32 parts of trainer.accumulate"),
        ("data.mixup=-1", "data.mixup (=-1.0) must be an alpha in 0..100"),
    ],
)
def test_one_line_before_anything_is_done(mine: Callable[..., None], overrides: str, said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        custom(*overrides.replace(": ", ":").split())
    line = error_message(caught.value)
    assert said in line
    assert "\n" not in line
    assert not Path("outputs").exists()


@pytest.mark.parametrize("regularization", ["none", "coupled", "weight_decay"])
@pytest.mark.parametrize(("name", "function"), [("sgd", "torch.optim.SGD"), ("adam", "torch.optim.Adam")])
def test_an_optimizer_of_ones_own_is_the_labs_with_the_same_class(
    name: str, function: str, regularization: str
) -> None:
    keys = {"lr": 0.1, "momentum": 0.8, "wd": None if regularization == "none" else 0.3}
    weights = []
    parameters = {"eps": 1e-7} if name == "adam" else None
    for part in (OPTIMIZERS[name](fused=False), OPTIMIZERS["custom"](function=function, parameters=parameters)):  # type: ignore[call-arg]
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = part.build(model, **keys, regularization=REGULARIZATIONS[regularization]())  # type: ignore[arg-type]
        for _ in range(4):
            set_lr_momentum(optimizer, 0.1, 0.8)
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        weights.append(model.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


def test_an_optimizer_without_momentum_is_given_none() -> None:
    made = OPTIMIZERS["custom"](function="torch.optim.Adagrad")  # type: ignore[call-arg]
    model = torch.nn.Linear(4, 3)
    optimizer = made.build(model, lr=0.1, momentum=0.8, wd=0.3, regularization=REGULARIZATIONS["weight_decay"]())
    set_lr_momentum(optimizer, 0.2, 0.7)
    assert all(group["lr"] == 0.2 and "momentum" not in group for group in optimizer.param_groups)
    assert run(tiny("epochs=1", "optimizer=custom", "optimizer.function=torch.optim.Adagrad"))["status"] == "finished"


def test_schedule_custom_is_schedule_lambda() -> None:
    keys = "schedule.function=math.exp", "lr=1e-4"
    assert tiny("schedule=custom", *keys).identity == tiny("schedule=lambda", *keys).identity


def test_clipping_is_torchs() -> None:
    rig, plain = (Rig(tiny(), "cpu", "eager") for _ in range(2))
    weights = list(rig.lab.model.parameters())
    rig.step.clip = partial(clip_gradients, weights, 0.5)
    plain.step.clip = lambda: clip_grad_norm_(plain.lab.model.parameters(), 0.5)  # type: ignore[assignment]
    assert rig.train(4) == plain.train(4)
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    assert float(norm) == pytest.approx(0.5, rel=1e-5)


def test_clipping_under_a_scaler_bounds_the_unscaled_gradient_and_skips_what_is_infinite() -> None:
    scaler, weight = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.nn.Parameter(torch.zeros(3))
    scaler.scale(torch.zeros(()))
    weight.grad = 1024.0 * torch.tensor([3.0, 4.0, 0.0])
    clip_gradients([weight], 1.0, scaler)
    torch.testing.assert_close(weight.grad / 1024, torch.tensor([0.6, 0.8, 0.0]))
    weight.grad = torch.tensor([torch.inf, 1.0, 1.0])
    clip_gradients([weight], 1.0, scaler)
    assert not torch.isfinite(weight.grad).all()


def test_clipping_and_accumulation_in_a_whole_run() -> None:
    """With group norm a batch in parts is the batch, but for rounding; a clip that binds changes the run."""
    found = {}
    for key in (
        "trainer.accumulate=1",
        "trainer.accumulate=4",
        "trainer.gradient_clip=1e-3",
        "trainer.gradient_clip=1e6",
    ):
        config = tiny("model.norm=group", key, "epochs=2", "optimizer=sgd", "lr=0.05")
        run(config)
        found[key] = [float(row["train/loss"]) for row in read_rows(config.folder.metrics)]
    assert found["trainer.accumulate=4"] == pytest.approx(found["trainer.accumulate=1"], rel=1e-4)
    assert found["trainer.gradient_clip=1e6"] == pytest.approx(found["trainer.accumulate=1"], rel=1e-6)
    assert abs(found["trainer.gradient_clip=1e-3"][1] - found["trainer.accumulate=1"][1]) > 0.01


def images(n: int = 6, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, side, side, generator=generator), torch.randint(10, (n,), generator=generator)


@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_mixing_is_torchvisions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lambda and the box that torchvision drew, and its partners: the image before."""
    x, y = images()
    transform = getattr(v2, kind)(num_classes=10, alpha=1.0)
    torch.manual_seed(3)
    params = transform.make_params([x])
    monkeypatch.setattr(transform, "make_params", lambda _: params)
    wanted_x, wanted_y = transform(x.clone(), y)
    left, top, right, bottom = params.get("box", (0, 0, 0, 0))
    weight = torch.full((6,), float(params.get("lam_adjusted", params.get("lam"))))
    found = mix(x, x.roll(1, 0), weight, torch.tensor([[top, left, bottom, right]] * 6).float())
    torch.testing.assert_close(found, wanted_x)
    one_hot = torch.nn.functional.one_hot(y, 10).float()
    torch.testing.assert_close(torch.lerp(one_hot.roll(1, 0), one_hot, weight[:, None]), wanted_y)


def test_the_table_of_mixing_has_the_distributions_of_the_papers() -> None:
    n = 20_000
    table = mixing(0, 1, n, (8, 16), 0.4, 1.0).numpy()
    partner, weight, box = table[:, 0], table[:, 1], table[:, 2:]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    assert sorted(partner) == list(range(n))
    cut = area > 0
    np.testing.assert_allclose(weight[cut], 1 - area[cut] / 128, atol=1e-6)
    assert 0.35 < cut.mean() < 0.5  # some boxes are empty
    mixed = mixing(0, 1, n, (8, 16), 0.4, 0.0).numpy()[:, 1]
    assert np.var(mixed) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.03)  # of Beta(a, a)
    assert (mixing(0, 1, n, (8, 16), 0.4, 1.0).numpy() == table).all()
    assert (mixing(0, 2, n, (8, 16), 0.4, 1.0).numpy() != table).any()


def test_a_mixed_batch_has_the_labels_of_its_two_images_and_off_is_as_ever() -> None:
    config = tiny("data.mixup=1", "data.augment=false", "data.normalize=none")
    data = ImageData(config.data, 32, 0.0, 0)
    plan = data.plan(1)
    assert plan.mix is not None
    x, y = next(data.batches(1, torch.device("cpu")))
    for row in range(5):
        first, second = int(plan.order[row]), int(plan.order[int(plan.mix[row, 0])])
        lam = plan.mix[row, 1]
        wanted = (lam * data.train.pixels[first] + (1 - lam) * data.train.pixels[second]) / 255
        torch.testing.assert_close(x[row], wanted)
        label = torch.zeros(10)
        label[data.train.labels[first]] += lam
        label[data.train.labels[second]] += 1 - lam
        torch.testing.assert_close(y[row], label)
    assert tiny().identity == tiny("data.mixup=0", "freeze=[]").identity
    summary = run(tiny("data.mixup=0.5", "data.cutmix=1", "trainer.accumulate=2", "regularization.label_smoothing=0.1"))
    assert summary["status"] == "finished"


def plain_state(module: ImageClassifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.model.state_dict().items()}


def test_init_and_freeze(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    last = finished.folder.last
    saved = torch.load(last, weights_only=True)["state_dict"]
    config = tiny("epochs=1", f"init='{last}'", "freeze=[stem,units]", "seed=5")
    assert config.identity["init"] == sha256(last.read_bytes()).hexdigest()[:16]
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    for name, value in plain_state(module).items():
        assert torch.equal(value, saved[f"model.{name}"]), name
    run(config)
    trained = torch.load(config.folder.last, weights_only=True)["state_dict"]
    moved = {
        name
        for name, _ in module.model.named_parameters()
        if not torch.equal(trained[f"model.{name}"], saved[f"model.{name}"])
    }
    assert moved == {"stem_norm.weight", "stem_norm.bias", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    data.class_names = ("a", "b", "c", *"0123456789")
    head = build_module(config, data)
    assert head.drawn == ["head.bias", "head.weight"]
    assert torch.equal(head.model.state_dict()["stem.weight"], saved["model.stem.weight"])
    with pytest.raises(ConfigError, match=r"has model.activation=relu, here it is gelu; set it so"):
        build_module(tiny("model.activation=gelu", f"init='{last}'"), data)
    for content, said in ((b"no zip", "is no checkpoint of the lab"), (last.read_bytes()[:5000], "cut off")):
        Path("bad.ckpt").write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            build_module(tiny("init=bad.ckpt"), data)


def test_init_is_the_content_of_its_file_and_no_checkpoint_names_the_path(
    finished: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    private = Path("private").absolute()
    private.mkdir()
    first, second = private / "a.ckpt", private / "b.ckpt"
    for path in (first, second):
        path.write_bytes(finished.folder.last.read_bytes())
    config = tiny("epochs=2", f"init={first}", "trainer.progress=lines")
    stop_after(config, epochs=1)
    summary = run(config)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert run(tiny("epochs=2", f"init={second}", "trainer.progress=lines")) == summary
    assert "already finished" in capsys.readouterr().out
    for path in config.folder.checkpoints.iterdir():
        assert str(private).encode() not in path.read_bytes()
    first.write_bytes(config.folder.last.read_bytes())
    assert tiny("epochs=2", f"init={first}").folder.path != config.folder.path
    for path in (first, second):
        path.unlink()
    acc = evaluate_checkpoint(config.folder.last)["acc"]
    assert acc == pytest.approx(summary["final_val_acc"])
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    module = ImageClassifier.load_from_checkpoint(config.folder.last).eval()
    torch.testing.assert_close(load_model(config.folder.last)(pixels), module(pixels))


def test_a_shorter_run_is_named(finished: Config, capsys: pytest.CaptureFixture[str]) -> None:
    longer = tiny("epochs=4", "trainer.progress=lines")
    run(longer)
    said = capsys.readouterr().out
    assert f"{finished.folder.path} is this run for 3 epochs" in said
    assert f"init='{finished.folder.last}'" in said
    run(tiny("epochs=4", "lr=0.5", "trainer.progress=lines"))
    assert "is this run for" not in capsys.readouterr().out
    content = json.loads(finished.folder.summary.read_text())
    finished.folder.summary.write_text(json.dumps(content | {"status": "diverged"}))
    run(tiny("epochs=4", "trainer.progress=lines", "force=true"))
    assert "is this run for" not in capsys.readouterr().out


def test_a_checkpoint_names_nothing_that_is_imported(mine: Callable[..., None], finished: Config) -> None:
    content: dict[str, Any] = torch.load(finished.folder.last, weights_only=True)
    acc = evaluate_checkpoint(finished.folder.last)["acc"]
    Path("theirs.py").write_text("open('called', 'w')\n")
    rmsprop = to_plain(tiny("optimizer=custom", "optimizer.function=torch.optim.RMSprop"))["optimizer"]
    schedule = to_plain(tiny("schedule=lambda", "schedule.function=math.exp"))["schedule"]
    content["config"] |= {
        "optimizer": rmsprop | {"function": "theirs.f"},
        "schedule": schedule | {"function": "theirs.f"},
        "init": "theirs.py",
    }
    content["hyper_parameters"]["config"] = content["config"]
    torch.save(content, finished.folder.last)
    assert evaluate_checkpoint(finished.folder.last)["acc"] == acc
    assert not ImageClassifier.load_from_checkpoint(finished.folder.last).drawn
    assert not Path("called").exists()
