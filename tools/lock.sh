#!/bin/sh
# Pins the dependencies anew, with the hashes of their files: writes requirements/{demo,test,docs,release}.txt from
# pyproject.toml with pip-compile. PyTorch stands alone in requirements/torch.txt: its builds differ by machine.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
"$python" -m venv build/lock
build/lock/bin/python -m pip install --quiet pip-tools==7.6.2
export CUSTOM_COMPILE_COMMAND="make lock"
for lock in demo:cli,dicom test:dev docs:docs release:release; do
    name=${lock%%:*}
    # PyTorch is held at one version, because pip would otherwise pass over a local CPU build for a newer GPU one.
    cp requirements/torch.txt build/lock/constraints.txt
    if [ "$name" != demo ]; then sed -n 's/^\([a-z0-9.-]*==[^ ]*\).*/\1/p' requirements/demo.txt >> build/lock/constraints.txt; fi
    build/lock/bin/pip-compile --quiet --strip-extras --no-annotate --no-emit-find-links --no-emit-index-url \
        --no-emit-trusted-host --no-emit-options --generate-hashes --unsafe-package torch --unsafe-package lucency \
        --constraint build/lock/constraints.txt --extra "${lock#*:}" --output-file "requirements/$name.txt" pyproject.toml
    # What it has to say about the packages that are left out is said above.
    sed -i.bak -e '/^# WARNING/,$d' -e '/^# The following packages/,$d' "requirements/$name.txt"
    rm "requirements/$name.txt.bak"
done
