"""The core stands alone, and the command line answers before anything heavy is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

EXTRAS = [
    "typer", "rich", "matplotlib", "jinja2", "imageio_ffmpeg", "pydicom", "nibabel", "onnxruntime", "torchxrayvision",
    "highdicom", "torchvision", "timm", "transformers", "httpx", "onnx", "monai",
    "captum", "lime", "quantus", "sklearn", "pandas", "cv2", "gdcm",
]  # fmt: skip


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder
class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_the_core_needs_no_extra() -> None:
    code = """
import torch, lucency
from lucency.methods import METHODS
import lucency.metrics, lucency.classifier
assert all(getattr(lucency, name) for name in lucency.__all__)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval()
classifier = lucency.load_classifier(net, classes=["a", "b"])
how = METHODS["occlusion"](patch=4)
print(lucency.explain(lucency.Scan(torch.rand(1, 8, 8)), classifier, method=how).heatmap.shape)
"""
    assert python(BLOCKED + code, *EXTRAS).strip() == "(8, 8)"


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from lucency.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
print({{"torch", "numpy", "matplotlib", "scipy", "skimage"}} & set(sys.modules))
"""
    assert python(code).splitlines()[-1] == "set()"


def test_the_shell_completes_commands_before_anything_heavy_is_loaded() -> None:
    code = """
import sys
from lucency.cli import main
try:
    main([])
except SystemExit as end:
    assert end.code == 0
print({"torch", "numpy", "matplotlib", "scipy", "skimage"} & set(sys.modules))
"""
    asked = os.environ | {"_LUCENCY_COMPLETE": "complete_bash", "COMP_WORDS": "lucency eva", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True)
    assert done.stdout.split() == ["evaluate", "set()"], done.stderr


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = BLOCKED + "from lucency.cli import main\nmain(['methods'])"
    done = subprocess.run([sys.executable, "-c", code, "typer"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "The command line needs one more package; run pip install 'lucency[cli]'."


@pytest.mark.parametrize("lock", ["demo", "test", "docs", "release"])
def test_locks_pin_every_file_of_everything_but_pytorch(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    lines = [line for line in text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
    pin = r"[a-z0-9.-]+==[0-9a-z.]+( ; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*"
    assert [line for line in lines if not re.fullmatch(pin, line)] == []
    assert not any(line.startswith("torch==") for line in lines)
    # Its builds differ by machine, so it has no hash.
    assert (ROOT / "requirements" / "torch.txt").read_text() == "torch==2.13.0\n"


def test_the_locks_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def wanted(names: list[str]) -> set[str]:
        found = set()
        for requirement in names:
            name, inner = re.match(r"([\w.-]+)(?:\[(.*?)\])?", requirement).groups()  # type: ignore[union-attr]
            if name == "lucency":
                found |= {one for extra in inner.split(",") for one in wanted(extras[extra])}
            else:
                found.add(name.lower())
        return found

    for lock, chosen in {"demo": ["cli", "dicom"], "test": ["dev"], "docs": ["docs"], "release": ["release"]}.items():
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        needed = wanted(project["dependencies"]) | {one for extra in chosen for one in wanted(extras[extra])}
        missing = {name for name in needed - {"torch"} if f"\n{name}==" not in text}
        assert not missing, f"make lock: {lock}"


def test_the_citation_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
