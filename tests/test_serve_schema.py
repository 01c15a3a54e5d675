"""The description of the API holds: Schemathesis draws requests from it, good and bad, and looks at the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")
pytest.importorskip("schemathesis", reason="Schemathesis is not installed")

import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from lucency.serve.app import create_app
from test_serve import bright, settings

EXAMPLES = 8
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


# What Schemathesis and Hypothesis say to each other is not for us.
@pytest.mark.filterwarnings("ignore")
def test_no_request_that_the_description_allows_or_forbids_breaks_the_service(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path), [bright()])
    tried = 0
    with TestClient(app):
        description = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
        for found in description.get_all_operations():
            operation = found.ok()
            if "phantoms" in operation.path or "gallery" in operation.path:
                # Each draws a film for seconds.
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @drawn(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
                @given(case=operation.as_strategy(generation_mode=mode))
                def holds(case: Any) -> None:
                    nonlocal tried
                    tried += 1
                    case.call_and_validate(headers={"Host": "testserver"}, checks=CHECKS)

                try:
                    holds()
                except Unsatisfiable:
                    # An operation that takes nothing cannot be asked wrongly.
                    continue
    assert tried > 100
