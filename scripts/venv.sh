#!/bin/sh
# Makes a Python virtual environment in .cache/ with what a requirements file lists, and prints its
# interpreter. Does nothing when it is there and the file has not changed. The file has the hash of every
# package (scripts/lock_python.sh writes it), and only built packages are taken: none runs code while it is installed.
#
#   scripts/venv.sh NAME REQUIREMENTS.txt
set -eu

[ $# = 2 ] || { echo "usage: scripts/venv.sh NAME REQUIREMENTS.txt" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$root/.cache/venv-$1
stamp=$folder/requirements.txt

if ! cmp -s "$2" "$stamp"; then
    echo "==> installing $(sed -n 's/^\([^ #]*==[^ ]*\).*/\1/p' "$2" | tr '\n' ' ')from PyPI into .cache/venv-$1" >&2
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --only-binary=:all: --requirement "$2" >&2
    # Last: an interrupted run starts over.
    cp "$2" "$stamp"
fi
echo "$folder/bin/python"
