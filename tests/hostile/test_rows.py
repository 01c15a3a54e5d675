"""The rows of the trust table: counted once, whatever is done to the file and by how many."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trust.__main__
from lucency.errors import OutputError
from trust import rows
from trust.__main__ import main
from trust.record import TrustRow
from trust.rows import all_tasks, appending, contestants, kept_rows, only

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    monkeypatch.setattr(rows, "_fingerprint", lambda _: "weights")
    return list(all_tasks(2, None, contestants("occlusion", "healthy,blur"), "blur", "probability", tmp_path))


KEY = ("what", "kind", "key", "method", "removal", "watch")


def row(task: Any, **other: Any) -> TrustRow:
    made = dict(zip(KEY, task.key, strict=True))
    prints = {"fingerprint": task.prints[0], "painter": task.prints[1]}
    return TrustRow(**{**made, **prints, "case": "c", "took": 1.0, "error": "No lungs.", **other})


def written(*rows: Any) -> list[bytes]:
    return [json.dumps(row.as_dict() if isinstance(row, TrustRow) else row).encode() for row in rows]


def test_a_row_is_counted_once_and_only_with_the_same_weights(tasks: list[Any], tmp_path: Path) -> None:
    healthy, blur = tasks[0], tasks[1]
    assert (bool(healthy.prints[1]), blur.prints[1]) == (True, "")
    # As it was written before there were classes, and painters.
    old = {**dict(zip(KEY, blur.key, strict=True)), "fingerprint": blur.prints[0]}
    old |= {"case": "c", "took": 1.0, "error": "No lungs."}
    lines = written(
        row(healthy),
        row(healthy, took=2.0),
        old,
        row(tasks[2], painter="other"),
        row(tasks[3], fingerprint="other"),
    )
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    kept, damaged = kept_rows(file, tasks)
    assert damaged == 0
    assert [(one.id, one.took, one.painter) for one in kept] == [
        (healthy.key, 1.0, healthy.prints[1]),
        (blur.key, 1.0, ""),
    ]


def test_damaged_lines_are_skipped_and_the_rest_stays(tasks: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = written(*(row(task) for task in tasks))
    damaged = [b"nonsense", b"[]", b"3", b"\xff\xfe", b"{}", good[2][:40], b'{"what": null}', b"[" * 100_000]
    file.write_bytes(b"\n".join([good[0], *damaged, b"", good[1], good[2][:50]]))
    assert kept_rows(file, tasks) == ([row(tasks[0]), row(tasks[1])], 9)
    before = file.read_bytes()
    with appending(file) as keep:
        keep(row(tasks[2]))
    assert file.read_bytes() == before + b"\n" + good[2] + b"\n"
    assert kept_rows(file, tasks)[0] == [row(task) for task in tasks[:3]]


def test_a_full_disk_says_so(tasks: list[Any], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no full device")
    with (
        pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"),
        appending(Path("/dev/full")) as keep,
    ):
        keep(row(tasks[0]))


def test_one_at_a_time_until_its_death(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    code = "import os, sys; from pathlib import Path; sys.path.append(sys.argv[2]); from trust.rows import only\n"
    code += "with only(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read(); os.kill(os.getpid(), 9)"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(BENCHMARKS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert main(["--out", str(folder), "--phantoms", "1", "--methods", "gradcam"]) == 3
    assert "Another trust benchmark is at work" in capsys.readouterr().err
    other.communicate("")
    with only(folder) as file:
        assert file == folder / "rows.jsonl"


def test_nothing_is_left_of_a_folder_that_was_made_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(trust.__main__, "appending", refused)
    assert main(["--out", str(tmp_path / "o"), "--phantoms", "1", "--methods", "gradcam"]) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_runs_as_a_command(tmp_path: Path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, str(BENCHMARKS / "trust"), "--out", str(place), "--methods", "gradcam", "--jobs", "2"]
    done = subprocess.run(
        [*command, "--removals", "constant", "--phantoms", "1"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 rows" in done.stdout
    assert len((place / "rows.jsonl").read_text().splitlines()) == 2
