"""What the folders of other libraries say of their models, in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucency.errors import ModelError


def json_object(path: Path, wanted: str) -> dict[str, Any]:
    """The object in a file.

    Args:
        wanted: what should have been handed over, in words for the error.

    Raises:
        ModelError: when there is none.
    """
    try:
        about = json.loads(path.read_text())
        if not isinstance(about, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read ({error}); {wanted}") from error
    return about
