#!/bin/sh
# Writes the list of files that pip may take, each with its hash, beside every list of wanted packages (`*.in` -> `*.txt`).
# Run by hand after a change of an `.in` file, and to take newer versions of what those packages need; needs uv, from PyPI.
set -eu
cd "$(dirname "$0")/.."

for list in tests/generators/requirements scripts/requirements-onnxruntime scripts/requirements-onnxruntime-openvino \
        scripts/requirements-onnxruntime-gpu scripts/requirements-faces bench/requirements assets/make/requirements plugins/judges/requirements \
        plugins/examples/python/requirements plugins/examples/javascript/requirements; do
    # The libraries alone are taken out of ONNX Runtime's packages, without what their Python part needs.
    alone=
    case $list in *-onnxruntime*) alone=--no-deps ;; esac
    # For every Python from 3.11 on, whichever platform: the lists work wherever the packages do.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --only-binary :all: --upgrade $alone \
        --custom-compile-command scripts/lock_python.sh "$list.in" --output-file "$list.txt"
done
