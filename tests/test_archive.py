"""Whole archives: every film once, whatever happens on the way."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("fsspec", reason="fsspec is not installed")

import pyarrow as pa
from pyarrow import parquet

import archives
from archives import asked, film, films
from lucency.archive import Counts, Films, counts, run
from lucency.archive.manifest import batches, outdated, shards
from lucency.archive.place import Place
from lucency.archive.rows import FORMAT, digest_of, map_of
from lucency.cli import main
from lucency.errors import LucencyError, OutputError, ParameterError, ScanError
from lucency.reading.volume import is_volume

HERE = Path(__file__).parent


def rows(where: str | Path) -> list[dict[str, Any]]:
    """Every row that counts."""
    place = Place(where)
    gone = outdated(place)
    found = []
    for shard in shards(place):
        number = 0
        for batch in batches(place, shard):
            for row in batch.to_pylist():
                if (shard.name, number) not in gone:
                    found.append(row)
                number += 1
    return found


def test_a_folder_with_its_bad_films(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 4)
    (there / "deep").mkdir()
    film(there / "deep" / "x.png", 9)
    (there / "bad.png").write_bytes(b"no picture")
    (there / "empty.dcm").touch()
    (there / "gone.png").symlink_to(tmp_path / "nowhere")
    seen = []
    reached = run(Films(there), tmp_path / "out", asked(), workers=0, on_progress=seen.append)
    assert (reached.total, reached.done, reached.failed) == (7, 7, 2)
    assert (seen[0].done, seen[-1].done, seen[-1].left) == (0, 7, 0)
    assert counts(Place(tmp_path / "out"), check=True) == Counts(5, 0, 2)
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    assert set(found) == {"000.png", "001.png", "002.png", "003.png", "deep/x.png", "bad.png", "empty.dcm"}
    assert "damaged" in found["bad.png"]["error"]
    assert found["bad.png"]["map"] is None
    good = found["000.png"]
    assert good["target"] == "fluid"
    assert good["verdict"]
    assert json.loads(good["provenance"])["method"]["name"] == "occlusion"
    assert set(good["on"]) == {"outside", "border", "token", "device"}


def test_rows_of_another_version_are_neither_read_nor_added_to(tmp_path: Path) -> None:
    there, out = films(tmp_path / "in", 2), tmp_path / "out"
    run(Films(there), out, asked(), workers=0)
    head = out / "archive.json"
    head.write_text(head.read_text().replace(FORMAT, "lucency-archive-1"))
    for act in (lambda: run(Films(there), out, asked(), workers=0), lambda: counts(str(out))):
        with pytest.raises(OutputError, match="begun by another version of Lucency"):
            act()


def test_the_map_is_the_recipe_s_as_a_tensor(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 3)
    run(Films(there), tmp_path / "out", asked(), workers=0)
    (shard,) = (tmp_path / "out" / "shards").iterdir()
    table = parquet.read_table(shard)
    assert isinstance(table.schema.field("map").type, pa.FixedShapeTensorType)
    stacked = table["map"].combine_chunks().to_numpy_ndarray()
    assert stacked.shape == (3, archives.SIDE, archives.SIDE)
    assert stacked.dtype == np.float16
    answer = asked().explainer()(there / "001.png", "fluid")
    row = table.slice(1, 1).to_pylist()[0]
    found = stacked[1].astype(np.float32) * row["scale"]
    assert np.abs(found - answer.heatmap).max() <= 1e-3 * np.abs(answer.heatmap).max()
    assert row["digest"] == digest_of(map_of(stacked[1], stacked[1].shape))
    assert row["probability"] == pytest.approx(answer.probability)


def test_a_map_that_was_altered_is_found(tmp_path: Path) -> None:
    run(Films(films(tmp_path / "in", 2)), tmp_path / "out", asked(), workers=0)
    (shard,) = (tmp_path / "out" / "shards").iterdir()
    size = shard.stat().st_size
    table = parquet.read_table(shard)
    digests = ["0" * 64, table["digest"][1].as_py()]
    altered = table.set_column(table.column_names.index("digest"), "digest", pa.array(digests))
    for compression in ("zstd", "none"):
        parquet.write_table(altered, shard, compression=compression)
    data = shard.read_bytes()
    (line,) = (tmp_path / "out" / "manifest").iterdir()
    line.write_text(line.read_text().replace(str(size), str(len(data)), 1))
    assert counts(str(tmp_path / "out"), check=True).wrong == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_with_labels_and_truth(tmp_path: Path, kind: str) -> None:
    films(tmp_path / "in", 4)
    mask = np.zeros((archives.SIDE, archives.SIDE), np.uint8)
    mask[1:8, -8:-1] = 255
    Image.fromarray(mask).save(tmp_path / "truth.png")
    listed: list[dict[str, Any]] = [
        {"image": "in/000.png", "label": "1", "hospital": "a", "boxes": "[[40, 1, 7, 7]]", "mask": None},
        {"image": "in/001.png", "label": "0", "hospital": "b", "boxes": "0, 40, 8, 8", "mask": None},
        {"image": "in/002.png", "label": None, "hospital": None, "boxes": None, "mask": "truth.png"},
        {"image": "in/003.png", "label": None, "hospital": None, "boxes": "[]", "mask": None},
        {"image": "in/gone.png", "label": "1", "hospital": None, "boxes": None, "mask": None},
        {"image": "in/000.png", "label": "1", "hospital": "a", "boxes": None, "mask": None},
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(listed[0]))
            writer.writeheader()
            writer.writerows(listed)
    else:
        parquet.write_table(pa.Table.from_pylist(listed), path)
    there = Films(path, {"path": "image", "site": "hospital"})
    reached = run(there, tmp_path / "out", asked(), workers=0)
    assert (reached.total, reached.done, reached.failed) == (6, 6, 1)
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    assert len(found) == 5
    assert [found[f"in/00{i}.png"]["label"] for i in range(4)] == ["1", "0", None, None]
    assert [found[f"in/00{i}.png"]["site"] for i in range(2)] == ["a", "b"]
    assert found["in/000.png"]["pointing_game"] is True
    assert found["in/000.png"]["energy"] > 10 * found["in/001.png"]["energy"]
    assert found["in/002.png"]["pointing_game"] is True
    assert found["in/003.png"]["pointing_game"] is None


@pytest.mark.parametrize(
    ("text", "columns", "kind"),
    [
        ("image\nx.png\n", {}, ParameterError),
        ("path\nx.png\n", {"site": "hospital"}, ParameterError),
        ("path\nx.png\n", {"colour": "path"}, ParameterError),
        ("path,boxes\nx.png,1;2\n", {}, ParameterError),
        ("path,label\n,1\n", {}, ScanError),
        ("path\n", {}, ScanError),
    ],
)
def test_lists_that_say_nothing(tmp_path: Path, text: str, columns: dict[str, str], kind: type[LucencyError]) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(kind):
        Films(tmp_path / "list.csv", columns)


def test_a_glob_and_a_folder_list_nothing_hidden(tmp_path: Path) -> None:
    films(tmp_path / "in" / "a", 2)
    film(tmp_path / "in" / ".hidden" / "x.png", 1)
    film(tmp_path / "in" / ".x.png", 1)
    assert [f.name for f in Films(tmp_path / "in")] == [f"a{os.sep}000.png", f"a{os.sep}001.png"]
    assert sorted(f.name for f in Films(f"{tmp_path}/in/**/*.png")) == [f"a{os.sep}000.png", f"a{os.sep}001.png"]
    assert len(Films(tmp_path / "in" / "a" / "000.png")) == 1


def test_the_same_bytes_are_explained_once(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 2)
    shutil.copy(there / "000.png", there / "zcopy.png")
    reached = run(Films(there), tmp_path / "out", asked(), workers=0)
    assert reached.done == 3
    assert counts(str(tmp_path / "out")) == Counts(2, 1, 0)
    # A new date is no new film, and a new film under an old name is one.
    os.utime(there / "001.png", (1, 1))
    film(there / "zcopy.png", 77)
    run(Films(there), tmp_path / "out", asked(), workers=0)
    assert counts(str(tmp_path / "out")) == Counts(3, 1, 0)
    assert len({row["content"] for row in rows(tmp_path / "out") if not row["same"]}) == 3


def test_it_goes_on_after_a_stop_and_does_nothing_twice(tmp_path: Path) -> None:
    there, out = films(tmp_path / "in", 6), tmp_path / "out"
    stop = threading.Event()
    reached = run(
        Films(there), out, asked(), workers=0, cancel=stop, on_progress=lambda p: stop.set() if p.done == 2 else None
    )
    assert 2 <= reached.done < 6
    (there / "bad.png").write_bytes(b"no picture")
    again = run(Films(there), out, asked(), workers=0)
    assert (again.before, again.done) == (reached.done, 7)
    written = sorted((out / "shards").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        # What has not changed is not even read.
        patch.setattr("lucency.archive.explaining.content_of", lambda path: pytest.fail(path))
        assert run(Films(there), out, asked(), workers=0).before == 7
    assert sorted((out / "shards").iterdir()) == written
    # What could not be explained is tried again when somebody asks, and its row gives way.
    film(there / "bad.png", 99)
    run(Films(there), out, asked(), workers=0, again=True)
    assert counts(str(out)) == Counts(7, 0, 0)
    assert len(rows(out)) == 7


def test_a_shard_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    there, out = films(tmp_path / "in", 3), tmp_path / "out"
    run(Films(there), out, asked(), workers=0)
    (line,) = (out / "manifest").iterdir()
    for cut in (line.read_text()[:-9], ""):
        line.write_text(cut)
        assert counts(str(out)) == Counts(0, 0, 0)
    (out / "shards" / "half.parquet").write_bytes(b"PAR1")
    run(Films(there), out, asked(), workers=0)
    assert counts(str(out)) == Counts(3, 0, 0)
    assert len(list((out / "shards").iterdir())) == 1


def test_one_place_holds_the_answers_to_one_question(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 1)
    run(Films(there), tmp_path / "out", asked(), workers=0)
    with pytest.raises(OutputError, match=r"another question .*target fluid, not other"):
        run(Films(there), tmp_path / "out", asked(target="other"), workers=0)
    with pytest.raises(OutputError, match="other parameters of the method"):
        run(Films(there), tmp_path / "out", asked(settings=("patch=8",)), workers=0)
    with pytest.raises(OutputError, match="holds no results"):
        counts(str(tmp_path / "in"))


def test_a_place_is_held_by_one_run(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 1)
    with Place(tmp_path / "out").held(), pytest.raises(OutputError, match="Another run writes"):
        run(Films(there), tmp_path / "out", asked(), workers=0)


@pytest.fixture
def remote() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    name = f"memory://archive-{os.getpid()}"
    yield name
    fsspec.filesystem("memory").rm(name, recursive=True)


def test_on_an_object_store_a_manifest_commits(tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = films(tmp_path / "in", 5)
    monkeypatch.setattr("lucency.archive.running.ROWS", 2)
    write = Place.write

    def lost(self: Place, name: str, data: bytes) -> None:
        if name.startswith("manifest/00000001"):
            raise OutputError("The store is gone.")
        write(self, name, data)

    monkeypatch.setattr(Place, "write", lost)
    with pytest.raises(OutputError):
        run(Films(there), remote, asked(), workers=0)
    monkeypatch.setattr(Place, "write", write)
    assert counts(remote) == Counts(2, 0, 0)
    run(Films(there), remote, asked(), workers=0)
    assert counts(remote, check=True) == Counts(5, 0, 0)
    assert len(Place(remote).names("shards")) == len(list(shards(Place(remote))))
    assert len(rows(remote)) == 5


def test_a_local_url_is_a_folder(tmp_path: Path) -> None:
    run(Films(films(tmp_path / "in", 1)), (tmp_path / "out").as_uri(), asked(), workers=0)
    assert counts(str(tmp_path / "out")) == Counts(1, 0, 0)


@pytest.mark.parametrize("where", ["nosuch://x/y", "s3://nowhere", "/dev/null/x", "a\0b"])
def test_places_that_are_none(tmp_path: Path, where: str) -> None:
    with pytest.raises(LucencyError):
        run(Films(films(tmp_path / "in", 1)), where, asked(), workers=0)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, out = films(tmp_path / "in", 6), tmp_path / "out"
    monkeypatch.setattr("lucency.archive.running.ROWS", 2)
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name.startswith("00000001"):
            real(self, data[:100])
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        run(Films(there), out, asked(), workers=0)
    monkeypatch.setattr(Path, "write_bytes", real)
    assert counts(str(out)) == Counts(2, 0, 0)
    run(Films(there), out, asked(), workers=0)
    assert counts(str(out), check=True) == Counts(6, 0, 0)


def test_names_are_kept_as_hashes(tmp_path: Path) -> None:
    there = films(tmp_path / "mrs-jones", 1)
    (there / "jones.png").write_bytes(b"no picture")
    run(Films(there), tmp_path / "out", asked(anonymous=True), workers=0)
    for row in rows(tmp_path / "out"):
        assert "jones" not in str(row)
        assert "000.png" not in str(row)
    assert b"jones" not in b"".join(f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file())


def test_a_film_that_kills_costs_one_row(tmp_path: Path) -> None:
    there = films(tmp_path / "in", 5)
    film(there / "002.png", 2, archives.POISON)
    run(Films(there), tmp_path / "out", asked(archives.deadly), workers=1)
    assert counts(str(tmp_path / "out"), check=True) == Counts(4, 0, 1)
    (bad,) = (row for row in rows(tmp_path / "out") if row["error"])
    assert bad["path"] == "002.png"
    assert "killed by SIGKILL" in bad["error"]


def killed_and_resumed(tmp_path: Path, ray: str) -> None:
    """A run in a process of its own is killed in the middle, and another one goes on."""
    there, out = films(tmp_path / "in", 30), tmp_path / "out"
    script = (
        "import sys, archives, lucency.archive.running as r\n"
        "from lucency.archive import Films\n"
        "if __name__ == '__main__':\n"
        "    r.ROWS = 4\n"
        f"    r.run(Films({str(there)!r}), {str(out)!r}, archives.asked(archives.deadly), workers=1, ray={ray})\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": path, "SLOWLY": "0.02"},
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while len(list((out / "manifest").glob("*.jsonl"))) < 2 and time.monotonic() < until:
            time.sleep(0.02)
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = counts(str(out)).done
    assert 8 <= before < 30
    reached = run(Films(there), out, asked(archives.deadly), workers=0)
    assert (reached.before, reached.done) == (before, 30)
    assert counts(str(out), check=True) == Counts(30, 0, 0)
    found = rows(out)
    assert len(found) == len({row["content"] for row in found}) == 30


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, "None")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: archives.corner())
    there, out = films(tmp_path / "in", 2), str(tmp_path / "out")

    def said(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["archive", *arguments])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    line = ["run", str(there), "--method", "occlusion", "--set", "patch=16", "--removal", "constant", "--workers", "0"]
    code, text, error = said(*line, "--out", out)
    assert (code, error) == (0, "")
    assert text.startswith("2 of 2 films, ")
    assert said(*line, "--out", out)[1].startswith("2 of 2 films (2 by earlier runs)")
    assert said("status", out, "--check")[1] == "2 films explained, 0 not explained; every map is what was written\n"
    assert json.loads(said("status", out, "--json")[1])["done"] == 2
    code, _, error = said(*line, "--target", "other", "--out", out)
    assert (code, error.count("\n")) == (3, 1)
    assert said("run", str(tmp_path / "none"), "--out", out)[0] == 2
    assert said(*line, "--column", "site", "--out", out)[0] == 2


def test_a_folder_or_a_glob_is_explained_with_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: archives.corner())
    there, out = films(tmp_path / "in", 2), tmp_path / "out"
    (there / "bad.png").write_bytes(b"no picture")
    shutil.copy(there / "000.png", there / "zcopy.png")
    line = ["--method", "occlusion", "--set", "patch=16", "--removal", "constant", "--target", "fluid"]
    many = [*line, "--workers", "0", "--out", str(out)]

    def said(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["explain", *arguments])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    code, text, error = said(str(there), *many)
    assert (code, error) == (0, "")
    assert text.startswith("4 of 4 films, 1 not explained")
    page = (out / "index.html").read_text()
    links = re.findall(r'href="(films/[^"]+)"', page)
    assert len(links) == 2
    for link in links:
        assert (out / link).is_file()
        names = {"heatmap.npy", "explanation.lucency", "overlay.png", "animation.gif", "report.html", "lucency.json"}
        assert {file.name for file in (out / link).parent.iterdir()} == names
    assert "bad.png" in page
    assert str(tmp_path) not in page
    assert "1 with the same bytes" in page
    assert said(f"{there}/00*.png", *many)[1].startswith("2 of 2 films (2 by")
    # What is kept is what the command leaves for the film alone.
    alone = tmp_path / "alone"
    assert said(str(there / "000.png"), *line, "--out", str(alone))[0] == 0
    kept = next(path for path in (out / "films").iterdir() if path.name.startswith("000"))
    assert np.array_equal(np.load(alone / "heatmap.npy"), np.load(kept / "heatmap.npy"))
    code, _, error = said(str(there))
    assert (code, error.count("\n")) == (2, 1)
    assert "--out" in error


@pytest.mark.parametrize(("modality", "volume"), [("DX", False), ("CT", True)])
def test_films_of_one_series_are_no_volume(tmp_path: Path, modality: str, volume: bool) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    from radiographs import film as radiograph

    for number in (1, 2):
        radiograph(tmp_path / f"{number}.dcm", Modality=modality, SOPInstanceUID=f"1.2.3.{number}")
    assert is_volume(tmp_path) == volume
    (tmp_path / "2.dcm").unlink()
    assert is_volume(tmp_path)
    assert not is_volume(films(tmp_path / "pictures", 1))


def test_ray_gives_the_same_and_goes_on_from_the_same_manifest(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    there, out = films(tmp_path / "in", 8), tmp_path / "out"
    film(there / "002.png", 2, archives.POISON)
    (there / "bad.png").write_bytes(b"no picture")
    stop = threading.Event()
    run(Films(there), out, asked(archives.deadly), workers=0, cancel=stop, on_progress=lambda p: p.done and stop.set())
    before = counts(str(out)).done
    assert 0 < before < 8
    script = (
        "import archives, lucency.archive.running as r\n"
        "from lucency.archive import Films\n"
        "if __name__ == '__main__':\n"
        "    r.TRIES = 1\n"
        f"    r.run(Films({str(there)!r}), {str(out)!r}, archives.asked(archives.deadly), workers=1, ray='auto',\n"
        "        worker_memory=0.25)\n"
    )
    (tmp_path / "script.py").write_text(script)
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert counts(str(out), check=True) == Counts(7, 0, 2)
    assert len(rows(out)) == 9
    assert sum("died over it" in (row["error"] or "") for row in rows(out)) == 1
    alone = tmp_path / "alone"
    (there / "002.png").unlink()
    run(Films(there), alone, asked(archives.deadly), workers=0)
    one, other = ({row["path"]: row["digest"] for row in rows(where) if row["digest"]} for where in (out, alone))
    assert one == other


def test_a_node_of_ray_that_is_killed_loses_no_film_and_repeats_none(tmp_path: Path) -> None:
    """Two nodes with a processor each. Of one the raylet and all that it runs are killed at once, while it works."""
    pytest.importorskip("ray", reason="Ray is not installed")
    there, out, seen = films(tmp_path / "in", 40), tmp_path / "out", tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "script.py").write_text(
        TWO_NODES.format(seen=str(seen), there=str(there), out=str(out), said=str(tmp_path / "said.json"))
    )
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["alive"] == [2, 1]
    assert said["killed"] > 1
    assert said["left"] == 0
    assert 0 < said["at"] < 40
    assert counts(str(out), check=True) == Counts(40, 0, 0)
    found = rows(out)
    assert len(found) == len({row["content"] for row in found}) == 40


TWO_NODES = """
import json, os, psutil, time
os.environ["RAY_USAGE_STATS_ENABLED"] = os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import archives
from lucency.archive import Films, run

def model():
    import ray, torch
    node = ray.get_runtime_context().get_node_id()
    class Seen(archives.Corner):
        def forward(self, x):
            open(os.path.join({seen!r}, node), "a").close()
            return super().forward(x)
    return archives._classifier(Seen())

if __name__ == "__main__":
    import ray
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    alive = lambda: sum(node["Alive"] for node in ray.nodes())
    said = {{"alive": [alive()]}}

    def told(progress):
        worked = second.node_id in os.listdir({seen!r})
        if progress.done and worked and "at" not in said:
            raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
            node = [*raylet.children(recursive=True), raylet]
            for process in node:
                process.kill()
            psutil.wait_procs(node, 30)
            cluster.remove_node(second, allow_graceful=False)
            said.update(at=progress.done, killed=len(node), left=sum(process.is_running() for process in node))

    run(Films({there!r}), {out!r}, archives.asked(model), workers=2, ray=cluster.address, worker_memory=0.25,
        on_progress=told)
    until = time.monotonic() + 60
    while alive() > 1 and time.monotonic() < until:
        time.sleep(0.2)
    said["alive"].append(alive())
    with open({said!r}, "w") as file:
        json.dump(said, file)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_dicomweb_query_is_fetched_film_by_film(tmp_path: Path) -> None:
    pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    from orthanc import PLUGIN, Orthanc

    if shutil.which("Orthanc") is None or PLUGIN is None:
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    from lucency.archive.query import Query
    from lucency.pacs import Access
    from radiographs import film as radiograph

    with Orthanc(tmp_path / "orthanc") as pacs:
        for number in range(3):
            values = np.random.default_rng(number).integers(0, 4000, (64, 80)).astype(np.uint16)
            sent = radiograph(
                tmp_path / "x.dcm", values, SOPInstanceUID=f"1.2.3.{number}", PatientID=str(number % 2),
                SeriesInstanceUID=f"1.2.4.{number}", Modality="DX" if number < 2 else "CR",
            )  # fmt: skip
            httpx.post(f"http://127.0.0.1:{pacs.web}/instances", content=sent.read_bytes(), trust_env=False)
        films = Query(f"{pacs.url}?Modality=DX", Access())
        assert sorted(film.name for film in films) == ["1.2.3.0", "1.2.3.1"]
        assert {film.patient for film in films}.isdisjoint({"0", "1"})
        stop = threading.Event()
        run(films, tmp_path / "out", asked(), workers=0, cancel=stop, on_progress=lambda p: p.done and stop.set())
        assert run(films, tmp_path / "out", asked(), workers=0).before >= 1
        assert counts(str(tmp_path / "out"), check=True) == Counts(2, 0, 0)
        # One that is gone is a row; an archive that is away is a stop.
        wider = Query(pacs.url, Access())
        assert run(wider, tmp_path / "out", asked(), workers=0).done == 3
        with pytest.raises(ScanError, match="finds nothing"):
            Query(f"{pacs.url}?Modality=MG", Access())
        gone = [*films]
    with pytest.raises(LucencyError, match="goes on from here"):
        run(gone, tmp_path / "again", asked(), workers=0)
