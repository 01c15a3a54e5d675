"""Text that fits: the one typeface of all pictures, and lines broken to a width."""

from __future__ import annotations

from functools import cache

from matplotlib import font_manager, rc_context
from PIL import ImageFont

from lucency.privacy import printable

FAMILY = "DejaVu Sans"
# A dollar in the name of a class begins no formula.
plain_words = rc_context({"text.parse_math": False})


@cache
def font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The typeface at ``size`` pixels; it comes with matplotlib, so pictures look the same everywhere."""
    wanted = font_manager.FontProperties(family=FAMILY, weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(wanted), size)


def lines(text: str, size: float, width: float, bold: bool = False) -> list[str]:
    """``text`` broken at spaces to lines of at most ``width`` pixels; a single longer word is cut."""
    broken: list[str] = []
    for word in printable(text).split():
        longer = f"{broken[-1]} {word}" if broken else word
        if broken and font(size, bold).getlength(longer) <= width:
            broken[-1] = longer
        else:
            broken.append(cut(word, size, width, bold))
    return broken


def cut(text: str, size: float, width: float, bold: bool = False) -> str:
    """``text`` on one line of at most ``width`` pixels, its end left out where it is longer."""
    text = printable(text).replace("\n", " ")
    if font(size, bold).getlength(text) <= width:
        return text
    while text and font(size, bold).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def signed(value: float) -> str:
    """A value of a map, with its sign and three digits."""
    return f"{value:+.3g}".replace("-", "−")
