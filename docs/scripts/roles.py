"""Docstrings name things as ``:func:`~lucency.explain```; the site shows them as links."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_linked, obj.docstring.value)


def _linked(match: re.Match[str]) -> str:
    short, name = match.groups()
    shown = name.rsplit(".", 1)[-1] if short else name
    # Some names are public twice; the site has one place for each, so that a role may miss it. Then it is plain code.
    return f"<autoref optional identifier='{name}'><code>{shown}</code></autoref>"
