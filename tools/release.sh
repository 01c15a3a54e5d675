#!/bin/sh
# Builds a release into dist/ and tries it as a user would: version and changelog agree, wheel and sdist are built and
# checked, the wheel is installed into an empty environment and explains the shipped scan; an SBOM (CycloneDX) and the
# licences of what it brings lie beside it. Publishes nothing.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
index=${2:-}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
grep -q "^## $version\b" CHANGELOG.md || { echo "CHANGELOG.md has no section '## $version'; write it." >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || { echo "There are changes that are not committed; commit or stash them." >&2; exit 1; }

rm -rf build/release build/empty dist
"$python" -m venv build/release
tool=build/release/bin/python
"$tool" -m pip install --quiet --no-deps --require-hashes --requirement requirements/release.txt
"$tool" -m build --outdir dist
"$tool" -m twine check --strict dist/*
"$tool" -m check_wheel_contents dist/*.whl

"$python" -m venv build/empty
empty=build/empty/bin/python
"$empty" -m pip install --quiet --no-deps --require-hashes --requirement requirements/demo.txt
"$empty" -m pip install --quiet ${index:+--extra-index-url "$index"} --requirement requirements/torch.txt
"$empty" -m pip install --quiet --no-deps dist/*.whl
"$empty" -m pip check
(cd build && empty/bin/lucency --version && empty/bin/lucency explain \
    "$(empty/bin/python -c 'import lucency, pathlib; print(pathlib.Path(lucency.__file__).parent / "phantom" / "demo.png")')" \
    --model lucency:phantom --target effusion --out release-demo)

"$empty" tools/licences.py cli dicom > "dist/licences-$version.txt"
"$tool" -m cyclonedx_py environment "$empty" --pyproject pyproject.toml --output-format JSON \
    --output-file "dist/lucency-$version.cdx.json"
"$tool" -m pip_audit --requirement requirements/demo.txt --no-deps --disable-pip || {
    # It says for itself what it found; without a network it finds nothing out.
    "$tool" -c 'import urllib.request; urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=10)' 2>/dev/null \
        && { echo "pip-audit objects, see above." >&2; exit 1; }
    echo "Skipped pip-audit: its database of known faults cannot be reached from here."
}
ls -l dist
