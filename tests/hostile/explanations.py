"""Explanation files, good ones and such as somebody with a hex editor, or with worse intentions, would make."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lucency import Explanation, Scan
from lucency.methods.occlusion import Occlusion
from lucency.recipe import explain
from nets import Window, classifier_of

SHAPE = (12, 10)


def explanation() -> Explanation:
    scan = Scan(torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0)), spacing=(0.5, 0.5))
    return explain(scan, classifier_of(Window((2, 6), (3, 7))), target=0, method=Occlusion(patch=4), error_bars=2)


def parts(path: Path) -> dict[str, bytes]:
    """The files inside a good one."""
    with zipfile.ZipFile(explanation().save(path)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, inside: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in inside.items():
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray[Any, Any], **how: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **how)
    return file.getvalue()


def header(shape: str, kind: str = "'<f4'", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text.encode()


def zeros(size: int) -> bytes:
    return bytes(size)


Wrong = Callable[[Path, dict[str, bytes]], Path]


def with_part(name: str, data: bytes | None) -> Wrong:
    def make(path: Path, inside: dict[str, bytes]) -> Path:
        inside = {k: v for k, v in inside.items() if k != name}
        return packed(path, inside if data is None else {**inside, name: data})

    return make


def with_record(change: Callable[[dict[str, Any]], object]) -> Wrong:
    def make(path: Path, inside: dict[str, bytes]) -> Path:
        record = json.loads(inside["explanation.json"])
        change(record)
        return packed(path, {**inside, "explanation.json": json.dumps(record).encode()})

    return make


def put(value: Any, *keys: str) -> Wrong:
    """A value in the record; ``...`` takes it away."""

    def change(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        if value is ...:
            del record[keys[-1]]
        else:
            record[keys[-1]] = value

    return with_record(change)


def bomb(path: Path, inside: dict[str, bytes]) -> Path:
    """1.5 MB that would inflate to 1.5 GB, and say so truthfully."""
    return packed(path, {**inside, "heatmap.npy": header("(20000, 20000)") + zeros(1_600_000_000)})


def lying(path: Path, inside: dict[str, bytes]) -> Path:
    """A header that promises what no deflated stream of that size can hold."""
    return packed(path, {**inside, "heatmap.npy": header("(16000, 16000)")})


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def sizes_that_lie(path: Path, inside: dict[str, bytes]) -> Path:
    """The archive's directory says that the map is shorter than it is."""
    packed(path, inside, zipfile.ZIP_STORED)
    size = struct.pack("<II", len(inside["heatmap.npy"]), len(inside["heatmap.npy"]))
    return patched(path, size, struct.pack("<II", 140, 140))


def encrypted(path: Path, inside: dict[str, bytes]) -> Path:
    packed(path, inside)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    return path


def twice(path: Path, inside: dict[str, bytes]) -> Path:
    packed(path, inside)
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("heatmap.npy", inside["heatmap.npy"])
    return path


def crowded(path: Path, inside: dict[str, bytes]) -> Path:
    return packed(path, {**inside, **{f"x{i}": b"" for i in range(500)}})


def pipe(path: Path, inside: dict[str, bytes]) -> Path:
    os.mkfifo(path)
    return path


def text(path: Path, inside: dict[str, bytes]) -> Path:
    path.write_text("hello")
    return path


def cut(path: Path, inside: dict[str, bytes]) -> Path:
    packed(path, inside)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def damaged(path: Path, inside: dict[str, bytes]) -> Path:
    packed(path, inside, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"NUMPY") + 200] ^= 0xFF
    path.write_bytes(data)
    return path


ONE = np.ones(SHAPE, np.float32)
NAN = ONE.copy()
NAN[3, 3] = math.nan

WRONG: dict[str, tuple[Wrong, str]] = {
    "text": (text, "zip archive"),
    "cut": (cut, "zip archive"),
    "damaged": (damaged, "CRC"),
    "a named pipe": (pipe, "no file"),
    "a bomb": (bomb, "more than are read"),
    "a header that lies": (lying, "more values than its bytes"),
    "sizes that lie": (sizes_that_lie, ""),
    "an encrypted member": (encrypted, "encrypted"),
    "a member twice": (twice, "two files of one name"),
    "500 members": (crowded, "too many files"),
    "no record": (with_part("explanation.json", None), "explanation.json is missing"),
    "a record that is no JSON": (with_part("explanation.json", b"{"), ""),
    "a record that is a list": (with_part("explanation.json", b"[]"), "does not say"),
    "a record that is not UTF-8": (with_part("explanation.json", b'{"format": "\xff"}'), ""),
    "a record of 17 MB": (with_part("explanation.json", b'"' + b"a" * 17_000_000 + b'"'), "more than 16,777,216"),
    "a deeply nested record": (with_part("explanation.json", b"[" * 1_000_000), "nested"),
    "a number of 10,000 digits": (with_part("explanation.json", b"1" * 10_000), "digits"),
    "another format": (put("lucency-explanation-9", "format"), "does not say"),
    "NaN in the record": (put(math.nan, "provenance", "seconds"), "NaN is no number"),
    "a budget without end": (with_record(lambda r: r["provenance"].update(budget=math.inf)), "Infinity"),
    "no heatmap": (with_part("heatmap.npy", None), "heatmap.npy is missing"),
    "no pixels": (with_part("pixels.npy", None), "pixels.npy is missing"),
    "float64": (with_part("heatmap.npy", npy(ONE.astype(np.float64))), "no plain array"),
    "big-endian": (with_part("heatmap.npy", npy(ONE.astype(">f4"))), "no plain array"),
    "objects": (with_part("heatmap.npy", npy(np.array([{}]), allow_pickle=True)), "no plain array"),
    "a record array": (with_part("heatmap.npy", npy(np.zeros(SHAPE, [("a", "<f4")]))), "no plain array"),
    "another version of the array format": (
        with_part("heatmap.npy", header("(2, 2)", version=b"\x02\x00")),
        "another version",
    ),
    "a header of 4 GiB": (
        with_part("heatmap.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + zeros(10_000_000)),
        "another version",
    ),
    "a header that is code": (with_part("heatmap.npy", header("__import__('os').getcwd()")), ""),
    "a header of brackets": (with_part("heatmap.npy", header("(" * 80)), ""),
    "a map that ends early": (with_part("heatmap.npy", npy(ONE)[:-9]), "ends too early"),
    "a map that goes on": (with_part("heatmap.npy", npy(ONE) + b"more"), "goes on"),
    "a map of one axis": (with_part("heatmap.npy", npy(np.ones(9, np.float32))), "shapes of a map"),
    "a map of another shape": (with_part("heatmap.npy", npy(ONE.T.copy())), "shapes of a map"),
    "a map without pixels": (with_part("heatmap.npy", npy(ONE[:0])), "more than are read"),
    "negative sizes": (with_part("heatmap.npy", header("(-3, -3)") + zeros(36)), ""),
    "an error of another shape": (with_part("standard_error.npy", npy(ONE.T.copy())), "different shapes"),
    "an error below zero": (with_part("standard_error.npy", npy(-ONE)), "below 0"),
    "NaN in the map": (with_part("heatmap.npy", npy(NAN)), "NaN"),
    "NaN in the scan": (with_part("pixels.npy", npy(NAN[None])), "NaN"),
    "pixels beyond 1": (with_part("pixels.npy", npy(2 * ONE[None])), "from 0 to 1"),
    "further maps that are not there": (put(["more"], "also"), "also_0.npy is missing"),
    "further maps that are no names": (put([3], "also"), "also in"),
    "a thousand further maps": (put([str(i) for i in range(1000)], "also"), "also in"),
    "probabilities that are none": (put({"c0": 7}, "probabilities"), "probabilities in"),
    "a probability that is a text": (put({"c0": "high"}, "probabilities"), "probabilities in"),
    "a probability of true": (put({"c0": True}, "probabilities"), "probabilities in"),
    "a class that has no probability": (put("other", "provenance", "question", "name"), "no probability"),
    "a class that is a number": (put(3, "provenance", "question", "name"), "name in question"),
    "facts that are a list": (put([], "facts"), "facts in"),
    "a fact that is a table": (put({"a": {}}, "facts"), "facts in"),
    "a provenance that is a list": (put([], "provenance"), "provenance in"),
    "no provenance": (put(..., "provenance"), "provenance is missing"),
    "a spacing of three in a plane": (put([1, 1, 1], "provenance", "scan", "spacing"), "do not fit"),
    "a spacing of zero": (put([0, 0], "provenance", "scan", "spacing"), "spacing in scan"),
    "another size of the scan": (put([9, 9], "provenance", "scan", "shape"), "do not fit"),
    "no model": (put(..., "provenance", "model"), "model is missing"),
    "a model without a name": (put(..., "provenance", "model", "name"), "name is missing in model"),
    "a grid of one axis": (put([9], "provenance", "model", "grid"), "grid of the model"),
    "a method that is a text": (put("occlusion", "provenance", "method"), "method in"),
    "no title": (put(None, "provenance", "method", "title"), "title in method"),
    "parameters that are a list": (put([], "provenance", "method", "parameters"), "parameters in"),
    "a seed with a fraction": (put(1.5, "provenance", "seed"), "seed in"),
    "a count below zero": (put(-1, "provenance", "evaluations"), "evaluations in"),
    "a verdict that is a text": (put("sure", "verdict"), "verdict in"),
    "a verdict without words": (put({"text": 3}, "verdict"), "headline is missing in verdict"),
    "doubts that are a number": (put(3, "verdict", "doubts"), "doubts in verdict"),
    "a peak of four axes": (put([1, 1, 1, 1], "verdict", "peak"), "peak in verdict"),
    "hits on no scan": (
        put({"truth": "", "scans": 0, "peak": 0, "sided": 0, "side": 0}, "verdict", "hits"), "scans in hits"
    ),
    "margins of three": (put([[0, 0, 0], [0, 0]], "provenance", "model", "margins"), "margins in"),
    "one margin": (put([[0, 0]], "provenance", "model", "margins"), "grid of the model"),
    "a panel that there is not": (put("hologram", "provenance", "method", "panel"), "panel in method"),
    "a record of tomorrow": (put(99, "provenance", "format"), "newer Lucency"),
    "error bars that moved nowhere": (
        put({"from": "method", "moved": [None]}, "provenance", "error_bars"), "moved in error_bars"
    ),
}  # fmt: skip


def mutated(inside: dict[str, bytes], random: np.random.Generator, path: Path) -> Path:
    """One drawn change: of bytes of the archive, of bytes of a member, or of a value in the record."""
    kind = random.integers(4)
    if kind == 0:
        data = bytearray(packed(path, inside, int(random.choice([0, 8]))).read_bytes())
        for _ in range(random.integers(1, 8)):
            data[random.integers(len(data))] = random.integers(256)
        if random.random() < 0.2:
            del data[random.integers(len(data)) :]
        path.write_bytes(data)
        return path
    if kind == 1:
        name = str(random.choice(list(inside)))
        data = bytearray(inside[name])
        for _ in range(random.integers(1, 8)):
            data[random.integers(min(len(data), 200))] = random.integers(256)
        return packed(path, {**inside, name: bytes(data)})
    record = copy.deepcopy(json.loads(inside["explanation.json"]))
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[random.integers(len(keys))]
        if not (isinstance(place[key], dict | list) and place[key]) or random.random() < 0.2:
            break
        place = place[key]
    odd = [
        None,
        True,
        -1,
        0,
        1.5,
        1e308,
        2**70,
        "",
        "\x1b[31m",
        "[/bold]",
        "x" * 1000,
        [],
        {},
        [[]],
        {"a": None},
        "\ud800",
    ]
    if random.random() < 0.2:
        del place[key]
    else:
        place[key] = odd[random.integers(len(odd))]
    return packed(path, {**inside, "explanation.json": json.dumps(record).encode()})
