"""What the campaigns of changed files share: a child process reads, so that a crash is counted and the rest goes on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

LIMIT_S = 22.0
Draw = Callable[[np.random.Generator], tuple[str, str, bytes]]
"""What was changed, the name of the file, and its bytes."""
Read = Callable[[Path, int], object]
"""Reads a file, the so-manieth of the campaign."""


def batch(draw: Draw, read: Read, seconds: float, seed: int, first: int) -> None:
    """Reads files until the time is over; two lines of JSON for each, before and after."""
    from lucency import LucencyError

    until, number = time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < until:
            what, name, data = draw(np.random.default_rng([seed, number]))
            print(json.dumps({"number": number, "what": what}), flush=True)
            path = Path(folder) / name
            path.write_bytes(data)
            started, outcome, says = time.monotonic(), "read", ""
            try:
                read(path, number)
            except LucencyError as error:
                outcome, says = "refused", str(error)
                if not says.isprintable() or not says.endswith("."):
                    outcome = "failed"
                elif "decoder crash" in says:
                    outcome = "decoder crashed"
                elif "longer than" in says:
                    outcome = "decoder late"
            except Exception as error:
                outcome, says = "failed", f"{type(error).__name__}: {error}"
            peaks = [
                resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            ]
            took = time.monotonic() - started
            print(json.dumps({"outcome": outcome, "says": says, "took": took, "peaks": peaks}), flush=True)
            number += 1


def drive(script: Path, seconds: float, seed: int, limit_mib: int) -> int:
    """Runs ``script SECONDS SEED FIRST``, which calls :func:`batch`, until the time is over.

    Prints how many were read and refused; 1 when one did anything else, hung or swelled.
    """
    title = script.stem.removeprefix("fuzz_")
    counts, slowest, reader, decoder, number = Counter[str](), 0.0, 0, 0, 0
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        command = [sys.executable, str(script), str(left), str(seed), str(number)]
        what, open_case = "", False
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                open_case = "number" in told
                if open_case:
                    number, what = told["number"] + 1, told["what"]
                    continue
                counts[told["outcome"]] += 1
                slowest = max(slowest, told["took"])
                reader, decoder = max(reader, told["peaks"][0]), max(decoder, told["peaks"][1])
                if told["outcome"] == "failed" or told["took"] > LIMIT_S:
                    print(f"{title}: {told['says']} after {told['took']:.1f} s ({what}; seed {seed}, {number - 1})")
            process.wait()
            errors.seek(0)
            noise = errors.read().decode(errors="replace").strip()[-300:]
        if process.returncode != 0:
            counts["crashed"] += 1
            print(f"{title}: the reader ended with {process.returncode} ({what}; seed {seed}, {number - 1}) {noise}")
            if not open_case:
                return 1
        elif noise:
            counts["printed"] += 1
            print(f"{title}: a decoder printed {noise!r}")
    told = {"campaign": title, "seed": seed, **counts, "slowest_s": round(slowest, 2)}
    print(json.dumps(told | {"reader_peak_mib": reader, "decoder_peak_mib": decoder}))
    bad = counts["failed"] + counts["crashed"] > 0 or slowest > LIMIT_S
    return int(bad or max(reader, decoder) > limit_mib)
