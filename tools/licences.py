"""Checks the licences of what Lucency ships and of everything that its users install with it.

    python tools/licences.py [EXTRA ...]

Prints a table of every package that ``lucency[EXTRA, ...]`` (``all`` by default) brings into this environment, and
fails for one that is under a copyleft licence, or under none that it says, and is not among those that are known.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

COPYLEFT = re.compile(r"\bA?L?GPL|Affero|Lesser General|General Public|Mozilla|MPL|EUPL|CC-BY-SA", re.IGNORECASE)

KNOWN = {
    "imageio-ffmpeg": "BSD-2-Clause; the FFmpeg program in it is GPL: a process of its own, in the extra mp4 alone",
    "certifi": "MPL-2.0: a list of certificates, unchanged",
    "tqdm": "MPL-2.0 AND MIT: used unchanged",
    "pi-heif": "BSD-3-Clause; the libheif and libde265 in it are LGPL: shared libraries that can be exchanged",
}
DEVELOPMENT = {
    "quantus": "its metadata declare GPL-3.0, its repository LGPL-3.0: compared with in tests, never shipped",
}
"""What is used here and comes to no user."""


def closure(name, extras, found=None):
    """Every package that ``name[extras]`` needs here, by name; those that are not installed are left out."""
    found = {} if found is None else found
    for line in distribution(name).requires or []:
        other, inner, marker = re.match(r"([\w.-]+)\s*(?:\[(.*?)\])?[^;]*(?:;(.*))?", line).groups()
        wanted = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", marker or "")
        if wanted and wanted[1] not in extras:
            continue
        other = re.sub(r"[-_.]+", "-", other).lower()
        inner = [e.strip() for e in (inner or "").split(",") if e.strip()]
        if other == re.sub(r"[-_.]+", "-", name).lower():
            closure(other, inner, found)
        elif other not in found:
            try:
                found[other] = licence(other)
            except PackageNotFoundError:
                continue
            closure(other, inner, found)
    return found


def licence(name):
    """What its metadata say, in one line."""
    about = distribution(name).metadata
    said = about.get("License-Expression") or ""
    classes = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    first = next(iter((about.get("License") or "").strip().splitlines()), "")
    return said or ", ".join(classes) or first


def objections(found):
    """One sentence for each package whose licence is not fine."""
    for name, said in sorted(found.items()):
        if name not in KNOWN and (not said or COPYLEFT.search(said)):
            said = said or "no licence that it says"
            yield f"{name} is under {said}; leave it out, or say why not in tools/licences.py."


def main():
    extras = sys.argv[1:] or ["all"]
    found = closure("lucency", extras)
    for name, said in sorted(found.items()):
        print(f"{name:28} {KNOWN.get(name, said)}")
    wrong = list(objections(found))
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
