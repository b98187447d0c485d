#!/bin/sh
# Fetches ONNX Runtime from PyPI into .cache/onnxruntime/ and keeps nothing of it but the shared
# library. Prints the library's path. Safe to call again: it does nothing when the library is there.
# scripts/requirements-onnxruntime.txt says which version, and of which hash a file may be that is taken.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
list=$root/scripts/requirements-onnxruntime.txt
version=$(sed -n 's/^onnxruntime==\([^ ]*\).*/\1/p' "$list")
cache=$root/.cache/onnxruntime
library=$cache/libonnxruntime.so

if [ -e "$library" ] && cmp -s "$list" "$cache/requirements.txt"; then
    echo "$library"
    exit 0
fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "onnxruntime.sh: python3 with pip is needed to fetch ONNX Runtime $version from PyPI;" \
         "on Debian: apt-get install python3-pip. Or set FRAMEHOOK_ONNXRUNTIME to a libonnxruntime.so of your own." >&2
    exit 1
fi

mkdir -p "$cache"
download=$(mktemp -d "$cache/download.XXXXXX")
trap 'rm -rf "$download"' EXIT

echo "fetching ONNX Runtime $version from PyPI (24 MB)" >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$download" --requirement "$list" >&2; then
    echo "onnxruntime.sh: pip could not download onnxruntime $version for this Python and machine" \
         "($(python3 --version), $(uname -sm)); its message is above" >&2
    exit 1
fi

# The wheel carries the library under its versioned name; a link gives it the plain one.
python3 - "$download" "$cache" <<'PYTHON'
import os, pathlib, shutil, sys, zipfile

download, cache = map(pathlib.Path, sys.argv[1:])
(wheel,) = download.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    names = [n for n in archive.namelist() if pathlib.PurePosixPath(n).name.startswith("libonnxruntime.so")]
    if not names:
        sys.exit(f"onnxruntime.sh: {wheel.name} contains no libonnxruntime.so")
    for name in names:
        part = download / pathlib.PurePosixPath(name).name
        with archive.open(name) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target)
        os.replace(part, cache / part.name)
real = max((pathlib.PurePosixPath(n).name for n in names), key=len)
if real != "libonnxruntime.so":
    link = download / "libonnxruntime.so"
    link.symlink_to(real)
    os.replace(link, cache / "libonnxruntime.so")
PYTHON

# Written last: an interrupted run starts over.
cp "$list" "$cache/requirements.txt"
echo "$library"
