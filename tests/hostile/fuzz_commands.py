"""Drawn command lines: each is answered, in one sentence where it cannot be done."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings

from commands import command_lines, faults, spoken
from hypothesis import HealthCheck, Phase, given, seed, settings


def main(seconds: float, seed_: int) -> int:
    """Prints how many were tried; 1 when one was answered badly."""
    tried, wrong, slowest = 0, 0, 0.0
    until, round_ = time.monotonic() + seconds, 0
    home = os.getcwd()  # noqa: PTH109

    def answered(arguments: list[str]) -> None:
        nonlocal tried, wrong, slowest
        if time.monotonic() > until:
            return
        started = time.monotonic()
        found = list(faults(*spoken(arguments)))
        tried, slowest = tried + 1, max(slowest, time.monotonic() - started)
        wrong += bool(found)
        for fault in found:
            print(f"commands: {arguments!r}: {fault}")

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            while time.monotonic() < until:
                drawn = settings(
                    max_examples=200, database=None, deadline=None, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(given(command_lines)(answered))  # fmt: skip
                seed(seed_ + round_)(drawn)()
                round_ += 1
        finally:
            os.chdir(home)
    print(
        json.dumps(
            {"campaign": "commands", "seed": seed_, "tried": tried, "failed": wrong, "slowest_s": round(slowest, 2)}
        )
    )
    return int(wrong > 0 or slowest > 20)
