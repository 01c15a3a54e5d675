"""A hundred kills and a hundred full disks over every command that writes, as far as the time goes."""

from __future__ import annotations

from kill_and_full import rounds


def main(seconds: float, seed: int) -> int:
    """1 when one of them lost something."""
    return min(1, rounds(100, seed, seconds))
