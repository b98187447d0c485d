#!/bin/sh
# Fetches ONNX Runtime from PyPI into .cache/ and keeps nothing of it but shared libraries. Prints the path of the one to
# load. Safe to call again: it does nothing when the library is there.
#
#   scripts/onnxruntime.sh             .cache/onnxruntime: for the processor
#   scripts/onnxruntime.sh openvino    .cache/onnxruntime-openvino: with OpenVINO
#   scripts/onnxruntime.sh gpu         .cache/onnxruntime-gpu: with CUDA, and what that needs
#
# scripts/requirements-onnxruntime*.txt say which versions, and of which hash a file may be that is taken.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
case "${1-}" in
    "") name=onnxruntime size="24 MB" ;;
    openvino) name=onnxruntime-openvino size="84 MB" ;;
    gpu) name=onnxruntime-gpu size="1.5 GB" ;;
    *) echo "onnxruntime.sh: unknown variant $1; usage: scripts/onnxruntime.sh [openvino | gpu]" >&2; exit 2 ;;
esac
list=$root/scripts/requirements-$name.txt
version=$(sed -n "s/^$name==\([^ ]*\).*/\1/p" "$list")
cache=$root/.cache/$name
library=$cache/libonnxruntime.so

if [ -e "$library" ] && cmp -s "$list" "$cache/requirements.txt"; then
    echo "$library"
    exit 0
fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "onnxruntime.sh: python3 with pip is needed to fetch $name $version from PyPI;" \
         "on Debian: apt-get install python3-pip. Or name a libonnxruntime.so of your own (docs/settings.md)." >&2
    exit 1
fi

mkdir -p "$cache"
download=$(mktemp -d "$cache/download.XXXXXX")
trap 'rm -rf "$download"' EXIT

echo "fetching $name $version from PyPI ($size)" >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$download" --requirement "$list" >&2; then
    echo "onnxruntime.sh: pip could not download $name $version for this Python and machine" \
         "($(python3 --version), $(uname -sm)); its message is above" >&2
    exit 1
fi

# All libraries of all wheels in one folder, where they find each other. That to load has a versioned name; a link gives it
# the plain one. Of the wheel for the processor, nothing else is used.
python3 - "$download" "$cache" "$name" <<'PYTHON'
import os, pathlib, re, shutil, sys, zipfile

download, cache = map(pathlib.Path, sys.argv[1:3])
wanted = re.compile(r"libonnxruntime\.so.*" if sys.argv[3] == "onnxruntime" else r"lib.*\.so(\.[0-9.]*)?")
main = None
for wheel in download.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            plain = pathlib.PurePosixPath(name).name
            if not wanted.fullmatch(plain):
                continue
            part = download / plain
            with archive.open(name) as source, open(part, "wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(part, cache / plain)
            if plain.startswith("libonnxruntime.so") and len(plain) > len(main or ""):
                main = plain
if main is None:
    sys.exit("onnxruntime.sh: the package contains no libonnxruntime.so")
if main != "libonnxruntime.so":
    link = download / "libonnxruntime.so"
    link.symlink_to(main)
    os.replace(link, cache / "libonnxruntime.so")
PYTHON

# Written last: an interrupted run starts over.
cp "$list" "$cache/requirements.txt"
echo "$library"
