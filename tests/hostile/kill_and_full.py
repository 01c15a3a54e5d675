"""Kills and full disks over every command that writes: whatever happens, what was there is there, and nothing is half.

    python tests/hostile/kill_and_full.py [HOW MANY OF EACH] [SEED] [COMMAND ...]

Each round lets a command write into a folder that holds a user's file and the results of an earlier run, and kills it
at a random moment, or lets the disk be full after a random number of bytes. Afterwards the user's file is untouched;
what lies in the folder is whole and of one run; the next run succeeds and leaves nothing else behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from commands import clinic, every_command, examined, scan

from lucency.writing import MANIFEST, digest_of, manifest, swept

WRITERS = {name.split(",")[0]: line for name, line in every_command(Path("FILM"), "OUT").items()}
del WRITERS["archive"]  # which keeps what it has written, and goes on: tests/test_archive.py


def child(arguments: list[str], after_bytes: int | None, log: Path) -> int:
    """Runs a command in a copy of this process, where everything is loaded already; gives the process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if after_bytes is not None:
            fill_up(after_bytes)
        from lucency.cli import main

        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def fill_up(left: int) -> None:
    """Lets every write to a file fail once so many bytes went to files, as on a full disk, also from NumPy and zlib."""
    import builtins
    import io

    def taken(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.FileIO):
        def write(self, data: object) -> int:
            taken(memoryview(data).nbytes)  # type: ignore[arg-type]
            return super().write(data)  # type: ignore[arg-type]

    real = io.open

    def opened(file: object, mode: str = "r", buffering: int = -1, *rest: object, **named: object) -> object:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, buffering, *rest, **named)  # type: ignore[call-overload]
        raw = Full(file, mode.replace("b", "").replace("t", ""))  # type: ignore[arg-type]
        if buffering == 0:
            return raw
        both = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return both if "b" in mode else io.TextIOWrapper(both, *rest, **named)  # type: ignore[arg-type]

    builtins.open = io.open = opened  # type: ignore[assignment]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 64 MB at ``folder``, where this process may mount one."""
    made = sys.platform == "linux" and os.geteuid() == 0
    made = (
        made
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def nearly_full(disk: Path, left: int) -> Iterator[None]:
    """So many bytes are left on it."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        ballast.unlink()


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def seen(folder: Path) -> dict[str, int]:
    """The files that a user sees in a folder, and which file of the disk each is: two runs may write the same bytes."""
    return {f.name: f.stat().st_ino for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")}


def faults(folder: Path, before: dict[str, int], leftovers: bool) -> list[str]:
    """What is wrong about a folder after a run; ``before`` is what was :func:`seen` there."""
    found = []
    if (folder / "user.txt").read_text() != "the user's":
        found.append("the user's file")
    visible = seen(folder)
    if MANIFEST in visible:
        for files in manifest(folder).values():
            found += [
                f"{name} is not what was written"
                for name, digest in files.items()
                if name not in visible or digest_of(folder / name) != digest
            ]
    elif not leftovers:
        found.append("no manifest")
    else:
        # It was killed while files moved in: those there are of one run.
        visible.pop("user.txt")
        old = {name for name, file in visible.items() if before.get(name) == file}
        new = set(visible) - old
        if old and new:
            found.append(f"files of two runs: {sorted(old)} and {sorted(new)}")
    if not leftovers:
        hidden = {f.name for f in folder.iterdir() if f.name.startswith(".")}
        found += [f"left behind: {sorted(hidden)}"] if hidden else []
    return found


def one(
    what: str, how: str, place: Path, disk: Path, mounted: bool, random: np.random.Generator, lasts: dict[str, float]
) -> tuple[str, list[str]]:
    """One round; how it ended, and what is wrong."""
    film, out, log = scan(place / "in" / "film.png"), disk / f"out-{what}", place / "log.txt"
    names = {"FILM": str(film), "OUT": str(out), ".": str(film.parent)}
    names |= {str(end(clinic(Path("FILM")))): str(end(clinic(film))) for end in (Path, lambda p: p.with_suffix(".dcm"))}
    if what == "dicom":
        examined(film)
    arguments = [names.get(word, word) for word in WRITERS[what]]
    out.mkdir(exist_ok=True)
    (out / "user.txt").write_text("the user's")
    if not (out / MANIFEST).exists():
        started = time.monotonic()
        if code := ended(child(arguments, None, log)):
            return "failed", [f"the first run: {code}, {log.read_text()[-300:]}"]
        lasts[what] = time.monotonic() - started
    swept(out)  # what a kill before had left halfway
    before, content = seen(out), {f.name: digest_of(f) for f in out.iterdir() if f.is_file()}
    again = [*arguments, "--json"]
    if how == "kill":
        process = child(again, None, log)
        # Most of the moments of the run, and more of those near its end, where files move in.
        time.sleep(lasts[what] * float(random.choice([random.uniform(0, 1.05), random.uniform(0.7, 1.05)])))
        os.kill(process, 9)
        code = ended(process)
        outcome = "killed" if code == -9 else "was done"
        wrong = [] if code in (-9, 0) else [f"exit code {code}: {log.read_text()[-300:]}"]
        wrong += faults(out, before, leftovers=code == -9)
    else:
        size = sum(f.stat().st_size for f in out.iterdir() if f.is_file())
        left = int(random.uniform(0, 1.2 * size))
        with nearly_full(disk, left) if mounted else contextlib.nullcontext():
            code = ended(child(again, None if mounted else left, log))
        text = log.read_text()
        outcome = "full" if code == 3 else "was done"
        wrong = [] if code in (0, 3) else [f"exit code {code}: {text[-300:]}"]
        if code == 3 and "No space left" not in text:
            wrong.append(f"it does not say so: {text[-300:]}")
        wrong += faults(out, before, leftovers=False)
        if code == 3 and content != {f.name: digest_of(f) for f in out.iterdir() if f.is_file()}:
            wrong.append("a run that failed changed something")
    if outcome == "killed" and random.random() < 0.3:
        if code := ended(child(again, None, log)):
            wrong.append(f"the next run: {code}, {log.read_text()[-300:]}")
        wrong += faults(out, before, leftovers=False)
    return outcome, wrong


def rounds(count: int, seed: int, seconds: float = float("inf"), only: tuple[str, ...] = tuple(WRITERS)) -> int:
    """So many kills and full disks, spread over the commands; how many left something wrong."""
    # Loaded before the fork, so that a child takes only the time of its work.
    from commands import classifier

    import lucency.checks.verdict
    import lucency.cli.app
    import lucency.cli.model
    import lucency.dicom.objects
    import lucency.metrics
    import lucency.phantom
    import lucency.render.curves

    lucency.cli.model.load_classifier = lambda *_, **__: classifier(["a", "b"])  # type: ignore[assignment]
    random, outcomes, wrong = np.random.default_rng(seed), Counter[str](), 0
    until = time.monotonic() + seconds
    lasts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        place, disk = Path(folder), Path(folder) / "disk"
        disk.mkdir()
        mounted = held.enter_context(small_disk(disk))
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")
        for i in range(2 * count):
            if time.monotonic() > until:
                break
            what, how = only[i // 2 % len(only)], ("kill", "full")[i % 2]
            outcome, found = one(what, how, place, disk, mounted, random, lasts)
            outcomes[f"{how}: {outcome}"] += 1
            for fault in found:
                print(f"{what}, {how}: {fault}")
            wrong += bool(found)
    print(
        json.dumps(
            {
                "campaign": "kills and full disks",
                "seed": seed,
                "disk": "mounted" if mounted else "played",
                **outcomes,
                "wrong": wrong,
            }
        )
    )
    return wrong


if __name__ == "__main__":
    import warnings

    sys.path.append(str(Path(__file__).parents[1]))

    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    numbers = [int(n) for n in sys.argv[1:] if n.isdigit()]
    names = tuple(n for n in sys.argv[1:] if not n.isdigit()) or tuple(WRITERS)
    sys.exit(min(1, rounds(numbers[0] if numbers else 100, numbers[1] if len(numbers) > 1 else 0, only=names)))
