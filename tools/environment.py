"""Makes the project's ``.venv`` what a lock file says, and does nothing when it is that already.

    python tools/environment.py demo|test|docs [--index URL]

Needs nothing but Python. The environment is built anew when it is broken, was moved, or belongs to another Python.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TORCH = ROOT / "requirements" / "torch.txt"
OLDEST = (3, 11)


def interpreter():
    folder, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return VENV / folder / name


def healthy():
    """Whether the environment's Python starts, is this version, and imports this very checkout."""
    ask = (
        "import importlib.util, os, sys, pip; "
        "print(sys.version_info[:2], os.path.realpath(importlib.util.find_spec('lucency').origin))"
    )
    try:
        answer = subprocess.run([str(interpreter()), "-c", ask], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.strip() == f"{sys.version_info[:2]} {ROOT / 'src' / 'lucency' / '__init__.py'}"


def fingerprint(lock):
    parts = [lock.read_bytes(), TORCH.read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pip(*arguments):
    done = subprocess.run([str(interpreter()), "-m", "pip", "--disable-pip-version-check", *arguments])
    if done.returncode:
        sys.exit("Installing failed, see the lines above; once the cause is mended, run the same command again.")


def main():
    if sys.version_info < OLDEST:
        sys.exit("Lucency needs Python 3.11 or newer and this is {}.{}.".format(*sys.version_info[:2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["demo", "test", "docs"])
    parser.add_argument("--index", default="", help="one more package index, for another build of PyTorch")
    options = parser.parse_args()

    lock = ROOT / "requirements" / (options.what + ".txt")
    stamp = VENV / (options.what + ".sha256")
    if VENV.exists() and any(VENV.glob("*.sha256")) and not healthy():
        print("The environment in .venv does not work here any more; it is built anew.", flush=True)
        shutil.rmtree(str(VENV))
    if stamp.exists() and stamp.read_text() == fingerprint(lock):
        return
    if not interpreter().exists():
        shutil.rmtree(str(VENV), ignore_errors=True)
        print("Setting up .venv with Python {}.{} ...".format(*sys.version_info[:2]), flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)])
        if made.returncode:
            shutil.rmtree(str(VENV), ignore_errors=True)
            sys.exit("Python could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv.")
    print(f"Installing what {lock.relative_to(ROOT)} pins ...", flush=True)
    index = ["--extra-index-url", options.index] if options.index else []
    # Every file is checked against its hash, and what is pinned is all there is. PyTorch's builds differ by machine;
    # what it needs besides is there already.
    pip("install", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(lock))
    pip("install", "--quiet", *index, "--requirement", str(TORCH))
    pip("install", "--quiet", "--no-deps", "--editable", str(ROOT))
    stamp.write_text(fingerprint(lock))


if __name__ == "__main__":
    main()
