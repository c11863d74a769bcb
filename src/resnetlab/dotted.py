"""Python functions and classes of the user's at dotted paths, such as math.cos: import, call, digest of the source."""

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, TypeVar

from resnetlab.errors import require

T = TypeVar("T")


def import_callable(key: str, path: str, what: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """The callable at a dotted path, of the current folder too, and its parameters' names. Raises ConfigError."""
    if os.getcwd() not in sys.path:  # of the command resnetlab
        sys.path.append(os.getcwd())
    with error_in_one_line(key, path, f"be the dotted path of a {what}, such as math.cos"):
        found = resolve_name(path)
    require(callable(found), key, path, f"be a {what}, it is of type {type(found).__name__}")
    try:
        return found, frozenset(signature(found).parameters)
    except (TypeError, ValueError):  # of some functions in C
        return found, frozenset()


def call(key: str, path: str, kind: type[T], *values: Any, **keywords: Any) -> T:
    """What the callable returns. Raises ConfigError if that is no `kind`, or for whatever it raises."""
    must = f"be the dotted path of what returns a {kind.__name__} for {', '.join([*map(str, keywords)])}"
    with error_in_one_line(key, path, must):
        made = import_callable(key, path, "class or function")[0](*values, **keywords)
    require(isinstance(made, kind), key, path, f"{must}, not {type(made).__name__}")
    return made


@contextmanager
def error_in_one_line(key: str, path: str, must: str) -> Iterator[None]:
    """Turns what code of the user's raises into a ConfigError: "key (=path) must ...: TypeError: ..."."""
    try:
        yield
    except (Exception, SystemExit) as error:  # anything can come out of it
        require(False, key, path, f"{must}: {one_line(error)}")


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_parameters(group: str, parameters: Any, given: set[str]) -> None:
    """Raises ConfigError unless they are keyword arguments. given: the names of those that are not for the user."""
    usable = parameters is None or (isinstance(parameters, Mapping) and not given & {*parameters})
    must = f"be {{name: value, ...}}, or null; {', '.join(sorted(given))} are given anyway"
    require(usable, f"{group}.parameters", parameters, must)


def source_digest(path: str) -> str:
    """Digest of the source, without comments, of the imported module in a dotted path and of those that it imports.

    Of the user's own modules; the versions of installed libraries are in the manifest.
    """
    parts = path.replace(":", ".").split(".")
    names = [name for i in range(len(parts), 0, -1) if (name := ".".join(parts[:i])) in sys.modules][:1]
    found: dict[str, str] = {}
    while names:
        module = sys.modules.get(name := names.pop())
        if name not in found and is_own(file := str(getattr(module, "__file__", None))):
            found[name] = ast.unparse(ast.parse(Path(file).read_bytes()))
            for value in vars(module).values():
                names.append(str(getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def is_own(file: str) -> bool:
    """Whether a module's file is the user's, and neither Python's nor the lab's nor an installed library's."""
    libraries = sysconfig.get_path("stdlib"), str(Path(__file__).parent)
    return file.endswith(".py") and not file.startswith(libraries) and "-packages" not in file
