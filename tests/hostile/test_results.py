"""Whatever happens to a run, by fault, by kill or by another run beside it: nobody's results are lost or mixed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from lucency import writing
from lucency.errors import OutputError
from lucency.writing import MANIFEST, manifest, results, stage, swept, whole


def run(folder: Path, of: str = "explain", **files: str) -> writing.Results:
    with results(folder, of) as found:
        for name, text in files.items():
            (found.place / name.replace("_", ".")).write_text(text)
    return found


def texts(folder: Path) -> dict[str, str]:
    return {f.name: f.read_text() for f in folder.iterdir() if f.name != MANIFEST}


def whole_set(folder: Path) -> None:
    """Everything that the manifest names lies there as it was written."""
    for files in manifest(folder).values():
        for name, digest in files.items():
            assert writing.digest_of(folder / name) == digest


def killed(code: str, *arguments: object) -> None:
    """Runs code in a process that ends by a signal that nothing can catch."""
    code = "import os, signal, sys\nfrom pathlib import Path\ndie = lambda *_: os.kill(os.getpid(), 9)\n" + code
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("a fault"), KeyboardInterrupt()]
)
def test_a_failing_run_takes_away_only_what_is_its_own(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "new" / "out"

    def fail(beside: bool) -> None:
        with results(folder, "explain") as found:
            (found.place / "a.txt").write_text("half")
            if beside:
                (folder / "mine.txt").write_text("the user's")
                run(folder, b_txt="another run's")
            raise error

    with pytest.raises((OutputError, type(error))):
        fail(beside=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises((OutputError, type(error))):
        fail(beside=True)
    assert texts(folder) == {"mine.txt": "the user's", "b.txt": "another run's"}


def test_a_run_replaces_its_predecessor_as_a_whole_and_says_so(tmp_path: Path) -> None:
    run(tmp_path, "phantom", scan_png="scan")
    (tmp_path / "notes.txt").write_text("the user's")
    run(tmp_path, report_html="1", animation_gif="1", edited_txt="1")
    (tmp_path / "edited.txt").write_text("changed by the user")
    found = run(tmp_path, report_html="2", animation_webp="2")
    assert (found.replaced, found.removed) == (["report.html"], ["animation.gif"])
    assert texts(tmp_path) == {
        "scan.png": "scan", "notes.txt": "the user's", "report.html": "2", "animation.webp": "2",
        "edited.txt": "changed by the user",
    }  # fmt: skip
    assert set(manifest(tmp_path)) == {"phantom", "explain"}
    whole_set(tmp_path)


@pytest.mark.parametrize("rubbish", ["", "[]", "{", '{"format": "lucency-results-1", "runs": {"explain": ["a"]}}'])
def test_a_manifest_that_is_none_harms_nobody(tmp_path: Path, rubbish: str) -> None:
    (tmp_path / MANIFEST).write_text(rubbish)
    run(tmp_path, a_txt="1")
    assert texts(tmp_path) == {"a.txt": "1"}
    assert set(manifest(tmp_path)) == {"explain"}


def test_a_manifest_reaches_nothing_outside_its_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    folder = tmp_path / "out"
    folder.mkdir()
    digest = writing.digest_of(victim)
    record = {"format": writing.FORMAT, "runs": {"explain": {"../victim.txt": digest}}}
    (folder / MANIFEST).write_text(json.dumps(record))
    assert run(folder, a_txt="1").removed == []
    assert victim.read_text() == "precious"


def test_a_folder_in_the_place_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "kept.txt").write_text("the user's")
    with pytest.raises(OutputError, match="is a folder, where a file is to be"):
        run(tmp_path, a_txt="1", report_html="2")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("at", range(5))
def test_a_fault_while_files_move_in_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    run(tmp_path, a_txt="1", b_txt="1", c_txt="1")
    before = texts(tmp_path)
    real, count = Path.replace, 0

    def failing(self: Path, to: Path) -> Path:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(5, "Input/output error")
        return real(self, to)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        run(tmp_path, a_txt="2", b_txt="2")
    assert texts(tmp_path) == before
    whole_set(tmp_path)


@pytest.mark.parametrize("at", range(7))
def test_a_kill_while_files_move_in_is_mended_by_the_next_run(tmp_path: Path, at: int) -> None:
    run(tmp_path, a_txt="1", b_txt="1", c_txt="1")
    killed(
        """
from lucency.writing import results
folder, at = Path(sys.argv[1]), int(sys.argv[2])
real, count = Path.replace, 0
def replace(self, to):
    global count
    count += 1
    if count == at + 1:
        die()
    return real(self, to)
with results(folder, "explain") as found:
    (found.place / "a.txt").write_text("2")
    (found.place / "b.txt").write_text("2")
    Path.replace = replace
die()
""",
        tmp_path,
        at,
    )
    assert len({*texts_of_files(tmp_path).values()}) <= 1, "files of two runs side by side"
    swept(tmp_path)
    assert texts(tmp_path) == {"a.txt": "2", "b.txt": "2"}
    whole_set(tmp_path)


def texts_of_files(folder: Path) -> dict[str, str]:
    return {f.name: f.read_text() for f in folder.iterdir() if f.is_file() and not f.name.startswith((".", MANIFEST))}


def test_the_stage_of_a_dead_run_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    killed(
        "from lucency.writing import stage\nwith stage(Path(sys.argv[1])) as p:\n    (p / 'a').touch()\n    die()",
        tmp_path,
    )
    assert len(list(tmp_path.iterdir())) == 2
    with stage(tmp_path) as living:
        (living / "mine").touch()
        assert len(list(tmp_path.glob(".lucency-*.lock"))) == 1
        # Another process sweeps.
        code = "import sys; from pathlib import Path; from lucency.writing import swept; swept(Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert (living / "mine").exists()
    assert list(tmp_path.iterdir()) == []


def test_runs_that_end_together_never_mix(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def one(i: int) -> None:
        start.wait()
        for _ in range(5):
            run(tmp_path, **{f"{name}_txt": str(i) for name in "abcd"}, **{f"only{i}_txt": str(i)})

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = texts(tmp_path)
    assert len(left) == 5
    assert len(set(left.values())) == 1
    whole_set(tmp_path)


def test_a_dead_commit_is_ended_before_another_begins(tmp_path: Path) -> None:
    """One that dies while another waits for the door is put in first, and then replaced as a whole."""
    run(tmp_path, a_txt="1", b_txt="1")
    with results(tmp_path, "explain") as found:
        (found.place / "a.txt").write_text("3")
        killed(
            "from lucency import writing\n"
            "real = Path.replace\n"
            "def replace(self, to):\n"
            "    real(self, to)\n"
            "    if self.name == 'a.txt' and self.parent.name == 'new': die()\n"
            "with writing.results(Path(sys.argv[1]), 'explain') as found:\n"
            "    (found.place / 'a.txt').write_text('2')\n"
            "    (found.place / 'b.txt').write_text('2')\n"
            "    Path.replace = replace\n",
            tmp_path,
        )
    assert texts(tmp_path) == {"a.txt": "3"}
    assert found.removed == ["b.txt"]
    whole_set(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "sub/" * 2000])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        run(tmp_path / name, a_txt="1")
    with pytest.raises(OutputError, match="cannot be written"), whole(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_a_whole_one_with_the_usual_permissions(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        with whole(tmp_path / "a.txt") as part:
            part.write_text("all of it")
            assert [p.name[:9] for p in tmp_path.iterdir()] == [".lucency-", ".lucency-"]
    finally:
        os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
    assert texts(tmp_path) == {"a.txt": "all of it"}


def test_a_lock_that_nobody_holds_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / ".lucency.lock").touch()
    lock = FileLock(tmp_path / ".lucency-held.lock")
    with lock:
        run(tmp_path, a_txt="1")
    assert texts(tmp_path).keys() == {"a.txt", ".lucency-held.lock"}
