"""A sample of the kills and full disks of `make fuzz`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_nothing_is_lost_by_kills_and_full_disks() -> None:
    script = Path(__file__).parent / "kill_and_full.py"
    done = subprocess.run(
        [sys.executable, str(script), "6", "0", "explain", "layers", "phantom"], capture_output=True, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["wrong"]) == (0, 0), done.stdout + done.stderr
    assert told["full: full"] > 0
