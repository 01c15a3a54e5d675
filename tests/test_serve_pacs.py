"""The worklist of a listener in the API and on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="DBOS is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")

from fastapi.testclient import TestClient

from chromium import chromium
from lucency.pacs import Rules, worklist
from lucency.serve.app import create_app
from test_pacs import _collected, all_in, listening, radiograph, store, until, web
from test_page import Room, Server
from test_serve import bright, settings

# pynetdicom leaves it to the garbage collector to close a socket that nobody answers.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")
collected = _collected


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """The folder of a listener whose archive refuses one film's results and whose rules refuse another film."""
    good, lateral = radiograph(tmp_path, 1), radiograph(tmp_path, 2, ViewPosition="LL")
    place = tmp_path / "place"
    with web(status=400) as (url, _), listening(place, url, rules=Rules(views=["PA"])) as listener:
        assert store(listener.port, pydicom.dcmread(good)) == 0
        until(place, all_in("failed"))
        assert store(listener.port, pydicom.dcmread(lateral)) == 0
        until(place, lambda rows: len(rows) == 2 and all_in("failed", "not explained")(rows))
    return place


@pytest.fixture
def room(tmp_path: Path, failed: Path) -> Iterator[Room]:
    with chromium() as browser:
        server = Server(tmp_path / "served", "--pacs", str(failed))
        context = browser.new_context(color_scheme="dark")
        found = Room(server, context)
        try:
            yield found
            assert not found.complaints, found.complaints
        finally:
            context.close()
            server.kill()


def test_the_api_lists_what_came_without_the_patient_and_tries_again(tmp_path: Path, failed: Path) -> None:
    (row, _) = sorted(worklist(failed), key=lambda row: row.state != "failed")
    with TestClient(create_app(settings(tmp_path / "a", pacs=str(failed)), [bright()])) as client:
        answer = client.get("/api/v1/pacs")
        said = answer.json()
        assert said["counts"] == {"not explained": 1, "failed": 1}
        assert [film["film"] for film in client.get("/api/v1/pacs?state=failed").json()["films"]] == [row.film]
        found = next(film for film in said["films"] if film["film"] == row.film)
        assert "refuses it and answers 400" in found["why"]
        for secret in ("ller", "4711", row.study, row.sop_instance, row.caller):
            assert secret
            assert secret not in answer.text
        assert client.get("/api/v1/pacs?state=lost").status_code == 422
        none = client.post("/api/v1/pacs/retry", json={"film": "ffff"})
        assert none.status_code == 422
        assert "0 of the films that failed" in none.json()["error"]
        assert client.post("/api/v1/pacs/retry", json={"film": row.film[:12]}).json() == {"films": [row.film]}
        assert client.get("/api/v1/pacs").json()["counts"] == {"not explained": 1, "to send": 1}
        assert client.post("/api/v1/pacs/retry", json={}).json() == {"films": []}


def test_without_a_listener_there_is_nothing_to_try(tmp_path: Path) -> None:
    with TestClient(create_app(settings(tmp_path / "a"), [bright()])) as client:
        assert client.get("/api/v1/pacs").json() == {"listener": False, "notice": "", "counts": {}, "films": []}
        assert client.post("/api/v1/pacs/retry", json={}).status_code == 404
    with TestClient(create_app(settings(tmp_path / "b", pacs=str(tmp_path / "none")), [bright()])) as client:
        said = client.get("/api/v1/pacs").json()
        assert said["listener"]
        assert "start lucency pacs listen" in said["notice"]
        assert str(tmp_path) not in said["notice"]


def test_the_page_shows_the_worklist_and_tries_again(room: Room) -> None:
    page = room.page()
    page.wait_for_selector(".pacs li")
    assert page.inner_text(".pacs .hint") in ("1 failed, 1 not explained", "1 not explained, 1 failed")
    failed = page.locator('.pacs li[data-state="failed"]')
    assert "refuses it and answers 400" in failed.inner_text()
    assert failed.inner_text().startswith("DX PA")
    assert "Its view is LL, not PA." in page.locator('.pacs li[data-state="not explained"]').inner_text()
    # Only what has failed can be tried again.
    assert page.locator(".pacs li button").count() == 1
    failed.get_by_role("button").click()
    page.wait_for_selector('.pacs li[data-state="to send"]')
    assert page.locator(".pacs button:visible").count() == 0
    assert room.server.get("pacs")["counts"] == {"not explained": 1, "to send": 1}
