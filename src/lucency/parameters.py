"""Parameters as words: ``patch=24``, ``removal=blur``, ``removal.sigma=20``, and names as people type them."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
import types
import typing
from abc import ABC
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from lucency.errors import ParameterError
from lucency.plugins import found

T = TypeVar("T")
_MISSING = object()


def squeezed(name: str) -> str:
    """A name without what people write in different ways: ``"Grad-CAM++"`` and ``"grad_cam_plus_plus"`` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))


def lookup(name: str, table: Mapping[str, type[T]], what: str) -> type[T]:
    """The class that ``name`` means: its name, title or class name, in any case, with hyphens, underscores or blanks.

    Raises:
        ParameterError: naming those there are, and the nearest.
    """
    wanted = squeezed(str(name))
    for key, cls in table.items():
        words = (key, str(getattr(cls, "title", "")), cls.__name__, *getattr(cls, "formerly", ()))
        if wanted in {squeezed(word) for word in words if word}:
            return cls
    near = difflib.get_close_matches(str(name).lower(), table, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ParameterError(f"There is no {what} {str(name)!r}{hint}; use one of {', '.join(table)}.")


def kinds(base: Any, group: str | None = None) -> dict[str, type[Any]]:
    """The implementations of a protocol by name: the project's own, and those that outside packages announce.

    Args:
        group: the entry points under which outside packages announce theirs.
    """
    own: dict[str, type[Any]] = {
        str(cls.name): cls for cls in _below(base) if "name" in vars(cls) and cls.__module__.startswith("lucency.")
    }
    if group is not None:
        for announced in found(group).values():
            if inspect.isclass(announced) and issubclass(announced, base) and "name" in vars(announced):
                # What an outside package calls the same as one of ours does not take its place.
                own.setdefault(str(vars(announced)["name"]), announced)
    return dict(sorted(own.items()))


def declared(cls: type[Any], base: type[Any]) -> None:
    """Refuses an implementation of a protocol whose class attributes are missing or of another type.

    For the ``__init_subclass__`` of the protocol, so that it is said when the class is defined and not when it is used.
    One with ABC among its bases, or that leaves the work to those below it, needs none; what it has must fit.

    Raises:
        ParameterError: naming the class, the attribute and what it must be.
    """
    done = all(any(method in vars(c) for c in cls.__mro__ if c is not base) for method in base.__abstractmethods__)
    for name, hint in _class_attributes(typing.cast(Hashable, base)).items():
        value = getattr(cls, name, _MISSING)
        if value is _MISSING and done and ABC not in cls.__bases__:
            raise ParameterError(f"{cls.__name__} has no {name}; give it a class attribute {name}, {_wanted(hint)}.")
        if value is not _MISSING and not _is(value, hint):
            raise ParameterError(f"The {name} of {cls.__name__} is {value!r:.60}; it must be {_wanted(hint)}.")


@cache
def _class_attributes(base: Hashable) -> dict[str, Any]:
    hints = _hints(base).items()
    return {name: typing.get_args(hint)[0] for name, hint in hints if typing.get_origin(hint) is typing.ClassVar}


def _is(value: object, hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        each = typing.get_args(hint)
        if each[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_is(one, each[0]) for one in value)
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_is, value, each))
    return isinstance(value, typing.get_origin(hint) or hint)


def _wanted(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"({', '.join('...' if one is Ellipsis else _wanted(one) for one in typing.get_args(hint))})"
    return {str: "a text", bool: "True or False"}.get(hint, str(getattr(hint, "__name__", hint)))


def import_files(package: str, folders: Iterable[str]) -> None:
    """Imports every module of a package, so that what a file in it defines is found because the file is there."""
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"{package}.{module.name}")


class Found(Mapping[str, type[T]]):
    """A table looked up when it is used: while an outside package is imported, what it brings is not there yet."""

    def __init__(self, look: Callable[[], dict[str, type[T]]]) -> None:
        self._look = look

    def __getitem__(self, name: str) -> type[T]:
        return self._look()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())


def _below(cls: type[Any]) -> Iterator[type[Any]]:
    if "name" in vars(cls):
        yield cls
    for child in cls.__subclasses__():
        yield from _below(child)


def replaced(thing: T, settings: Iterable[tuple[str, Any]], whose: str) -> T:
    """A dataclass with other parameters: ``("patch", 24)``, ``("removal.sigma", "20")``.

    Text is read as the type of the parameter says; anything else is taken as it is.

    Raises:
        ParameterError: when a parameter or a value does not exist, naming those that do.
    """
    # What a part is comes before what is inside it, in whatever order they were given.
    for key, value in sorted(settings, key=lambda pair: pair[0].count(".")):
        thing = _replaced(thing, key.split("."), value, whose)
    return thing


def pairs(settings: Iterable[str]) -> list[tuple[str, str]]:
    """``["patch=24"]`` -> ``[("patch", "24")]``.

    Raises:
        ParameterError: for what is not written so.
    """
    split = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ParameterError(f"A setting is written key=value, as in --set patch=24, not {setting!r}.")
        split.append((key.strip(), value.strip()))
    return split


def _replaced(thing: Any, keys: Sequence[str], value: Any, whose: str) -> Any:
    fields = [f.name for f in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    key, *rest = keys
    key = getattr(thing, "former_parameters", {}).get(key, key)
    if key not in fields:
        near = difflib.get_close_matches(key, fields, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        known = f"it has {', '.join(fields)}" if fields else "it has none"
        raise ParameterError(f"{whose} has no parameter {key!r}{hint}; {known}.")
    if rest:
        part = getattr(thing, key)
        new = _replaced(part, rest, value, f"The {key} {getattr(part, 'name', '')!r}")
    else:
        hints = _hints(type(thing))
        new = _read(value, hints[key]) if isinstance(value, str) else value
        if new is _MISSING:
            raise ParameterError(f"{whose} cannot take {key}={value}; {key} is {' or '.join(words(hints[key]))}.")
    try:
        return dataclasses.replace(thing, **{key: new})
    except TypeError as error:
        # A value of another type than its check expects.
        raise ParameterError(
            f"{whose} cannot take {key}={value!r:.60}; {key} is {' or '.join(words(_hints(type(thing))[key]))}."
        ) from error


# Annotations are text, which would be compiled each time.
_hints: Callable[[Any], dict[str, Any]] = cache(typing.get_type_hints)


def parts_of(thing: Any, base: type[Any]) -> list[str]:
    """The fields of a dataclass whose type is ``base``, or ``base`` among others."""

    def one_of(hint: Any) -> tuple[Any, ...]:
        return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)

    hints = _hints(type(thing))
    return [f.name for f in dataclasses.fields(thing) if base in one_of(hints[f.name])]


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
        return next((choice for choice in inner if squeezed(str(choice)) == squeezed(text)), _MISSING)
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
    if inspect.isclass(hint) and hasattr(hint, "from_word"):
        try:
            return hint.from_word(text)
        except ParameterError:
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
    return list(hint.words()) if hasattr(hint, "words") else [getattr(hint, "__name__", str(hint))]


def of_word(word: str, table: Mapping[str, type[T]], what: str) -> T:
    """An implementation with its defaults, by name.

    Raises:
        ParameterError: naming those there are, or because it needs arguments that a word cannot give.
    """
    cls = lookup(word, table, what)
    try:
        return cls()
    except TypeError as error:
        raise ParameterError(
            f"The {what} {word!r} needs arguments that a word cannot give; make it in Python, {cls.__name__}(...), or "
            f"use one of {', '.join(by_word(table))}."
        ) from error


def by_word(table: Mapping[str, type[Any]]) -> list[str]:
    """The names whose implementations need no arguments."""
    found_: list[str] = []
    for name, cls in table.items():
        needed = [
            p
            for p in inspect.signature(cls).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        if not needed:
            found_.append(name)
    return found_


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter, for a form or a help page.

    Attributes:
        name: as in ``--set name=value``.
        default: what it is when nobody sets it.
        takes: what can be written for it.
        meaning: what it does, from the docstring; empty where that says nothing.
    """

    name: str
    default: Any
    takes: tuple[str, ...]
    meaning: str


def parameters_of(cls: type[Any]) -> tuple[Parameter, ...]:
    """The parameters of a method, a removal or a way to cut superpixels, in their order.

    The default of a parameter that has none is ``None``.
    """
    hints, meanings = _hints(cls), _meanings(cls)
    return tuple(
        Parameter(f.name, _default(f), tuple(words(hints[f.name])), without_marks(meanings.get(f.name, "")))
        for f in dataclasses.fields(cls)
        if f.init
    )


def summary_of(cls: type[Any]) -> str:
    """The first paragraph of its docstring, as plain words."""
    return without_marks(" ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split()))


def without_marks(text: str) -> str:
    """Words of a docstring as a reader of plain text sees them."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")


def _default(of: dataclasses.Field[Any]) -> Any:
    if of.default_factory is not dataclasses.MISSING:
        return of.default_factory()
    return None if of.default is dataclasses.MISSING else of.default


def _meanings(cls: type[Any]) -> dict[str, str]:
    """What docstrings say under "Attributes:", by parameter; what a class says goes before what its parents say."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        _, _, below = inspect.cleandoc(vars(one).get("__doc__") or "").partition("\nAttributes:\n")
        names: list[str] = []
        for line in below.splitlines():
            if line and not line.startswith(" "):
                break
            if (match := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)) is not None:
                names = match[1].split(", ")
                found |= dict.fromkeys(names, match[2].strip())
            elif line.strip():
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
