"""What is shown and kept of names that come from outside: a patient's name is often in them, and sometimes worse."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path


def printable(text: str) -> str:
    """The text with everything that could steer a terminal, or cannot be encoded, as an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c)[0] == "C" and c not in "\n\t" else c
        for c in text
    )


def shown_source(source: str, sha256: str = "", *, anonymous: bool = False) -> str:
    """What is kept of where a scan came from: the name of its file without the folders, or a hash of its pixels."""
    if anonymous:
        return f"scan {sha256[:12]}"
    return printable(Path(source).name or source)


def shown_command(arguments: Sequence[str], *, anonymous: bool = False) -> str:
    """A command line as a page shows it: of each path its last part, or nothing of paths at all."""

    def shown(word: str) -> str:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if os.sep not in value and "/" not in value and not (anonymous and value and _exists(value)):
            return word
        return option + equals + ("..." if anonymous else Path(value).name or value)

    return printable(shlex.join(["lucency", *map(shown, arguments)])).replace("\n", " ")


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False
