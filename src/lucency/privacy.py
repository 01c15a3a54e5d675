"""What is shown and kept of names that come from outside: a patient's name is often in them, and sometimes worse."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with everything that could steer a terminal, or cannot be encoded, as an escape such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c)[0] == "C" and c not in "\n\t" else c
        for c in text
    )
