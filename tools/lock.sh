#!/bin/sh
# Pins the dependencies anew: writes requirements/{demo,test,docs}.txt from pyproject.toml with pip-compile.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
"$python" -m venv build/lock
build/lock/bin/python -m pip install --quiet pip-tools==7.6.2
export CUSTOM_COMPILE_COMMAND="make lock"
for lock in demo:cli,dicom test:dev docs:docs; do
    name=${lock%%:*}
    # PyTorch is held at one version, because pip would otherwise pass over a local CPU build for a newer GPU one.
    printf 'torch==2.13.0\n' > build/lock/constraints.txt
    if [ "$name" = test ]; then cat requirements/demo.txt >> build/lock/constraints.txt; fi
    build/lock/bin/pip-compile --quiet --strip-extras --no-annotate --no-emit-find-links --no-emit-index-url \
        --no-emit-trusted-host --no-emit-options --constraint build/lock/constraints.txt \
        --extra "${lock#*:}" --output-file "requirements/$name.txt" pyproject.toml
    # The local version label (+cpu) goes, so that the lock fits every build of PyTorch.
    sed -i.bak -e 's/^\(torch[a-z]*==[0-9.]*\)+cpu/\1/' -e '/^lucency/d' "requirements/$name.txt"
    rm "requirements/$name.txt.bak"
done
