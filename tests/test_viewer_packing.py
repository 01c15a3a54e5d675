"""Packed arrays: Python and the browser's module read each other's bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lucency.errors import OutputError, ParameterError
from lucency.viewer import pack, unpack

STATIC = Path(__file__).resolve().parent.parent / "src" / "lucency" / "viewer" / "static"
HEADER = {"title": "Pleura-Erguß α \udcff", "nested": {"list": [1, 2.5, None, True]}, "missing": float("nan")}


def arrays() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "film": rng.integers(0, 65536, (3, 5), dtype=np.uint16),
        "odd": rng.integers(0, 256, 7, dtype=np.uint8),
        "map": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "none": np.zeros((0, 4), np.float32),
    }


def same(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> bool:
    return list(found) == list(wanted) and all(
        found[k].dtype == wanted[k].dtype and np.array_equal(found[k], wanted[k]) for k in wanted
    )


def test_what_is_packed_comes_back() -> None:
    data = pack(HEADER, arrays())
    header, found = unpack(data)
    assert header == {**HEADER, "missing": None}
    assert same(found, arrays())
    assert len(data) % 4 == 0
    assert int.from_bytes(data[:4], "little") % 4 == 0


def test_layout_and_byte_order_of_the_arrays_do_not_matter() -> None:
    plain = arrays()["film"]
    for other in (np.asfortranarray(plain), plain.astype(">u2"), np.repeat(plain, 2, 1)[:, ::2]):
        assert pack({}, {"film": other}) == pack({}, {"film": plain})


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ParameterError, match="float64"):
        pack({}, {"map": np.zeros(3)})
    with pytest.raises(ParameterError, match="arrays"):
        pack({"arrays": []}, {})


def test_damaged_bytes_are_refused() -> None:
    data = pack(HEADER, arrays())
    listed = json.dumps({"arrays": [{"name": "a", "dtype": "float32", "shape": [-1]}]}).encode()
    foreign = [
        b"", b"abc", data[:-1], data + b"\0\0\0\0", data[:20], b"\xff\xff\xff\xff" + data[4:], b"\x04\0\0\0null",
        len(listed).to_bytes(4, "little") + listed,
    ]  # fmt: skip
    for wrong in foreign:
        with pytest.raises(OutputError):
            unpack(wrong)


def node(script: str, data: bytes = b"") -> bytes:
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    head = f"import {{ pack, unpack }} from {json.dumps((STATIC / 'packing.js').as_uri())};\n"
    head += "import { readFileSync, writeSync } from 'node:fs';\nconst given = readFileSync(0);\n"
    head += "const buffer = given.buffer.slice(given.byteOffset, given.byteOffset + given.length);\n"
    done = subprocess.run(
        [program, "--input-type=module", "-e", head + script], input=data, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_the_browser_reads_what_python_packs_and_the_other_way_round() -> None:
    back = node(
        "const { header, arrays } = unpack(buffer);\n"
        "if (!Object.values(arrays).every((a) => a.data.buffer === buffer)) throw new Error('copied');\n"
        "const bytes = new Uint8Array(pack(header, arrays));\n"
        "for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);",
        pack(HEADER, arrays()),
    )
    header, found = unpack(back)
    assert header == {**HEADER, "missing": None}
    assert same(found, arrays())


def test_the_browser_refuses_damaged_bytes() -> None:
    said = node(
        "const tries = [buffer.slice(0, -4), buffer.slice(0, 2), buffer.slice(4), new ArrayBuffer(0),\n"
        "  new Uint8Array([4, 0, 0, 0, 110, 117, 108, 108]).buffer];\n"
        "for (const wrong of tries) {\n"
        "  try { unpack(wrong); console.log('read'); } catch (e) { console.log(e instanceof RangeError); }\n"
        "}",
        pack(HEADER, arrays()),
    )
    assert said.split() == [b"true"] * 5
