"""Drawn single-word changes of DICOM films of every transfer syntax: each is read, or refused in one sentence.

A child process reads them, so that a crash is counted and the campaign goes on.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LIMIT_S, LIMIT_MIB = 22.0, 2048


def batch(seconds: float, seed: int, first: int) -> None:
    """Reads films until the time is over, or until one takes too long; a line of JSON for each."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import made_films as films

    from lucency import LucencyError
    from lucency.reading.dicom import read_dicom

    until, number = time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        while time.monotonic() < until:
            what, data = films.mutated(np.random.default_rng([seed, number]))
            print(json.dumps({"number": number, "what": what}), flush=True)
            path.write_bytes(data)
            started, outcome, says = time.monotonic(), "read", ""
            try:
                read_dicom(path)
            except LucencyError as error:
                outcome, says = "refused", str(error)
                if "\n" in says or not says.endswith("."):
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


def main(seconds: float, seed: int) -> int:
    """Prints how many were read and refused; 1 when one did anything else, hung or swelled."""
    counts, slowest, reader, decoder, number = Counter[str](), 0.0, 0, 0, 0
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        command = [sys.executable, str(Path(__file__)), str(left), str(seed), str(number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert process.stdout is not None
        what, open_case = "", False
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
                print(f"dicom: {told['says']} after {told['took']:.1f} s ({what}; seed {seed}, {number - 1})")
        if process.wait() != 0:
            counts["crashed"] += 1
            print(f"dicom: the reader ended with {process.returncode} ({what}; seed {seed}, {number - 1})")
            if not open_case:
                return 1
    told = {"campaign": "dicom", "seed": seed, **counts, "slowest_s": round(slowest, 2)}
    print(json.dumps(told | {"reader_peak_mib": reader, "decoder_peak_mib": decoder}))
    bad = counts["failed"] + counts["crashed"] > 0 or slowest > LIMIT_S
    return int(bad or max(reader, decoder) > LIMIT_MIB)


if __name__ == "__main__":
    batch(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
