"""Servers with settings of their own: limits, tokens, no names. One application at a time is open in a process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")

from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from lucency.errors import OutputError, ParameterError
from lucency.serve.app import create_app
from lucency.serve.security import hashed, new_token, tokens
from lucency.serve.settings import Settings
from test_serve import asked, bright, ended, gradient, png, settings, waiting


def test_what_is_too_large_is_cut_off(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, most_bytes=1000, most_pixels=900), [bright()])
    with TestClient(app) as client:
        assert client.post("/api/v1/scans", content=bytes(1001)).status_code == 413
        # Without a length that says so beforehand.
        assert client.post("/api/v1/scans", content=(bytes(400) for _ in range(3))).status_code == 413
        large = png(np.eye(31, dtype=np.uint8) * 255)
        assert len(large) < 1000
        found = client.post("/api/v1/scans", content=large)
        assert found.status_code == 422
        assert "31 x 31 pixels, more than the 900" in found.json()["error"]
        assert not [*tmp_path.rglob("*.npy")]


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, waiting=2, waiting_each=1), [bright()])
    with TestClient(app) as client:
        scan = client.post("/api/v1/scans", content=gradient(6)).json()["scan"]
        assert client.post("/api/v1/scores", json={"scan": scan, "model": "Bright"}).status_code == 200
        shop: Any = app.state.workshop
        while len(shop.turns):
            time.sleep(0.01)
        gate = threading.Event()
        shop.turns.submit("testclient", lambda: waiting(gate))
        found = client.post("/api/v1/explanations", json=asked(scan, target=0))
        assert found.status_code == 429
        assert int(found.headers["retry-after"]) >= 1
        job = client.post("/api/v1/explanations", json=asked(scan, target=0, wait=False))
        assert job.status_code == 202
        another = client.post("/api/v1/explanations", json=asked(scan, target=1, wait=False))
        assert another.status_code == 429
        gate.set()
        assert ended(client, job.json()["job"])["state"] == "done"


def test_a_token_is_needed_beyond_this_machine_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="needs a token"):
        Settings(tmp_path, host="0.0.0.0")
    token = new_token(tmp_path, "reading_room")
    known = tokens(tmp_path)
    assert known == {"reading_room": hashed(token)}
    assert token not in (tmp_path / "tokens.json").read_text()
    app = create_app(settings(tmp_path, host="0.0.0.0", tokens=known), [bright()])
    with TestClient(app) as client:
        for path in ("/api/v1/models", "/metrics", "/api/v1/openapi.json", "/static/../api/v1/models", "/nothing"):
            assert client.get(path).status_code == 401, path
        # The page asks for the token itself.
        for path in ("/", "/static/app.js", "/viewer/viewer.js", "/api/v1/health"):
            assert client.get(path).status_code == 200, path
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/v1/live"):
            pass
        assert client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/api/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        refused = client.post("/login", data={"token": "wrong"})
        assert (refused.status_code, refused.json()["error"][-1]) == (401, ".")
        assert "set-cookie" not in refused.headers
        logged = client.post("/login", data={"token": token})
        assert logged.status_code == 204
        assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in logged.headers["set-cookie"].split(";")}
        assert client.get("/api/v1/models").status_code == 200
        with client.websocket_connect("/api/v1/live"):
            pass


def test_an_anonymous_server_keeps_no_name(tmp_path: Path) -> None:
    with TestClient(create_app(settings(tmp_path, anonymous=True), [bright()])) as client:
        about = client.post("/api/v1/scans", content=gradient(9), headers={"X-Filename": "Mustermann.png"}).json()
        made = client.post("/api/v1/explanations", json=asked(about["scan"])).json()["id"]
        client.get(f"/api/v1/explanations/{made}/report.html")
        assert about["title"].startswith("scan ")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"Mustermann" in p.read_bytes()]


def test_a_database_that_does_not_answer_is_said_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(OutputError, match="cannot use the database postgresql://127") as refusal:
        create_app(settings(tmp_path, database="postgresql://user:secret@127.0.0.1:9/none"), [bright()])
    assert "secret" not in str(refusal.value)
    assert str(refusal.value).endswith("check --database.")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with TestClient(create_app(settings(tmp_path), [bright()])) as client:
        assert client.post("/api/v1/scans", content=gradient(9)).status_code == 200
        kept = [p for p in tmp_path.iterdir() if p.suffix != ".lock"]
        assert len(kept) >= 4
        assert [p.name for p in kept if p.stat().st_mode & 0o077] == []
