"""The examples in README and documentation run, page by page, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import lucency
from lucency.classifier import Classifier
from lucency.classifier.networks import ResNet

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def small() -> Classifier:
    """What a page means by `classifier`, small enough that a whole page takes a second."""
    torch.manual_seed(0)
    return lucency.load_classifier(
        ResNet(3, width=4, blocks=(1, 1, 1, 1)),
        classes=["effusion", "nodule", "cardiomegaly"],
        input_size=(64, 64),
        channels=1,
        exclusive=False,
    )


@pytest.mark.parametrize(
    "page", [p for p in PAGES if EXAMPLE.search(p.read_text())], ids=lambda p: str(p.relative_to(ROOT))
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = ROOT / "src" / "lucency" / "phantom" / "demo.png"
    names: dict[str, Any] = {"lucency": lucency, "scan": lucency.read_scan(demo), "classifier": small()}
    names["scans"] = [names["scan"]]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    for block in EXAMPLE.findall(page.read_text()):
        exec(compile(block, page.name, "exec", dont_inherit=True), names)


def test_every_command_is_in_the_reference() -> None:
    from lucency.cli.app import app

    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"lucency {command.callback.__name__.replace('_', '-')}" in page


def test_every_page_names_only_what_is_there() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
