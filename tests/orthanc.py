"""A real PACS for tests: Orthanc with its DICOMweb plug-in, in a folder of its own, on ports of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import httpx
import pydicom

PLUGIN = next(
    (
        p
        for p in map(Path, ("/usr/share/orthanc/plugins", "/usr/lib/orthanc"))
        if list(p.glob("libOrthancDicomWeb.so*"))
    ),
    None,
)
MISSING = "Orthanc is not installed" if shutil.which("Orthanc") is None else "" if PLUGIN else "Orthanc lacks DICOMweb"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Orthanc:
    """Runs between :meth:`start` and :meth:`stop`; what it holds stays in the folder.

    Args:
        settings: laid over the configuration.
        users: names and passwords for the web side.
    """

    def __init__(self, folder: Path, *, users: dict[str, str] | None = None, **settings: Any) -> None:
        self.folder, self.users = folder, users or {}
        self.web, self.dimse = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        assert PLUGIN is not None
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "Plugins": [str(PLUGIN)],
                    "HttpPort": self.web,
                    "DicomPort": self.dimse,
                    "DicomAet": "ORTHANC",
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": bool(self.users),
                    "RegisteredUsers": self.users,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowFind": True,
                    "DicomModalities": {"lucency": ["LUCENCY", "127.0.0.1", 1]},
                    "OverwriteInstances": False,
                    "StableAge": 1,
                    "HttpVerbose": False,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                    **settings,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def node(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dimse}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web}/dicom-web"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        until = time.monotonic() + 30
        while True:
            try:
                self.get("system")
                return
            except httpx.HTTPError:
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < until, "Orthanc did not start"
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def get(self, path: str) -> Any:
        auth = next(iter(self.users.items())) if self.users else None
        found = httpx.get(f"http://127.0.0.1:{self.web}/{path}", auth=auth, trust_env=False, timeout=20)
        found.raise_for_status()
        return found.json() if "json" in found.headers.get("content-type", "") else found.content

    def instances(self) -> dict[str, str]:
        """The keys that Orthanc has for them, by SOP instance UID."""
        return {one["MainDicomTags"]["SOPInstanceUID"]: one["ID"] for one in self.get("instances?expand")}

    def files(self) -> dict[str, pydicom.Dataset]:
        """What lies there, by SOP instance UID."""
        return {uid: self._file(key) for uid, key in self.instances().items()}

    def _file(self, key: str) -> pydicom.Dataset:
        return pydicom.dcmread(BytesIO(self.get(f"instances/{key}/file")))
