"""Models that are named rather than handed over: ``timm:resnet18``, ``hf:FOLDER``, ``https://...``.

A way in is a function that takes what stands behind the prefix and, as keyword arguments, what the caller gave to
:func:`lucency.load_classifier` and nothing else; it gives a :class:`~lucency.classifier.Classifier`. Other packages add
theirs as entry points in the group ``lucency.classifiers``, the prefix being the entry point's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from lucency.errors import MissingExtraError, ModelError
from lucency.plugins import found

if TYPE_CHECKING:
    from lucency.classifier.base import Classifier

Way = Callable[..., "Classifier"]

WAYS = {
    "lucency": "lucency.classifier.loading:_shipped",
    "hf": "lucency.classifier.named.huggingface:open_huggingface",
    "http": "lucency.classifier.named.http:open_http",
    "https": "lucency.classifier.named.http:open_https",
    "monai": "lucency.classifier.named.monai:open_monai",
    "timm": "lucency.classifier.named.timm:open_timm",
    "torchvision": "lucency.classifier.named.torchvision:open_torchvision",
    "torchxrayvision": "lucency.classifier.named.xrayvision:open_xrayvision",
}
"""Where the function behind each prefix lives; it is imported when it is used."""


def way_of(spec: str) -> tuple[Way, str] | None:
    """The way in that ``spec`` names and what stands behind its prefix, or ``None`` where it names none."""
    prefix, colon, rest = spec.partition(":")
    if not colon:
        return None
    if prefix in WAYS:
        module, name = WAYS[prefix].split(":")
        return getattr(import_module(module), name), rest
    plugin = found("lucency.classifiers").get(prefix)
    return None if plugin is None else (cast(Way, plugin), rest)


def opened(spec: str, said: dict[str, Any]) -> Classifier | None:
    """The classifier that ``spec`` names, with what the caller ``said`` about it; ``None`` where it names no way in.

    Raises:
        ModelError: when the way in takes no such option, or whatever it raises itself.
    """
    from lucency.classifier.base import Classifier

    way = way_of(spec)
    if way is None:
        return None
    function, rest = way
    prefix = spec.partition(":")[0]
    try:
        signature = inspect.signature(function)
        if "trust" not in signature.parameters:
            said = {option: value for option, value in said.items() if option != "trust"}
        signature.bind(rest, **said)
    except TypeError as error:
        raise ModelError(f"{prefix}: cannot be used so ({error}); leave that option out.") from error
    classifier = function(rest, **said)
    if not isinstance(classifier, Classifier):
        raise ModelError(
            f"{prefix}: gave {type(classifier).__name__} instead of a Classifier; report it to its makers."
        )
    return classifier


def needed(package: str, extra: str) -> ModuleType:
    """The optional package.

    Raises:
        MissingExtraError: naming the extra that brings it.
    """
    try:
        return import_module(package)
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise MissingExtraError(
            f"{package} cannot be imported ({why}); pip install 'lucency[{extra}]' beside a matching torch."
        ) from error
