"""What can be asked for, told by the code itself: parameters from dataclasses, their help from docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from lucency.classifier import Classifier
from lucency.errors import LucencyError, ParameterError
from lucency.masks import Superpixels
from lucency.methods import METHODS, Method
from lucency.parameters import kinds, parameters_of, summary_of
from lucency.removal import Removal
from lucency.removal.base import removals

Kind = Literal["integer", "number", "boolean", "choice", "text", "list", "length", "removal", "superpixels"]
WORDS = {"layer"}
"""Fields of free text that a request may fill in. All others may name files, and nothing in a request does."""
LARGEST = 100_000
"""No whole number of a parameter may be larger: what it counts would fill the memory."""


class Parameter(BaseModel):
    """One parameter of a method or a removal.

    Attributes:
        type: what it is; ``length`` is a number of grid pixels or a text such as ``15mm``.
        optional: whether it may be null.
        minimum: the smallest that is taken; ``above`` instead, where it must be larger than that.
    """

    name: str
    type: Kind
    default: Any
    optional: bool = False
    minimum: float | None = None
    above: float | None = None
    choices: list[str] | None = None
    help: str = ""


class MethodAbout(BaseModel):
    """A method and its parameters."""

    name: str
    title: str
    summary: str
    paper: str
    panel: str
    axes: tuple[str, str]
    unit: str
    needs_gradients: bool
    removes: bool
    parameters: list[Parameter]


class RemovalAbout(BaseModel):
    """A meaning of "removed" and its parameters."""

    name: str
    summary: str
    deterministic: bool
    cost: str
    parameters: list[Parameter]


class ModelAbout(BaseModel):
    """A classifier that may be asked."""

    name: str
    title: str
    classes: list[str]
    input: dict[str, Any]
    gradients: bool
    measures: bool
    knows_clean_scans: bool
    notices: list[str]


def about_model(classifier: Classifier, known: bool) -> ModelAbout:
    """What a page says about a classifier."""
    size = classifier.input_size
    return ModelAbout(
        name=classifier.name,
        title=classifier.name.partition(":")[2] or classifier.name,
        classes=list(classifier.classes),
        input={"size": None if size is None else list(size), "channels": classifier.channels},
        gradients=classifier.module is not None,
        measures=classifier.measures,
        knows_clean_scans=known,
        notices=list(classifier.notices),
    )


@cache
def all_methods() -> list[MethodAbout]:
    """Every method whose parameters a word can give."""
    return [
        MethodAbout(
            name=name,
            title=cls.title,
            summary=summary_of(cls),
            paper=cls.paper,
            panel=cls.panel,
            axes=cls.axes,
            unit=cls.unit,
            needs_gradients=cls.needs_gradients,
            removes=Method.from_word(name).removal is not None,
            parameters=_parameters(Method.from_word(name)),
        )
        for name, cls in METHODS.items()
        if name in Method.words()
    ]


@cache
def all_removals() -> list[RemovalAbout]:
    """Every removal that a word can give."""
    return [
        RemovalAbout(
            name=name,
            summary=summary_of(cls),
            deterministic=cls.deterministic,
            cost=cls.cost,
            parameters=_parameters(Removal.of(name)),
        )
        for name, cls in removals().items()
        if name in Removal.words()
    ]


def settings_of(given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Parameters in JSON as the settings ``key=value`` of the command line, which are read by the parameter's type.

    ``{"samples": 500, "removal": {"name": "blur", "parameters": {"sigma": 8}}}`` becomes
    ``["samples=500", "removal=blur", "removal.sigma=8"]``.

    Raises:
        ParameterError: for what no parameter can be.
    """
    found = []
    for name, value in given.items():
        key = prefix + name
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,60}", name):
            raise ParameterError(f"There is no parameter {name!r:.60}; GET methods lists those that there are.")
        if isinstance(value, Mapping):
            if set(value) - {"name", "parameters"} or not isinstance(value.get("parameters", {}), Mapping):
                raise ParameterError(f"The parameter {key} is an object with a name and parameters.")
            found.append(f"{key}={_word(key, value.get('name'))}")
            found += settings_of(value.get("parameters", {}), f"{key}.")
        else:
            found.append(f"{key}={_word(key, value)}")
    return found


def without_files(cls: type[Any], given: Sequence[str]) -> None:
    """Refuses settings that fill in free text which may name a file, whatever else they say.

    Args:
        cls: the method.
        given: what :func:`settings_of` made.

    Raises:
        ParameterError: naming the first.
    """
    for key in (setting.partition("=")[0] for setting in given):
        *parts, name = key.split(".")
        holders: list[type[Any]] = [cls]
        for part in parts:
            holders = [kind for holder in holders for kind in _inside(holder, part)]
        for holder in holders:
            hint = typing.get_type_hints(holder).get(name)
            if hint is not None and _kind(hint)[0] == "text" and name not in WORDS:
                raise ParameterError(f"The parameter {key} may name a file, so it cannot be given in a request.")


def _inside(holder: type[Any], part: str) -> list[type[Any]]:
    """What a field of a dataclass may hold."""
    hint = typing.get_type_hints(holder).get(part)
    found: list[type[Any]] = []
    for base, table in ((Removal, removals()), (Superpixels, kinds(Superpixels)), (Method, dict(METHODS))):
        if hint is not None and any(inspect.isclass(h) and issubclass(h, base) for h in _one_of(hint)):
            found += table.values()
    return found


def _one_of(hint: Any) -> list[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if union else [hint]


def _word(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and len(value) <= 1000 and not any(isinstance(v, list) for v in value):
        return ",".join(_word(key, v) for v in value)
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ParameterError(f"The parameter {key} is {value:g}; at most {LARGEST:,} is taken.")
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9_]{6,}\s*", value):
        return _word(key, float(value))
    if isinstance(value, int | float | str) and len(str(value)) <= 200:
        return str(value)
    raise ParameterError(f"The parameter {key} is no number, text, list or object of the known kind.")


def _parameters(thing: Any) -> list[Parameter]:
    hints = typing.get_type_hints(type(thing))
    found = []
    for parameter in parameters_of(type(thing)):
        kind, choices, optional = _kind(hints[parameter.name])
        if kind == "text" and parameter.name not in WORDS:
            continue
        found.append(
            Parameter(
                name=parameter.name,
                type=kind,
                default=_plain(parameter.default),
                optional=optional,
                choices=choices,
                help=parameter.meaning,
                **(_bound(thing, parameter.name, kind) if kind in ("integer", "number") else {}),
            )
        )
    return found


def _kind(hint: Any) -> tuple[Kind, list[str] | None, bool]:
    inner = _one_of(hint)
    optional = type(None) in inner
    inner = [h for h in inner if h is not type(None)]
    for base, kind in ((Removal, "removal"), (Superpixels, "superpixels")):
        if any(inspect.isclass(h) and issubclass(h, base) for h in inner):
            return typing.cast(Kind, kind), base.words(), optional
    literals = [str(c) for h in inner if typing.get_origin(h) is Literal for c in typing.get_args(h)]
    if literals:
        return "choice", literals, optional
    if str in inner and int in inner:
        return "length", None, optional
    if len(inner) == 1:
        plain: dict[Any, Kind] = {bool: "boolean", int: "integer", float: "number", str: "text"}
        if inner[0] in plain:
            return plain[inner[0]], None, optional
        if inspect.isclass(origin := typing.get_origin(inner[0])) and issubclass(origin, Sequence):
            return "list", None, optional
    return "text", None, optional


def _bound(thing: Any, name: str, kind: Kind) -> dict[str, float]:
    """The smallest of a few likely bounds that the parameter's own check lets through."""

    def taken(value: float) -> bool:
        try:
            dataclasses.replace(thing, **{name: value})
        except (LucencyError, ValueError, TypeError, ZeroDivisionError):
            return False
        return True

    if taken(-1):
        return {}
    if kind == "number":
        return {"minimum": 0.0} if taken(0.0) else {"above": 0.0} if taken(1e-6) else {}
    return next(({"minimum": float(bound)} for bound in (0, 1, 2) if taken(bound)), {})


def _plain(value: Any) -> Any:
    if isinstance(value, Removal | Superpixels | Method):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
