"""Films from a modality through the listener into a real PACS, and what lies there then, read back.

    python tests/hostile/pacs_end_to_end.py FILMS [dimse | web]

FILMS is a folder with ``dicom/`` (DICOM films) and ``nih/`` (pictures, of which 50 are wrapped as digital radiographs).
dcmtk's storescu sends each, the listener explains it, and Orthanc gets the objects by C-STORE or STOW-RS. The exit code
is 1 unless Orthanc then holds for each film each kind of object once and, bit for bit, the map that the listener made,
which the script keeps in memory. The kills are in ``pacs_kills.py``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pacs_kills import HOW, MODEL, TARGET, films, judged, send

from lucency import Explainer, load_classifier, read_scan
from lucency.pacs import Listener, Rules, destination, worklist
from lucency.pacs.work import Question
from lucency.recipe import Run
from orthanc import Orthanc

SECONDS = 3600.0


class Watched(Explainer):
    """Remembers its answers."""

    def __init__(self) -> None:
        super().__init__(load_classifier(MODEL), method="occlusion", removal="constant", **HOW)
        self.runs: list[Run] = []

    def steps(self, *scan: Any, **how: Any) -> Run:
        self.runs.append(super().steps(*scan, **how))
        return self.runs[-1]

    def made(self, path: Path) -> NDArray[np.float32]:
        """The map that was made of a film."""
        sought = read_scan(path).sha256
        answers = [run.explanation for run in self.runs]
        # Two of the films show the same pixels.
        found: NDArray[np.float32] = next(a.heatmap for a in answers if a.provenance.scan.sha256 == sought)
        return found


def main(place: Path, way: str) -> int:
    explainer = Watched()
    with tempfile.TemporaryDirectory(prefix="lucency-pacs-") as temporary:
        folder = Path(temporary)
        sources = films(place, folder)
        began = time.monotonic()
        with Orthanc(folder / "orthanc") as orthanc:
            where = destination(orthanc.node if way == "dimse" else orthanc.url, aet="LUCENCY")
            question = Question(explainer, TARGET)
            with Listener(folder / "place", question, where, port=0, rules=Rules(doubtful=True)) as listener:
                for path in sources:
                    send(path, listener.port, began + SECONDS)
                sent = time.monotonic() - began
                while not _over(folder / "place", len(sources)):
                    assert time.monotonic() < began + SECONDS, worklist(folder / "place")
                    time.sleep(0.5)
            seconds = time.monotonic() - began
            rows = worklist(folder / "place")
            wrong, apart = judged(sources, orthanc, explainer.made)
            kinds = Counter(one.file_meta.MediaStorageSOPClassUID.name for one in orthanc.files().values())
        equal = apart.count(0.0)
        record = {
            "campaign": "end to end",
            "by": "C-STORE" if way == "dimse" else "STOW-RS",
            "films": len(sources), "of which real DICOM": sum(path.name.startswith("real") for path in sources),
            "seconds until all are taken": round(sent), "until all are there": round(seconds),
            "states": dict(Counter(row.state for row in rows)),
            "archive asked whether it has them": sum(row.verified for row in rows),
            "objects": sum(kinds.values()), "kinds": dict(kinds), "maps equal bit for bit": equal, "wrong": wrong,
        }  # fmt: skip
        print(json.dumps(record, indent=1))
        return int(bool(wrong) or equal != len(sources) or any(row.state != "sent" for row in rows))


def _over(folder: Path, count: int) -> bool:
    states = Counter(row.state for row in worklist(folder))
    return set(states) <= {"sent", "failed", "not explained"} and sum(states.values()) == count


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "dimse"))
