"""The rows of benchmark-trust: counted once, whatever is done to the file and by how many."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import said, spoken

from lucency.cli import benchmark_trust
from lucency.cli.benchmark_trust import KEY, _kept, _only, _opened, _tasks, contestants
from lucency.errors import OutputError


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    monkeypatch.setattr(benchmark_trust, "_fingerprint", lambda _: "weights")
    return list(_tasks(2, None, contestants("occlusion", "healthy,blur"), "blur", "probability", tmp_path))


def row(task: Any, **other: Any) -> dict[str, Any]:
    made = dict(zip(KEY, task.key, strict=True))
    return {**made, "fingerprint": task.prints[0], "painter": task.prints[1], "case": "c", "took": 1.0, **other}


def test_a_row_is_counted_once_and_only_with_the_same_weights(tasks: list[Any], tmp_path: Path) -> None:
    healthy, blur = tasks[0], tasks[1]
    assert (bool(healthy.prints[1]), blur.prints[1]) == (True, "")
    old = row(blur)
    del old["painter"]
    lines = [
        row(healthy),
        row(healthy, took=2.0),
        old,
        row(tasks[2], painter="other"),
        row(tasks[3], fingerprint="other"),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _kept(file, tasks) == ([row(healthy), old], 0)


def test_damaged_lines_are_skipped_and_the_rest_stays(tasks: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = [json.dumps(row(task)).encode() for task in tasks]
    damaged = [b"nonsense", b"[]", b"3", b"\xff\xfe", b"{}", good[2][:40], b'{"what": null}', b"[" * 100_000]
    file.write_bytes(b"\n".join([good[0], *damaged, b"", good[1], good[2][:50]]))
    assert _kept(file, tasks) == ([row(tasks[0]), row(tasks[1])], 9)
    before = file.read_bytes()
    with _opened(file) as keep:
        keep(row(tasks[2]))
    assert file.read_bytes() == before + b"\n" + good[2] + b"\n"
    assert _kept(file, tasks)[0] == [row(task) for task in tasks[:3]]


def test_a_full_disk_says_so(tasks: list[Any], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no full device")
    with (
        pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"),
        _opened(Path("/dev/full")) as keep,
    ):
        keep(row(tasks[0]))


def test_one_at_a_time_until_its_death(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code = "import os, sys; from pathlib import Path; from lucency.cli.benchmark_trust import _only\n"
    code += "with _only(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    code, _, err = spoken(["benchmark-trust", "--out", str(folder), "--phantoms", "1", "--methods", "gradcam"])  # type: ignore[assignment]
    assert code == 3
    assert "Another benchmark-trust is at work" in err
    other.communicate("")
    with _only(folder) as file:
        assert file == folder / "rows.jsonl"


def test_nothing_is_left_of_a_folder_that_was_made_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(benchmark_trust, "_opened", refused)
    said(["benchmark-trust", "--out", str(tmp_path / "o"), "--phantoms", "1", "--methods", "gradcam"], codes=(3,))
    assert list(tmp_path.iterdir()) == []
