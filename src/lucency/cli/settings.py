"""Parameters of a method as words: ``patch=24``, ``removal=blur``, ``removal.sigma=20``."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from lucency.errors import ParameterError
from lucency.methods import Method, method_named
from lucency.removal import Removal

_MISSING = object()


def method_with(name: str, settings: Sequence[str], removal: str | None = None) -> Method:
    """The method of that name with ``key=value`` settings in place of its defaults.

    Raises:
        ParameterError: when the method, a parameter or a value does not exist, naming those that do.
    """
    how = method_named(name)
    pairs = [] if removal is None else [("removal", removal)]
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ParameterError(f"A setting is written key=value, as in --set patch=24, not {setting!r}.")
        pairs.append((key.strip(), value.strip()))
    # What a part is comes before what is inside it, in whatever order they were given.
    for key, value in sorted(pairs, key=lambda pair: pair[0].count(".")):
        how = _replaced(how, key.split("."), value, f"The method {name}")
    return how


def removal_named(name: str) -> Removal:
    """The removal of that name with its defaults.

    Raises:
        ParameterError: naming those there are.
    """
    found = _read(name, Removal)
    if not isinstance(found, Removal):
        raise ParameterError(f"There is no removal {name!r}; use one of {', '.join(words(Removal))}.")
    return found


def _replaced(thing: Any, keys: Sequence[str], value: str, whose: str) -> Any:
    fields = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    key, *rest = keys
    if key not in fields:
        known = f"it has {', '.join(fields)}" if fields else "it has none"
        raise ParameterError(f"{whose} has no parameter {key!r}; {known}.")
    if rest:
        new = _replaced(getattr(thing, key), rest, value, f"The {key} {getattr(getattr(thing, key), 'name', '')!r}")
    else:
        hint = typing.get_type_hints(type(thing))[key]
        new = _read(value, hint)
        if new is _MISSING:
            raise ParameterError(f"{whose} cannot take {key}={value}; {key} is {' or '.join(words(hint))}.")
    return dataclasses.replace(thing, **{key: new})


def kinds(base: type) -> dict[str, type]:
    """The implementations of a protocol by the name that each has on the command line."""
    return {str(cls.name): cls for cls in _below(base) if "name" in vars(cls)}


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def _read(text: str, hint: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # Text would take anything, so it comes last.
        for one in sorted(inner, key=lambda h: h is str):
            value = _read(text, one)
            if value is not _MISSING:
                return value
        return _MISSING
    if origin is typing.Literal:
        return next((choice for choice in inner if str(choice) == text), _MISSING)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        values = [_read(part.strip(), inner[0]) for part in text.split(",")]
        return _MISSING if _MISSING in values else tuple(values)
    if hint is type(None):
        return None if text.lower() == "none" else _MISSING
    if hint is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            text.lower(), _MISSING
        )
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            return _MISSING
    if inspect.isclass(hint) and text in kinds(hint):
        try:
            return kinds(hint)[text]()
        except TypeError:
            # It needs arguments that words cannot give (an array of regions, a generator).
            return _MISSING
    return _MISSING


def words(hint: Any) -> list[str]:
    """What can be written for a parameter of this type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [word for one in inner for word in words(one)]
    if origin is typing.Literal:
        return [str(choice) for choice in inner]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [f"several of these with commas: {' or '.join(words(inner[0]))}"]
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "none"}
    if hint in plain:
        return [plain[hint]]
    return sorted(name for name in kinds(hint) if _read(name, hint) is not _MISSING)
