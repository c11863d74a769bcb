"""The installed program: its entry points, a folder of one's own presets, another place for runs, shell completion."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest

from conftest import TINY
from processes import environment
from resnetlab import compose
from resnetlab.cli import main
from resnetlab.config import help_and_completion
from resnetlab.config.option_files import conf_dir, options
from resnetlab.sweeps.launchers import LAUNCHERS

ROOT = Path(__file__).parents[1]
PRESET = "# @package _global_\n# A preset of mine.\ndefaults:\n  - override /schedule: mine\nepochs: 1\nwd: 0.125\n"
SCHEDULE = "# A cosine that ends at a tenth.\ndefaults: [/schema/schedule/cosine@_here_]\nfinal: 0.1\n"


def lab(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnetlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**extra), timeout=300)


def own_files(folder: Path) -> Path:
    for name, text in (("experiment", PRESET), ("schedule", SCHEDULE)):
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.yaml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def no_folders_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESNETLAB_CONFIG_DIR", "RESNETLAB_OUTPUTS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_version_and_the_help_of_the_module() -> None:
    assert lab("--version").stdout == "resnetlab 0.1.0\n"
    assert "resnetlab train" in lab("train", "--help").stdout


def test_a_folder_of_ones_own_is_found_in_conf_and_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_files(tmp_path / "conf")
    config = compose("experiment=mine")
    assert (config.wd, config.schedule.name, config.schedule.final) == (0.125, "cosine", 0.1)  # type: ignore[attr-defined]
    assert "mine" in [option.name for option in options("schedule")]
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["train", "experiment=mine", "--cfg", "job"]) == 2
    assert "experiment (=mine) is not there" in capsys.readouterr().err
    assert main(["--config-dir", "../conf", "options", "schedule=mine"]) == 0
    assert "A cosine that ends at a tenth." in capsys.readouterr().out
    assert compose("experiment=mine") == config


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train", "--config-dir=nowhere"], "nowhere) is not a folder; name one with files such as"),
        (["options", "--config-dir"], "is not a folder"),
        (["train", "--config-dir", "clash"], "clash/schedule/cosine.yaml has the name of an option of the lab's"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_error(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own_files(Path("clash"))
    Path("clash/schedule/cosine.yaml").write_text("final: 0.5\n")
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert wanted in printed
    assert printed.count("\n") == 1


@pytest.mark.slow
def test_the_workers_of_a_sweep_have_both_folders(tmp_path: Path) -> None:
    own_files(tmp_path / "mine")
    words = [*TINY, "experiment=mine", "seeds=2", "hydra/launcher=processes", f"outputs={tmp_path}/my runs"]
    done = lab("train", "--config-dir", "mine", *words)
    assert done.returncode == 0, done.stderr
    assert len(list(Path("my runs").rglob("summary.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "my runs"}
    assert "over seeds" in done.stdout
    assert "0.125" in lab("report", RESNETLAB_OUTPUTS="my runs").stdout


def test_the_environment_names_the_folder_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETLAB_OUTPUTS", "/runs")
    assert compose().folder.path.parts[:3] == ("/", "runs", "default")
    assert compose("outputs=here").folder.path.parts[:2] == ("here", "default")


def test_compose_works_inside_another_application_of_hydra_and_leaves_it_as_it_was() -> None:
    Path("theirs").mkdir()
    Path("theirs/config.yaml").write_text("model: theirs\nhydra: {run: {dir: .}, output_subdir: null}\n")
    Path("app.py").write_text(
        textwrap.dedent("""
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.global_hydra import GlobalHydra
        from hydra import version
        from resnetlab import compose

        @hydra.main(version_base="1.1", config_path="theirs", config_name="config")
        def app(cfg):
            before = GlobalHydra.instance(), version.getbase(), HydraConfig.get().job.name
            config = compose("data=digits", "wd=0.125")
            print(cfg.model, config.data.name, config.wd)
            assert before == (GlobalHydra.instance(), version.getbase(), HydraConfig.get().job.name)
            print(hydra.compose("config").model)

        app()
        """)
    )
    command = [sys.executable, "app.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.stdout == "theirs digits 0.125\ntheirs\n", done.stderr


COMPLETE = """
source <({python} -m resnetlab completion bash)
COMP_LINE={line!r} COMP_POINT={point}
_resnetlab 2> /dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("resnetlab tr", ["train"]),
        ("resnetlab train exper", ["experiment="]),
        ("resnetlab train schedule=cos", ["cosine", "cosine_restarts"]),
        ("resnetlab train schedule=cosine,one", ["cosine,one_cycle"]),
        ("resnetlab train wd=1 trainer.acce", ["trainer.accelerator="]),
        ("resnetlab train data.augment=f", ["false"]),
        ("resnetlab options logger=ml", ["mlflow"]),
        ("python train.py experiment=dem", ["demo"]),
        ("python other.py experiment=dem", [""]),
        ("resnetlab evaluate ", [""]),
    ],
)
def test_bash_completes(line: str, wanted: list[str], tmp_path: Path) -> None:
    program = tmp_path / "bin" / "resnetlab"
    program.parent.mkdir()
    for name, words in (("resnetlab", "-m resnetlab "), ("python", "")):
        (program.parent / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (program.parent / name).chmod(0o755)
    script = COMPLETE.format(python=sys.executable, line=line, point=len(line))
    paths = environment(PATH=f"{program.parent}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=paths, timeout=60)
    assert done.stdout.splitlines() == wanted, done.stderr


def test_completion_offers_every_launcher() -> None:
    assert {*help_and_completion.OTHERS["hydra/launcher"]} == {*LAUNCHERS} - {"basic"}


def test_completion_needs_no_torch_and_each_shell_has_a_script() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "resnetlab" in (conf_dir() / "completion" / shell).read_text()
    code = (
        "import sys; from resnetlab.cli import main; main(['completion', 'words', '--', 'train', 'lr=']);"
        "print({'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["lr=0.0008", "set()"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_is_a_whole_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into a folder of its own, beside the packages that it needs, and used in an empty one."""
    target, place = tmp_path / "site", tmp_path / "empty"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(ROOT)]
    subprocess.run(pip, check=True, timeout=300)
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(target))
    own_files(Path("conf"))
    done = lab("train", *TINY, "experiment=mine", "outputs=runs", "logger=[tensorboard,csv]")
    assert done.returncode == 0, done.stderr
    (summary,) = Path("runs").rglob("summary.json")
    assert lab("report", "runs", "--out", "report").returncode == 0
    assert "resnetlab train " in Path("report/report.html").read_text()  # train.py is not there
    assert lab("completion", "zsh").stdout.startswith("_resnetlab()")
    assert "mine" in lab("options", "experiment").stdout
    assert lab("evaluate", str(summary.parent / "checkpoints" / "best.ckpt")).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path: Path) -> None:
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "docs" / "example.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "".join(texts).count("over 3 seeds") == 2
    assert "torch.Size([2, 10])" in "".join(texts)
    assert "digit-2.png" in "".join(texts)
    assert "confidence interval" in (tmp_path / "report" / "report.html").read_text()
