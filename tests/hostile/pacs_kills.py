"""Films through a listener that is killed again and again, into a PACS that is away for a while: each result once.

    python tests/hostile/pacs_kills.py FILMS [KILLS] [SEED]

FILMS is a folder with ``dicom/`` (DICOM films) and ``nih/`` (pictures, wrapped as digital radiographs). The films are
sent by dcmtk's storescu, a third of them twice, while ``lucency pacs listen`` is killed with SIGKILL at random moments,
and Orthanc is stopped for a part of the time. Afterwards Orthanc must hold the derived objects of each film exactly
once, and each map must be what the recipe gives in this process. Exit code 1 when not. (The engine finds the size of
its batches by timing, so the last bits of a map may differ between two processes; how much is said.)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lucency import Explainer, load_classifier
from lucency.pacs import worklist
from orthanc import Orthanc, free_port
from radiographs import film

MODEL, TARGET = "lucency:effusion", "effusion"
HOW = {"patch": 48, "stride": 48}
PICTURES = 50


def films(place: Path, folder: Path) -> list[Path]:
    """The real DICOM films, each as an instance of its own, and pictures as DX."""
    found = []
    for number, real in enumerate(sorted((place / "dicom").glob("*.dcm"))):
        data = pydicom.dcmread(real)
        # The two there are one film in two polarities, and one instance for a PACS.
        data.StudyInstanceUID = f"1.2.826.0.1.3680043.2.8.{number + 1}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{data.StudyInstanceUID}.1"
        data.save_as(folder / f"real-{number}.dcm")
        found.append(folder / f"real-{number}.dcm")
    for number, picture in enumerate(sorted((place / "nih").glob("*.jpg"))[:PICTURES]):
        values = np.asarray(Image.open(picture).convert("L")).astype(np.uint16) * 16
        uid = f"1.2.826.0.1.3680043.2.9.{number + 1}"
        path = film(folder / f"film-{number}.dcm", values, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.9",
                    ImagerPixelSpacing=[0.7, 0.7], PatientID=f"P{number}", AccessionNumber=f"A{number}")  # fmt: skip
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1"
        data.save_as(path)
        found.append(path)
    return found


def listen(arguments: list[str], log: Path) -> None:
    """The command, in a process that has loaded everything already."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    from lucency.cli import main

    main(arguments)


class Listener:
    """``lucency pacs listen`` in a process of its own, again and again."""

    def __init__(self, folder: Path, where: str) -> None:
        self.port, self.starts = free_port(), 0
        self.folder, self._log = folder / "place", folder / "listener.log"
        settings = [word for key, value in HOW.items() for word in ("--set", f"{key}={value}")]
        self._command = [
            "pacs", "listen", "--send-to", where, "--port", str(self.port), "--folder", str(self.folder), "--model",
            MODEL, "--target", TARGET, "--method", "occlusion", "--removal", "constant", "--doubtful", *settings,
        ]  # fmt: skip
        # Whole starts take longer than all the rest, and a kill finds nothing but them.
        self._door = multiprocessing.get_context("forkserver")
        self._door.set_forkserver_preload(["lucency.pacs.listener", "lucency.cli.app", "lucency.cli.pacs"])

    def start(self) -> None:
        self.process = self._door.Process(target=listen, args=(self._command, self._log))
        self.process.start()
        self.starts += 1

    def listens(self) -> bool:
        """Waits until it says so; false when it ended instead."""
        while self.said().count("listens") < 1 or not self._answers():
            if not self.process.is_alive():
                return False
            time.sleep(0.02)
        return True

    def _answers(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def complaints(self) -> list[str]:
        """What it said beside that it listens."""
        return [line for line in self.said().splitlines() if "listens on" not in line]


def send(path: Path, port: int, until: float) -> int:
    """As a modality does: again until it is told of success; how often it was tried."""
    for tries in range(1, 10_000):
        done = subprocess.run(
            ["storescu", *_proposed(path), "-aec", "LUCENCY", "-aet", "XRAY", "127.0.0.1", str(port), str(path)],
            capture_output=True,
        )
        if done.returncode == 0:
            return tries
        assert time.monotonic() < until, done.stderr
        time.sleep(0.5)
    raise AssertionError


def _proposed(path: Path) -> list[str]:
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    return {
        "1.2.840.10008.1.2.4.50": ["-xy"],
        "1.2.840.10008.1.2.4.51": ["-xx"],
        "1.2.840.10008.1.2.4.70": ["-xs"],
    }.get(str(syntax), [])


def main(place: Path, kills: int, seed: int) -> int:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="lucency-pacs-") as temporary:
        folder = Path(temporary)
        sources = films(place, folder)
        begin = time.monotonic()
        orthanc = Orthanc(folder / "orthanc")
        orthanc.start()
        listener = Listener(folder, orthanc.node if seed % 2 else orthanc.url)
        tries: Counter[str] = Counter()
        away = (kills // 3, kills // 2)
        sent: list[float] = []

        order = sources + chance.sample(sources, len(sources) // 3)
        chance.shuffle(order)

        def sender() -> None:
            for path in order:
                # Spread over the kills.
                while listener.starts < kills * len(sent) / len(order):
                    time.sleep(0.2)
                tries[path.name] += send(path, listener.port, begin + 3600)
                sent.append(time.monotonic() - begin)

        thread = threading.Thread(target=sender, daemon=True)
        thread.start()
        down = 0.0
        for number in range(kills):
            if number == away[0]:
                orthanc.stop()
                down = -time.monotonic()
            if number == away[1]:
                orthanc.start()
                down += time.monotonic()
            listener.start()
            # At any moment, also while it starts: a third of the kills come before it listens.
            if chance.random() < 0.33:
                time.sleep(chance.uniform(0.0, 3.0))
            else:
                listener.listens()
                time.sleep(chance.expovariate(1 / 2.5))
            listener.kill()
            if number % 10 == 9:
                print(
                    f"{number + 1} kills, {len(sent)} of {len(order)} sent, {time.monotonic() - begin:.0f} s",
                    file=sys.stderr,
                )
        listener.start()
        assert listener.listens(), listener.said()
        thread.join()
        while True:
            states = Counter(row.state for row in worklist(listener.folder))
            if set(states) <= {"sent", "failed", "not explained"} and sum(states.values()) == len(sources):
                break
            assert time.monotonic() < begin + 5400, states
            time.sleep(1.0)
        seconds = time.monotonic() - begin
        left = [p.name for p in listener.folder.rglob("*") if p.is_file() and p.suffix in (".dcm", ".lucency")]
        why = [row.why for row in worklist(listener.folder) if row.state != "sent"]
        explainer = Explainer(load_classifier(MODEL), method="occlusion", removal="constant", **HOW)
        wrong, apart = judged(sources, orthanc, lambda path: explainer(path, TARGET).heatmap)
        listener.kill()
        objects = len(orthanc.instances())
        orthanc.stop()
        record: dict[str, Any] = {
            "campaign": "kills of lucency pacs listen",
            "by": "C-STORE" if seed % 2 else "STOW-RS",
            "seed": seed, "films": len(sources), "kills": kills, "seconds": round(seconds),
            "PACS away for seconds": round(down), "sent by storescu": len(sent),
            "tries of storescu": sum(tries.values()), "states": dict(states), "why": why, "objects": objects,
            "maps equal bit for bit": apart.count(0.0), "largest difference by maximum": max(apart),
            "wrong": wrong, "left behind": left, "said on stderr": listener.complaints()[-5:],
        }  # fmt: skip
        print(json.dumps(record))
        return int(bool(wrong or left or why or listener.complaints()))


def judged(
    sources: list[Path], orthanc: Orthanc, made: Callable[[Path], NDArray[np.float32]]
) -> tuple[list[str], list[float]]:
    """What is not as it should be: for each film one map, the one that was made, and each kind of object once."""
    there: dict[str, list[pydicom.Dataset]] = {}
    for found in orthanc.files().values():
        there.setdefault(str(found.StudyInstanceUID), []).append(found)
    wrong: list[str] = []
    apart: list[float] = []
    for path in sources:
        header = pydicom.dcmread(path)
        mine = [one for one in there.pop(str(header.StudyInstanceUID), []) if str(header.SOPInstanceUID) in str(one)]
        kinds = Counter(str(one.SeriesInstanceUID) for one in mine)
        maps = [one for one in mine if "FloatPixelData" in one]
        if len(maps) != 1 or len(kinds) != len({one.SeriesNumber for one in mine}):
            wrong.append(f"{path.name}: {len(maps)} maps in {len(mine)} objects")
            continue
        values = np.frombuffer(maps[0].FloatPixelData, "<f4").reshape(maps[0].Rows, maps[0].Columns)
        expected = made(path)
        apart.append(float(np.abs(values - expected).max() / np.abs(expected).max()))
        if apart[-1] > 1e-4:
            wrong.append(f"{path.name}: another map")
    return wrong + [f"a study of nobody: {study}" for study in there], apart


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(Path(words[0]), int(words[1]) if len(words) > 1 else 100, int(words[2]) if len(words) > 2 else 1))
