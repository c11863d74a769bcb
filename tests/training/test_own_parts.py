"""Parts of the user's own, init and freeze, clipping, accumulation and mixing, against plain torch and torchvision."""

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import stop_after
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import clip_grad_norm_
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from conftest import rows_of, tiny
from resnetlab import Config, ConfigError, DataError, LabError, compose, load_model, run
from resnetlab.cli import main
from resnetlab.config.compose import to_plain
from resnetlab.config.messages import error_message
from resnetlab.data import ImageData
from resnetlab.data.augment import mix, randaugment
from resnetlab.data.epoch_plan import mixing, operations
from resnetlab.data.own_images import CALLED
from resnetlab.dotted import LIBRARIES, code_digest
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.optimizers.base import set_lr_momentum
from resnetlab.optim.regularization import REGULARIZATIONS
from resnetlab.optim.schedules.base import SchedulePoint
from resnetlab.runs.files import read_rows
from resnetlab.training.build import build_module
from resnetlab.training.engine.select import select_engine
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
class Closed(torch.optim.SGD):
    def step(self): super().step()
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
        ("optimizer=custom optimizer.function=torch.optim.LBFGS", "must have a step(closure=None)"),
        ("optimizer=custom optimizer.function=net_of_mine.Closed", "must have a step(closure=None)"),
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


def test_a_schedules_function_is_read_again_where_a_notebook_has_changed_it(empty_folder: Path) -> None:
    found = []
    sys.path.insert(0, str(empty_folder))
    try:
        for text in ("def f(t): return 1.0", "def f(t): return 0.5  # changed"):
            Path("changing.py").write_text(text)
            importlib.invalidate_caches()
            sys.modules.pop("changing", None)
            config = tiny("schedule=custom", "schedule.function=changing.f")
            found.append(config.schedule.lr_factor(SchedulePoint(0.0, 2.0, 0, 4)))
    finally:
        sys.path.remove(str(empty_folder))
        sys.modules.pop("changing", None)
    assert found == [1.0, 0.5]


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
    wanted_x, _ = transform(x.clone(), y)
    left, top, right, bottom = params.get("box", (0, 0, 0, 0))
    weight = torch.full((6,), float(params.get("lam_adjusted", params.get("lam"))))
    found = mix(x, x.roll(1, 0), weight, torch.tensor([[top, left, bottom, right]] * 6).float())
    torch.testing.assert_close(found, wanted_x)


def test_the_table_of_mixing_has_the_distributions_of_the_papers() -> None:
    n = 20_000
    table = mixing(0, 1, n, (8, 16), 0.4, 1.0).numpy()
    partner, weight, box = table[:, 0], table[:, 1], table[:, 2:]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    assert sorted(partner) == list(range(n))
    cut = area > 0
    np.testing.assert_allclose(weight[cut], 1 - area[cut] / 128, atol=1e-6)
    assert 0.35 < cut.mean() < 0.5  # some boxes are empty
    stream = np.random.default_rng([0, 1, 4])  # without mixup every image is cut, as torchvision's v2.CutMix does it
    _, _, lam, _ = stream.permutation(500), stream.random(500), stream.beta(1, 1, 500), stream.beta(1, 1, 500)
    centres = stream.integers(0, (8, 16), (500, 2)).tolist()
    for row, share, (y, x) in zip(mixing(0, 1, 500, (8, 16), 0.0, 1.0).tolist(), lam.tolist(), centres, strict=True):
        r = 0.5 * math.sqrt(1 - share)
        wanted = [max(y - int(r * 8), 0), max(x - int(r * 16), 0), min(y + int(r * 8), 8), min(x + int(r * 16), 16)]
        assert row[2:] == wanted
        assert row[1] == pytest.approx(1 - (wanted[2] - wanted[0]) * (wanted[3] - wanted[1]) / 128)
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


OF_MINE = """
import lightning as L, numpy
class Lines(L.Callback):
    def __init__(self, path="lines"): self.path, self.epochs = path, 0
    def on_train_epoch_end(self, trainer, module):
        self.epochs += 1
        with open(self.path, "a") as file:
            print(self.epochs, float(trainer.callback_metrics["val/acc"]), file=file)
    def state_dict(self): return {"epochs": self.epochs}
    def load_state_dict(self, state): self.epochs = state["epochs"]
class Others(Lines):
    state_key = "others"
class Recorder(Lines): pass
class Odd(Lines):
    def state_dict(self): return {"epochs": numpy.random.default_rng(0)}
class Silent(L.Callback):
    def __init__(self, path): open(path, "x").close()
def pictures(n=40, side=8, seed=0):
    draw = numpy.random.default_rng(seed)
    x, y = draw.integers(0, 256, (n, side, side), dtype=numpy.uint8), numpy.arange(n) % 2
    with open("called", "a") as file: file.write("x")
    return {"x_train": x, "y_train": y, "x_test": x[:8], "y_test": y[:8], "class_names": ["cat", "dog"]}
def no_labels(): return {"x_train": numpy.zeros((4, 8, 8))}
def halves(): return pictures() | {"y_train": numpy.full(40, 0.5)}
"""


@pytest.fixture
def with_callbacks(mine: Callable[..., None]) -> Callable[..., None]:
    mine(NET + OF_MINE)
    return mine


def test_callbacks_see_every_epoch_and_go_on_where_a_killed_run_ended(with_callbacks: Callable[..., None]) -> None:
    second = {"function": "net_of_mine.Others", "parameters": {"path": "other"}}
    chosen = "callbacks=[net_of_mine.Lines,{function: net_of_mine.Others, parameters: {path: other}}]", "epochs=3"
    config = tiny(*chosen)
    assert config.identity["callbacks"] == ["net_of_mine.Lines", second]
    assert tiny("callbacks=[]").identity == tiny().identity
    stop_after(config, 2)
    sys.modules.pop("net_of_mine")
    summary = run(tiny(*chosen))
    accuracies = [float(row["val/acc"]) for row in read_rows(config.folder.metrics)]
    lines = [line.split() for line in Path("lines").read_text().splitlines()]
    assert [(int(n), pytest.approx(float(acc))) for n, acc in lines] == list(enumerate(accuracies, 1))
    assert Path("lines").read_text() == Path("other").read_text()
    assert evaluate_checkpoint(config.folder.last)["acc"] == pytest.approx(summary["final_val_acc"])
    with_callbacks(NET + OF_MINE.replace("self.epochs += 1", "self.epochs += 2"))
    with pytest.raises(LabError, match=r"other code than callbacks \(=\['net_of_mine.Lines', "):
        run(tiny(*chosen))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("callbacks=[net_of_mine.No]", "callbacks (=net_of_mine.No) must be the dotted path of a class or function"),
        ("callbacks=[math.cos]", "callbacks (=math.cos) must return a Callback for (**parameters): TypeError"),
        (
            "callbacks=[builtins.dict]",
            "callbacks (=builtins.dict) must return a Callback for (**parameters), not dict",
        ),
        ("callbacks=[{function:net_of_mine.Lines,parameters:{width:3}}]", "unexpected keyword argument 'width'"),
        ("callbacks=[{net_of_mine.Lines:{path:x}}]", "must be a list of my.Class or {function: my.Class, parameters:"),
        ("callbacks=[3]", "callbacks (=3) must be a list of my.Class or"),
        ("callbacks=net_of_mine.Lines", "callbacks (=net_of_mine.Lines) must be a list"),
        ("trainer.accelerator=mps", "trainer.accelerator (=mps) must be auto or cpu: torch sees no MPS device here"),
        ("data=custom", "data.function must be given"),
        ("data=custom data.function=net_of_mine.no", "data.function (=net_of_mine.no) must be the dotted path of a"),
        (
            "data=custom data.function=math.cos",
            "data.function (=math.cos) must return a Mapping for (**parameters): Type",
        ),
        ("data=custom data.function=net_of_mine.no_labels", "net_of_mine.no_labels must hold x_train, y_train, and"),
        ("data=custom data.function=net_of_mine.halves", "net_of_mine.halves: labels must be whole numbers"),
        ("data=custom data.function=net_of_mine.pictures data.parameters={m:3}", "unexpected keyword argument 'm'"),
        ("data.randaugment=-1", "data.randaugment (=-1) must be in 0..10 operations"),
        ("data.randaugment=2 data.magnitude=31", "data.magnitude (=31) must be in 0..30"),
        ("data.magnitude=3", "it is used with data.randaugment above 0 only"),
    ],
)
def test_one_line_for_callbacks_images_and_devices(with_callbacks: None, overrides: str, said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        compose("data=digits", *overrides.split())
    assert said in error_message(caught.value)
    assert "\n" not in error_message(caught.value)
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            "net_of_mine.Recorder",
            "go with each other and the lab's: RuntimeError: Found more than one stateful",
        ),
        ("net_of_mine.Lines,net_of_mine.Lines", "Found more than one stateful callback of type `Lines`"),
        ("net_of_mine.Odd", "callbacks (=Odd) must have a state_dict() of plain data and tensors"),
    ],
)
def test_callbacks_whose_states_cannot_be_kept_are_refused(with_callbacks: None, chosen: str, said: str) -> None:
    config = tiny(f"callbacks=[{chosen}]", "epochs=1")
    with pytest.raises(ConfigError) as caught:
        run(config)
    assert said in str(caught.value)
    assert not config.folder.last.exists()


def test_lightnings_early_stopping_ends_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """With a threshold that the first epoch reaches."""
    given = "parameters: {monitor: val/loss, stopping_threshold: 1e6}"
    config = tiny(f"callbacks=[{{function: lightning.pytorch.callbacks.EarlyStopping, {given}}}]", "epochs=3")
    summary = run(replace(config, trainer=replace(config.trainer, progress="lines")))
    assert (summary["status"], summary["epochs_trained"]) == ("finished", 1)
    assert "stopped early after epoch 1: a callback asked for it" in capsys.readouterr().out
    config = replace(config, seed=1, trainer=replace(config.trainer, progress="lines", patience=2))
    run(config)  # which the callback ends before its patience does
    assert "stopped early after epoch 1: a callback asked for it" in capsys.readouterr().out


def test_apples_device_runs_eagerly_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    config = tiny("trainer.accelerator=mps")
    assert (config.trainer.device.type, config.trainer.resolved_precision) == ("mps", "32-true")
    assert select_engine(config)[0] == "eager"
    assert config.identity == tiny().identity
    for wrong in ("trainer.devices=2", "trainer.precision=16-mixed"):
        with pytest.raises(ConfigError, match=wrong.split("=")[0]):
            tiny("trainer.accelerator=mps", wrong)


# --- images from a function


def own_images(*overrides: str) -> Config:
    keys = "data.flip=false", "batch_size=16", "epochs=2", "trainer.progress=off"
    return compose("model=custom", "model.function=net_of_mine.Net", *keys, *overrides)


def test_images_of_a_function_train_as_the_same_arrays_in_a_file(with_callbacks: Callable[..., None]) -> None:
    chosen = "data=custom", "data.function=net_of_mine.pictures", "data.parameters={seed: 3}", "data.resize=12"
    config = own_images(*chosen)
    np.savez("same.npz", **sys.modules["net_of_mine"].pictures(seed=3))
    file = own_images("data=arrays", "data.root=same.npz", "data.resize=12")
    assert config.data.digest == file.data.digest != own_images(*chosen[:2]).data.digest
    assert f"images_{config.data.digest}" in config.name
    stop_after(config, 1)
    sys.modules.pop("net_of_mine")
    CALLED.clear()
    Path("called").unlink()
    summary = run(own_images(*chosen))  # in another process, as it were
    run(file)
    assert rows_of(config) == rows_of(file)
    assert Path("called").read_text() == "x"  # once
    with_callbacks(NET + OF_MINE.replace("(0, 256", "(0, 250"))
    assert own_images(*chosen).folder.path != config.folder.path
    with pytest.raises(DataError, match=r"data.digest .* is not that of net_of_mine.pictures, which is"):
        evaluate_checkpoint(config.folder.last, root="net_of_mine.pictures", model="net_of_mine.Net")
    with_callbacks(NET + OF_MINE)
    with pytest.raises(DataError, match=r"has images of the user's own.*--root net_of_mine.pictures$"):
        evaluate_checkpoint(config.folder.last, model="net_of_mine.Net")
    assert "net_of_mine" not in sys.modules
    CALLED.clear()
    Path("called").unlink()
    model = load_model(config.folder.last, model="net_of_mine.Net")
    assert (model.class_names, model.size) == (("cat", "dog"), (12, 12))
    assert not Path("called").exists()
    both = {"root": "net_of_mine.pictures", "model": "net_of_mine.Net"}
    found = evaluate_checkpoint(config.folder.last, **both)  # the parameters are in the manifest
    assert found["acc"] == pytest.approx(summary["final_val_acc"])
    content = torch.load(config.folder.last, weights_only=True)
    assert content["config"]["data"].get("parameters") is None  # which may name the user's folders


def test_a_checkpoint_of_own_images_or_an_own_network_predicts_without_them(mine: Callable[..., None]) -> None:
    labels = np.arange(40) % 2
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez("own.npz", x_train=pixels, y_train=labels, x_test=pixels[:8], y_test=labels[:8])
    config = own_images("data=arrays", "data.root=own.npz")
    summary = run(config)
    Path("own.npz").rename("moved.npz")
    with pytest.raises(DataError, match=r"--model net_of_mine.Net"):
        load_model(config.folder.path, "last")
    model = load_model(config.folder.path, "last", model="net_of_mine.Net")
    answers = model(torch.from_numpy(pixels[:8]).permute(0, 3, 1, 2)).argmax(1).numpy()
    assert (answers == labels[:8]).mean() == pytest.approx(summary["final_val_acc"])
    by_lightning = ImageClassifier.load_from_checkpoint(
        config.folder.last, map_location="cpu", weights_only=True, config=config
    ).eval()
    assert torch.equal(by_lightning(torch.zeros(1, 3, 8, 8)), model(torch.zeros(1, 3, 8, 8)))


# --- RandAugment


NAMES = list(v2.RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
def test_every_operation_of_randaugment_is_torchvisions(magnitude: int) -> None:
    """But for rounding: one image in a batch by its own operation, against torchvision's of that image alone."""
    height, width = 20, 28
    generator = torch.Generator().manual_seed(0)
    rough = torch.randint(0, 256, (24, 3, 6, 6), dtype=torch.uint8, generator=generator)
    pixels = functional.resize(rough, [height, width])
    pixels[0] = 7  # of one colour
    pixels[1] = torch.randint(60, 180, pixels[1].shape, generator=generator)
    rows = torch.unique(operations(0, 1, 4000, (height, width), 1, magnitude)[:, 0], dim=0)
    assert len(rows) == (14 if magnitude == 0 else 14 + 9)  # nine have a sign
    for shift in range(3):
        x = pixels.roll(shift, 0)[: len(rows)]
        for image, row, found in zip(x, rows, randaugment(x, rows), strict=True):
            name = NAMES[int(row[6])]
            levels, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
            values = levels(31, height, width)
            value = 0.0 if values is None else float(values[magnitude])
            drawn = {1: row[1], 2: row[3], 3: -row[2], 4: -row[5], 5: -row[1]}.get(int(row[6]), row[7] - 1)
            wanted = transformed(image, name, float(drawn.sign()) * value if signed else value)
            different = (wanted.int() - found.int()).abs()
            assert different.max() <= 1, name
            assert (different > 0).float().mean() < 0.03, name


def transformed(image: torch.Tensor, name: str, value: float) -> torch.Tensor:
    nearest: dict[str, Any] = {"interpolation": v2.InterpolationMode.NEAREST, "fill": {torch.Tensor: None}}
    changed: torch.Tensor = v2.RandAugment()._apply_image_or_video_transform(image, name, value, **nearest)
    return changed


def test_randaugment_reads_no_value_on_the_host() -> None:
    """Nor on a device: torch's fake tensors have none."""
    with FakeTensorMode():
        found = randaugment(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 8))
        assert (found.shape, found.dtype) == ((4, 3, 16, 16), torch.uint8)
        with pytest.raises(RuntimeError):
            float(found[0, 0, 0, 0])


def test_the_table_of_randaugment_is_drawn_evenly_and_signed() -> None:
    table = operations(0, 1, 20_000, (32, 32), 2, 9)
    counts = table[..., 6].long().flatten().bincount(minlength=14)
    assert all(abs(count - 40_000 / 14) < 5 * (40_000 / 14) ** 0.5 for count in counts)
    turned = table[table[..., 6] == 5][:, 3]
    assert 0.45 < (turned > 0).float().mean() < 0.55
    assert torch.equal(table, operations(0, 1, 20_000, (32, 32), 2, 9))
    assert not torch.equal(table, operations(0, 2, 20_000, (32, 32), 2, 9))
    pair = table[:, 0, 6] * 14 + table[:, 1, 6]  # the second does not follow from the first
    assert len(pair.unique()) == 196


def test_a_run_with_randaugment_goes_on_as_if_it_had_not_been_killed() -> None:
    keys = "data.randaugment=2", "data.mixup=0.2", "data.translate=pad_crop", "epochs=2"
    whole, broken = tiny("study=whole", *keys), tiny("study=broken", *keys)
    run(whole)
    stop_after(broken, 1)
    run(broken)
    assert rows_of(whole) == rows_of(broken)
    assert (whole.identity["data.randaugment"], tiny("data.randaugment=0").identity) == (2, tiny().identity)
    run(plain := tiny("study=plain", *keys[1:]))
    assert rows_of(plain) != rows_of(whole)
    host = tiny("study=host", "data.device=cpu", *keys[0::2], "epochs=1")
    device = tiny("study=device", *keys[0::2], "epochs=1")
    for config in (host, device):
        run(config)
    assert rows_of(host) == rows_of(device)


def test_the_network_is_named_rightly_before_images_are_decoded() -> None:
    with pytest.raises(ConfigError, match=r"model.function \(=nowhere.Net\)"):
        compose("model=custom", "model.function=nowhere.Net", "data=folder", "data.root=not there")


def test_code_in_a_folder_that_is_called_like_a_librarys_is_digested(empty_folder: Path) -> None:
    (place := empty_folder / "my-packages").mkdir()
    sys.path.insert(0, str(place))
    assert all(part.endswith("/") for part in LIBRARIES)  # src/resnetlab_extra is none either
    digests = []
    try:
        for text in ("def f(t): return 1.0", "def f(t): return 0.5"):
            (place / "somewhere.py").write_text(text)
            importlib.invalidate_caches()
            sys.modules.pop("somewhere", None)
            importlib.import_module("somewhere")
            digests.append(code_digest("somewhere.f"))
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("somewhere", None)
    assert digests[0] != digests[1]
