"""Two hundred hostile uploads to a server, with the memory of all its processes watched. Run by hand:

    python tests/hostile/uploads.py 200

Each is a file of a kind that is read (DICOM, PNG, TIFF, JPEG, NumPy, NIfTI, NRRD, a folder of slices), changed, cut,
swollen in its header, or a bomb. None may get another answer than 200, 413 or 422 in one sentence, and the server must
answer an ordinary request after each.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

FILM = Path(__file__).parent.parent.parent / "src" / "lucency" / "phantom" / "demo.png"


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG that says this size, whatever its pixels are."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy(shape: str, descr: str = "<f4", body: bytes = b"") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + body


def nifti(side: int, bomb: int = 0) -> bytes:
    head = bytearray(348)
    head[:4] = struct.pack("<i", 348)
    head[40:56] = struct.pack("<8h", 3, side, side, side, 1, 1, 1, 1)
    head[70:74] = struct.pack("<2h", 4, 16)
    head[108:112] = struct.pack("<f", 352)
    head[344:348] = b"n+1\x00"
    return bytes(head) + bytes(4) + bytes(bomb)


def kinds() -> dict[str, bytes]:
    """Sound files, to be changed."""
    picture = Image.fromarray((np.random.default_rng(0).random((60, 70)) * 255).astype(np.uint8))
    found = {"png": FILM.read_bytes()}
    for kind in ("JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000"):
        file = io.BytesIO()
        picture.save(file, kind)
        found[kind.lower()] = file.getvalue()
    array = io.BytesIO()
    np.save(array, np.arange(600, dtype=np.float32).reshape(20, 30))
    found["npy"] = array.getvalue()
    found["nii"] = nifti(8, 8**3 * 2)
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from dicom_kinds import written

    with tempfile.TemporaryDirectory() as folder:
        found["dcm"] = written()(Path(folder)).read_bytes()
    return found


def bombs() -> dict[str, bytes]:
    """Files that are small and would be huge."""
    zeros = zlib.compress(bytes(2**28), 9)
    return {
        "a png of 4 gigapixels": png(65535, 65535, zeros),
        "a png whose stream swells": png(100, 100, zeros),
        "an array of a terabyte": npy("(1000000, 1000000)"),
        "an array of objects": npy("(3,)", "|O", b"cos\nsystem\n(S'true'\ntR."),
        "a volume that swells": gzip.compress(nifti(1000, 2**28), 9),
        "a volume of 32 gigabytes": nifti(2500),
        "a deflate of deflates": gzip.compress(gzip.compress(bytes(2**28), 9), 9),
    }


def hostile(number: int, sound: dict[str, bytes], swollen: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Name, content type and body of upload ``number``."""
    draw = random.Random(number)
    if number % 7 == 0:
        name = draw.choice(sorted(swollen))
        ending = "nii.gz" if "volume" in name or "deflate" in name else "npy" if "array" in name else "png"
        return f"{name}.{ending}", "application/octet-stream", swollen[name]
    name = draw.choice(sorted(sound))
    data = bytearray(sound[name])
    if number % 7 == 1:
        sizes = json.dumps({"sizes": [draw.choice([-1, 0, 5, 2**40])] * draw.randint(1, 9)}).encode()
        return "slices", "application/x-lucency-folder", struct.pack("<I", len(sizes)) + sizes + bytes(data)
    for _ in range(draw.randint(1, 40)):
        data[draw.randrange(min(len(data), draw.choice([60, 400, len(data)])))] = draw.randrange(256)
    if number % 7 == 2:
        del data[draw.randrange(len(data)) :]
    return f"Mustermann^Erika.{draw.choice([name, 'dcm', 'png', 'npy'])}", "application/octet-stream", bytes(data)


def memory(pid: int) -> float:
    """Megabytes of a process and all below it."""
    total, left = 0.0, [pid]
    while left:
        one = left.pop()
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            for task in Path(f"/proc/{one}/task").iterdir():
                left += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return total


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sound, swollen = kinds(), bombs()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lucency", "serve", "--data", folder, "--port", "0", "-m", "lucency:phantom"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stderr is not None
        log: list[str] = []
        threading.Thread(target=lambda: log.extend(server.stderr or ()), daemon=True).start()
        found = re.search(r"http://[\w.:]+", server.stdout.readline())
        assert found is not None
        peak, stop = [0.0, 0.0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.02):
                peak[0] = max(peak[0], memory(server.pid))
                own = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
                peak[1] = max(peak[1], int(own) * os.sysconf("SC_PAGE_SIZE") / 2**20)

        statuses: Counter[int] = Counter()
        slowest = 0.0
        with httpx.Client(base_url=found[0] + "/api/v1/", timeout=120) as http:
            http.post("scans", content=FILM.read_bytes()).raise_for_status()
            before = memory(server.pid)
            threading.Thread(target=watch, daemon=True).start()
            for number in range(count):
                name, kind, body = hostile(number, sound, swollen)
                began = time.perf_counter()
                answer = http.post("scans", content=body, headers={"X-Filename": name, "Content-Type": kind})
                slowest = max(slowest, time.perf_counter() - began)
                statuses[answer.status_code] += 1
                assert answer.status_code in (200, 413, 422), (number, name, answer.text)
                if answer.status_code != 200:
                    sentence = answer.json()["error"]
                    assert sentence.endswith("."), (number, name, sentence)
                    assert "/tmp" not in sentence, (number, name, sentence)
                http.get("models").raise_for_status()
            stop.set()
            after = memory(server.pid)
        server.terminate()
        server.wait(30)
    assert not [line for line in log if "Mustermann" in line], "a name of a file is in the log"
    assert not [line for line in log if '"fault"' in line], [line for line in log if '"fault"' in line][:3]
    print(f"{count} uploads: {dict(statuses)}; slowest {slowest:.1f} s")
    print(f"memory of all processes: {before:.0f} MB before, {peak[0]:.0f} at most, {after:.0f} after; ", end="")
    print(f"of the server itself {peak[1]:.0f} at most")


if __name__ == "__main__":
    main()
