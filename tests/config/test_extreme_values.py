"""Every typed key of every option with values that nobody can mean: each refused in one line that names the key."""

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np
import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from resnetlab.config.compose import compose_node, hydra_context, parse
from resnetlab.config.messages import print_error
from resnetlab.config.option_files import TOP_LEVEL, options
from resnetlab.config.schema import GROUPS, Config
from resnetlab.errors import ConfigError

TOO_LARGE = ["1e308", "-1e308", "inf", "-inf", "nan"]
WHOLE = "99999999999999999999999"
NO_VALUE = ["abc", "''", "[1,[2]]", "{a:1}", "[nan]", "x" * 5000]
NEVER = {  # by the declared type, without "| None"
    float: [*TOO_LARGE, *NO_VALUE, "1e-320", "-1", "[]"],
    int: [*TOO_LARGE, WHOLE, *NO_VALUE, "1e-320", "-1", "[]", "0.5"],
    bool: [*TOO_LARGE, WHOLE, *NO_VALUE, "1e-320", "-1", "[]", "0.5", "2"],
    str: [*TOO_LARGE, *NO_VALUE, "1e-320", "-1", "0", "true", "../x", "a\nb"],
    dict: [*TOO_LARGE, WHOLE, *(value for value in NO_VALUE if value != "{a:1}"), "1e-320", "-1", "[]", "0.5", "true"],
    list: [*TOO_LARGE, *NO_VALUE, "{}", "[-1]", "[1e308]", "[[[[]]]]", "[abc]", "null"],
}
FOLDER = {*NEVER[str]} - {"[1,[2]]", "{a:1}", "[nan]", "a\nb"}
MEANT = {  # what one may mean by these keys all the same: a name, the path of a folder, an address
    "study": {"inf", "nan", "abc", "1e-320", "0", "true"},
    "outputs": FOLDER - {"''"},
    "data.root": FOLDER,
    "logger.project": {"inf", "nan", "abc", "1e-320", "0", "true"},
    "logger.uri": FOLDER,
    **{key: {"''", "[]"} for key in ("optimizer.parameters", "data.parameters")},  # nothing, as null
}
NEEDS = {
    "schedule=lambda": ["schedule.function=math.exp"],
    "model=custom": ["model.function=torch.nn.Flatten"],
    "data=custom": ["data.function=test_extreme_values.pictures"],
    "optimizer=custom": ["optimizer.function=torch.optim.RMSprop"],
    "l2": ["regularization=l2"],
    "ema_momentum": ["averaging=ema"],
}


def pictures() -> dict[str, Any]:
    """Images of data=custom."""
    arrays = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), np.arange(40) % 2
    return dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays * 2, strict=True))


@cache
def cases() -> dict[str, tuple[tuple[str, ...], type]]:
    """Of each key, with the class that declares it: the options it needs, and its type; an inherited key once."""
    found: dict[Any, tuple[str, tuple[str, ...], type]] = {}
    for owner, choices in (("", {"": Config}), *((group, GROUPS[group]) for group in GROUPS)):
        for name, option in choices.items():
            kind = option if isinstance(option, type) else type(option)
            hints = get_type_hints(kind)
            for field in fields(kind):
                if field.name == "name" or field.name in GROUPS:
                    continue
                declared = next(
                    base for base in reversed(kind.__mro__) if field.name in getattr(base, "__annotations__", {})
                )
                choice = f"{owner}={name}"
                key = f"{owner}.{field.name}" if owner else field.name
                needs = (*((choice,) if owner else ()), *NEEDS.get(choice, NEEDS.get(key, [])))
                found.setdefault((declared, field.name), (key, needs, base_type(hints[field.name])))
    return {f"{declared.__name__}.{name}": case for (declared, name), case in found.items()}


def base_type(hint: Any) -> type:
    """float of `float | None`, list of `list[float]`; dict of Any, since all such keys are keyword arguments."""
    if hint is Any:
        return dict
    kinds = [kind for kind in getattr(hint, "__args__", ()) if kind is not type(None)]
    origin = getattr(hint, "__origin__", None)
    return origin if isinstance(origin, type) else kinds[0] if kinds else hint


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if i % 10 else []) for i, c in enumerate(cases())]
)
def test_what_nobody_can_mean_is_refused_in_one_line_that_names_the_key(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, needs, kind = cases()[case]
    wrong, accepted = [], set()
    for value in NEVER[kind]:
        try:
            with hydra_context():
                parse(compose_node(["data=digits", *needs, f"{key}={value}"]))
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            print_error(error)
            message = capsys.readouterr().err
            if message.count("\n") != 1 or len(message) > 1300 or key.rpartition(".")[2] not in message:
                wrong.append(f"{value[:40]}: {message[:600]}")
        else:
            accepted.add(value)
    assert wrong == []
    assert accepted == MEANT.get(key, set())
    assert len(NEVER[kind]) >= 10


def test_every_typed_key_is_tried() -> None:
    """All that the comments of the option files name."""
    assert {key for key, *_ in cases().values()} >= {
        key.name for group in GROUPS for option in options(group) for key in option.keys
    } | {key.name for key in TOP_LEVEL.keys}
