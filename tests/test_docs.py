"""README.md and docs/: every command is checked, what is not marked is run, and links, options and names exist."""

import argparse
import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

import resnetlab
import resnetlab.data
import resnetlab.models
from resnetlab.cli import main
from resnetlab.config.option_files import CONFIG_DIR_VARIABLE, conf_dir, take_config_dir
from resnetlab.config.overrides import SEARCH, compose_jobs, normalize_arguments
from resnetlab.config.schema import GROUPS
from resnetlab.sweeps.search.plan import make_plan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MARK = re.compile(r"# (needs a GPU|needs a cluster|hours|downloads CIFAR-10)\b")  # the reasons not to run a command
TARGETS = {"help", "demo", "test", "test-slow", "check", "train", "report", "tensorboard", "bench", "docs", "clean"}
FOR_CONFIG_DIR = ("mkdir", "printf")  # make the folder of the page's --config-dir
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One line of a bash block: its words without assignments and comments; line: as it stands; marked: not run."""

    page: str
    words: list[str]
    line: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def commands(*program: str) -> list[Command]:
    """The commands of all pages that begin with these words; with none, all of them."""
    found = [command for page in PAGES for block in blocks(page, "bash") for command in parse(page, block)]
    return [command for command in found if tuple(command.words[: len(program)]) == program]


def parse(page: Path, block: str) -> Iterator[Command]:
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words:
            yield Command(str(page.relative_to(ROOT)), words, line, bool(MARK.search(line)))


def check_training(arguments: list[str]) -> None:
    """Composes every run that the arguments of train.py ask for; images of one's own are made before."""
    if {"data=folder", "data=arrays", "data=custom"} & {*arguments}:
        (make,) = [command for command in commands("python", "-c") if "savez('pictures.npz'" in command.line]
        exec(make.words[2], {})
    expanded = [a for a in normalize_arguments(arguments) if a not in ("--cfg", "job")]
    if SEARCH in expanded:
        assert make_plan([a for a in expanded if a != "-m"]).space.distributions
        return
    assert compose_jobs([a for a in expanded if a != "-m"], multirun="-m" in expanded)


def test_every_command_begins_with_a_program_that_is_checked() -> None:
    """Or is marked, and so not for a test to run."""
    checked = {"python", "resnetlab", "make", "torchrun", "bash", *FOR_CONFIG_DIR}
    assert {command.words[0] for command in commands()} == checked | {"mlflow"}
    assert all(command.marked for command in commands("mlflow"))
    assert {c.page for p in FOR_CONFIG_DIR for c in commands(p)} == {
        c.page for c in commands() if "--config-dir" in c.words
    }
    assert {command.words[1] for command in commands("python")} == {"train.py", "-c"}
    assert len(commands("python", "train.py")) >= 15


@pytest.mark.parametrize("command", [*commands("python", "train.py"), *commands("resnetlab", "train")], ids=str)
def test_a_training_command_composes(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --config-dir: in the folder that the page's commands before it make."""
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")
    if "--config-dir" in command.words:
        lines = [c.line for program in FOR_CONFIG_DIR for c in commands(program) if c.page == command.page]
        subprocess.run(["bash", "-ec", "\n".join(lines)], check=True)
    try:
        check_training(take_config_dir(command.words[2:]))
    except resnetlab.ConfigError as error:  # 16-mixed is refused where there is no GPU
        if torch.cuda.is_available() or "# needs a GPU" not in command.line or "needs a CUDA device" not in str(error):
            raise


@pytest.mark.parametrize("command", commands("torchrun"), ids=str)
def test_a_command_of_torchrun_composes_with_as_many_devices(command: Command) -> None:
    start = command.words.index("train.py")
    (count,) = re.findall(r"--nproc-per-node=(\d+)", " ".join(command.words[:start]))
    assert f"trainer.devices={count}" in command.words
    check_training(command.words[start + 1 :])


@pytest.mark.parametrize(
    "command", [c for c in commands("resnetlab") if c.words[1] not in ("train", "--version")], ids=str
)
def test_a_command_of_the_cli_parses(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    original, parsed = argparse.ArgumentParser.parse_known_args, []

    def parse_known_args(self: argparse.ArgumentParser, *arguments: object) -> object:
        options, rest = original(self, *arguments)  # type: ignore[call-overload]
        if self.prog == "resnetlab":  # not a subcommand's parser
            parsed.append(options)
        return options, rest

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    monkeypatch.setattr("resnetlab.cli.resolve_name", lambda _: lambda **_: None)  # what would run it
    assert main(command.words[1:]) == 0
    for options in parsed:
        if hasattr(options, "overrides"):
            check_training(["-m", *options.overrides])


def test_commands_of_python_and_bash_are_well_formed() -> None:
    for command in commands("python", "-c"):
        compile(command.words[2], command.page, "exec")
    for command in commands("bash"):
        subprocess.run(["bash", "-n", str(ROOT / command.words[1])], check=True)


def test_every_make_target_exists_and_says_what_it_does() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets == TARGETS
    inline = [t for page in PAGES for t in re.findall(r"`make ([a-z-]+)", page.read_text())]
    assert {*inline, *(command.words[1] for command in commands("make"))} <= targets


def test_the_options_of_make_bench_exist() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, cwd=ROOT)
    asked = {o for command in commands("make", "bench") for o in re.findall(r"--[a-z-]+", " ".join(command.words))}
    assert asked
    assert [option for option in asked if option not in done.stdout] == [], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in NAMES if any(c.page == name for c in commands())])
def test_the_commands_of_a_page_run(name: str, tmp_path: Path) -> None:
    """All that are not marked, one after the other in one folder; of make, what it would do."""
    for entry in ("train.py", "conf", "results", "tests", "benchmarks", "scripts"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    cli = "import sys; from resnetlab.cli import main; sys.exit(main())"
    programs = {
        "python": f'PYTHONPATH={ROOT / "src"}:$PYTHONPATH exec {sys.executable} "$@"',
        "resnetlab": f'exec {sys.executable} -c "{cli}" "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        "make": f'exec /usr/bin/env -u MAKEFLAGS {os.environ.get("MAKE", "make")} -n -C {ROOT} "$@"',
    }
    (tmp_path / "bin").mkdir()
    for program, line in programs.items():
        path = tmp_path / "bin" / program
        path.write_text(f'#!/bin/sh\nPATH="{os.environ["PATH"]}"\n{line}\n')
        path.chmod(0o755)
    lines = [command.line for command in commands() if command.page == name and not command.marked]
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def python_blocks() -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), python_blocks(), ids=lambda text: text.splitlines()[-1][:60])
def test_python_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(f"from __future__ import annotations\n{code}", page, "exec"), {"__name__": page})


def documented() -> dict[str, ast.FunctionDef]:
    """The functions whose signature docs/api.md states."""
    trees = [ast.parse(code) for code in blocks(ROOT / "docs" / "api.md", "python")]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", sorted(documented()))
def test_a_documented_signature_is_the_codes(name: str) -> None:
    """Names, kinds and defaults; ... stands for a default that is no literal."""
    namespace: dict[str, object] = {}
    source = f"from __future__ import annotations\n{ast.unparse(documented()[name])}"
    exec(source, namespace)
    home = next(home for home in (resnetlab, resnetlab.models, resnetlab.data) if name in home.__all__)
    stated = inspect.signature(namespace[name]).parameters  # type: ignore[arg-type]
    actual = inspect.signature(getattr(home, name)).parameters
    assert [(p.name, p.kind) for p in stated.values()] == [(p.name, p.kind) for p in actual.values()]
    for parameter in stated.values():
        if parameter.default is not ...:
            assert parameter.default == actual[parameter.name].default


def test_the_api_page_names_everything_public() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for name in (*resnetlab.__all__, *resnetlab.models.__all__):
        assert re.search(rf"^### .*\b{name}\b|`{name}`", text, flags=re.MULTILINE), name
    assert set(documented()) <= {*resnetlab.__all__, *resnetlab.models.__all__, *resnetlab.data.__all__}


def test_the_configuration_page_names_every_option_and_every_top_level_key() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for group, options in GROUPS.items():
        alias = {"custom"} if group == "schedule" else set()  # a file alone, of schedule=lambda
        assert {*options} | alias == {path.stem for path in (conf_dir() / group).glob("*.yaml")}
        assert [name for name in options if f"`{name}`" not in text] == []
    keys = resnetlab.Config.__dataclass_fields__
    assert [key for key in keys if key not in GROUPS and f"`{key}`" not in text] == []


def anchors(page: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """Only to what `make docs` copies, so that they work in the site too."""
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert target.suffix in (".md", ".png", ".cff", ".ipynb") or target.name in ("LICENSE", "first-study.yaml"), (
            link
        )
        assert not anchor or anchor in anchors(target), link
        assert "--" not in anchor, link  # Python-Markdown makes one hyphen of two


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_paths_exist(page: Path) -> None:
    top = "src|conf|tests|results|benchmarks|scripts|docs|[.]github|[.]ci"
    found = re.findall(rf"`((?:{top})/[\w./-]*)`", page.read_text())
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert "plugins" not in site
    listed = re.findall(r"[\w/-]+\.md", str(site["nav"]))
    assert sorted(listed) == sorted([*NAMES, "CHANGELOG.md"])
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_citation_names_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert version is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version[1]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
