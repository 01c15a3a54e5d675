"""Writes ``docs/appendix/dicom.md``: what dciodvfy and dcentvfy say of real films and of what is derived from them.

Run it from the root of the repository: ``python docs/scripts/validators.py FILM.dcm ...``. Needs dicom3tools.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lucency
from lucency.classifier import Classifier

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# What the validators say, word for word

*The details behind [Put a map beside its film](../how-to/dicom-out.md#what-the-validators-say).* A script
(`docs/scripts/validators.py`) writes this page: it explains each film with `lucency:effusion` (occlusion, patches of 32
pixels), writes all objects, runs `dciodvfy` on each and `dcentvfy` on all together with the film, and copies what they
print. The name of the patient is left out. What is said of the film itself comes first; what is said of an object as
well, which copies patient and study from it, is not repeated.
"""


def said(*command: str, folder: Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder)
    lines = (done.stdout + done.stderr).splitlines()
    return [re.sub(r"(Patient's Name  PN \[1\] = )<[^>]*>", r"\1<...>", line).rstrip() for line in lines]


def part(film: Path, classifier: Classifier, number: int) -> str:
    """One film with all that is derived from it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(film, folder / "film.dcm")
        explanation = lucency.explain(
            folder / "film.dcm", classifier, target="effusion", method="occlusion", patch=32, stride=32, record=True
        )
        explanation.to_dicom(folder / "film.dcm", folder)
        names = sorted(file.name for file in folder.glob("*.dcm") if file.name != "film.dcm")
        own = said("dciodvfy", "film.dcm", folder=folder)
        lines = [f"## Film {number}: `{film.name}`", "", "```text", "$ dciodvfy film.dcm", *own, "```", "", "```text"]
        for name in names:
            new = (line for line in said("dciodvfy", name, folder=folder) if " - " not in line or line not in own)
            lines += [f"$ dciodvfy {name}", *new]
        lines += ["```", "", "```text", f"$ dcentvfy film.dcm {' '.join(names)}"]
        lines += [*said("dcentvfy", "film.dcm", *names, folder=folder), "```", ""]
    return "\n".join(lines)


def main() -> None:
    classifier = lucency.load_classifier("lucency:effusion")
    parts = [part(Path(film), classifier, number) for number, film in enumerate(sys.argv[1:], 1)]
    page = ROOT / "docs" / "appendix" / "dicom.md"
    page.write_text("\n".join([HEAD, *parts]))
    print(f"{len(parts)} films in {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
