"""Python functions and classes of the user's at dotted paths, such as math.cos: import, call, digest of the source."""

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

from resnetlab.errors import require

T = TypeVar("T")
LIBRARIES = f"{sysconfig.get_path('stdlib')}/", f"{Path(__file__).parent}/", "/site-packages/", "/dist-packages/"


def import_callable(key: str, path: str, what: str) -> tuple[Callable[..., Any], frozenset[str]]:
    """The callable at a dotted path, of the current folder too, and its parameters' names. Raises ConfigError."""
    if os.getcwd() not in sys.path:  # of the command resnetlab
        sys.path.append(os.getcwd())
    with error_in_one_line(key, path, f"be the dotted path of a {what}, such as math.cos:"):
        found = resolve_name(path)
    require(callable(found), key, path, f"be a {what}, it is of type {type(found).__name__}")
    try:
        return found, frozenset(signature(found).parameters)
    except (TypeError, ValueError):  # of some functions in C
        return found, frozenset()


def call(key: str, path: str, parameters: Any, kind: type[T], *values: Any, **given: Any) -> T:
    """What it returns for (*values, **given, **parameters). Raises ConfigError for whatever it raises, or no `kind`."""
    function, _ = import_callable(key, path, "class or function")
    must = f"return a {kind.__name__} for ({', '.join([*['...' for _ in values], *given, '**parameters'])})"
    with error_in_one_line(key, path, f"{must}:"):
        made = function(*values, **given, **(parameters or {}))
    require(isinstance(made, kind), key, path, f"{must}, not {type(made).__name__}")
    return made


@contextmanager
def error_in_one_line(key: str, path: str, must: str) -> Iterator[None]:
    """Turns what code of the user's raises into a ConfigError: "key (=path) must ... TypeError: ..."."""
    try:
        yield
    except (Exception, SystemExit) as error:  # anything can come out of it
        require(False, key, path, " ".join(f"{must} {type(error).__name__}: {error}".split()))


def code_digest(path: str) -> str:
    """Digest of the source, without comments, of the imported module in a dotted path and of those that it imports.

    Of the user's own modules; the versions of installed libraries are in the manifest.
    """
    names, found = [path.replace(":", ".").rsplit(".", i)[0] for i in range(path.count(".") + 2)], dict[str, str]()
    names = [name for name in names if name in sys.modules][:1]
    while names:
        module = sys.modules.get(name := names.pop())
        file = str(getattr(module, "__file__", None))
        if name not in found and file.endswith(".py") and not any(part in file for part in LIBRARIES):
            found[name] = ast.unparse(ast.parse(Path(file).read_bytes()))
            names += [str(getattr(v, "__module__", getattr(v, "__name__", ""))) for v in vars(module).values()]
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]
