"""The methods, one file each; a new file here is a new method."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

from lucency.errors import ParameterError
from lucency.methods.base import Method, Step

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def _below(cls: Any) -> Iterator[type[Method]]:
    if "name" in vars(cls):
        yield cls
    for child in cls.__subclasses__():
        yield from _below(child)


METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in sorted(_below(Method), key=lambda c: c.name) if cls.__module__.startswith(__name__)
}
"""Every method by the name it has on the command line."""


def method_named(name: str) -> Method:
    """The method of that name with its paper's defaults.

    Raises:
        ParameterError: naming the methods there are.
    """
    if name not in METHODS:
        raise ParameterError(f"There is no method {name!r}; use one of {', '.join(METHODS)}.")
    return METHODS[name]()


__all__ = ["METHODS", "Method", "Step", "method_named"]
