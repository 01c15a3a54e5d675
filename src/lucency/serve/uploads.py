"""Uploads become scans in a process of their own, within limits of memory and time."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from lucency.errors import LucencyError, ScanError
from lucency.reading.worker import Worker
from lucency.scan import Scan
from lucency.serve.settings import Settings

SCRIPT = Path(__file__).with_name("reader_process.py")


class Reader:
    """Reads one upload at a time; calls from several threads wait for each other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._worker = Worker(SCRIPT)

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()

    def warm(self) -> None:
        """Starts the process, so that the first upload does not wait for what it loads."""
        with suppress(LucencyError):
            self.read(Path(str(files("lucency.phantom") / "demo.png")), frame=None, window=None, value_range=None)

    @property
    def pid(self) -> int | None:
        """The process that waits for the next upload, if there is one."""
        return self._worker.pid

    def read(self, path: Path, **options: Any) -> Scan:
        """The scan in a file or a folder of slices; ``options`` as for :func:`lucency.read_scan`.

        Raises:
            ScanError: when it is none, or takes too much memory or time.
        """
        settings = self._settings
        request = {
            "kind": "scan",
            "memory": settings.decode_bytes,
            "options": {"path": str(path), "pixels": settings.most_pixels, **options},
        }
        pixels, facts = self._worker.decode(request, b"", "The file", settings.decode_seconds)
        if "error" in facts:
            # The name that the file has here means nothing to whoever sent it.
            raise ScanError(re.sub(rf"{re.escape(str(path.parent))}/[\w./]*", "The file", str(facts["error"])))
        try:
            spacing = facts["spacing"]
            return Scan(
                torch.from_numpy(pixels),
                (float(facts["value_range"][0]), float(facts["value_range"][1])),
                None if spacing is None else tuple(float(s) for s in spacing),
                "upload",
                tuple(str(notice) for notice in facts["notices"]),
                str(facts["view"]),
                str(facts["modality"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ScanError("The file made its reader say nonsense; export it again, uncompressed.") from error
