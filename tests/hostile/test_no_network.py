"""No command opens a connection: everything that it needs came with the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
def forbidden(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        raise AssertionError(f"{event} {arguments}")
sys.addaudithook(forbidden)
from importlib.resources import files
from lucency.cli import main
demo, out = str(files("lucency.phantom") / "demo.png"), sys.argv[1]
for line in (
    ["models"],
    ["explain", demo, "--model", "lucency:phantom", "--target", "effusion", "--set", "patch=64", "--out", out],
    ["explain", demo, "--method", "gradient"],
    ["evaluate", demo, out + "/explanation.lucency", "--model", "lucency:phantom", "--curves", "MoRF"],
):
    try:
        main(line)
    except SystemExit as end:
        assert not end.code, (line, end.code)
print("done")
"""


def test_explaining_needs_no_network(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), done.stderr
