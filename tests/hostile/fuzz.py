"""The long campaign: every ``fuzz_*.py`` here, one after the other, each with its share of the time.

    python tests/hostile/fuzz.py [SECONDS] [SEED]

Each is a module with ``main(seconds, seed) -> int``; it prints one line of JSON, and gives 0 when all went well.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
WEIGHTS = {"fuzz_kills": 3.0}
"""What needs a larger share of the time."""


def main() -> int:
    """How many campaigns found something."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    names = sorted(file.stem for file in HERE.glob("fuzz_*.py"))
    total = sum(WEIGHTS.get(name, 1.0) for name in names)
    failed = 0
    for name in names:
        share = seconds * WEIGHTS.get(name, 1.0) / total
        code = f"import sys, {name}; sys.exit({name}.main({share}, {seed}))"
        path = f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}; {code}"
        # Each in a process of its own: one that is brought down is a finding, and no end of the others.
        ended = subprocess.run([sys.executable, "-W", "ignore", "-c", path])
        if ended.returncode:
            print(f"{name}: found something, or was brought down (exit code {ended.returncode})", flush=True)
        failed += bool(ended.returncode)
    return failed


if __name__ == "__main__":
    sys.exit(main())
