#!/bin/sh
# Builds the plugin in Python: build.sh [OUTPUT]. Needs Python 3.11 or newer; fetches componentize-py from PyPI the
# first time (43 MB).
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
out=${1:-$root/target/examples/crowd_python.wasm}
mkdir -p "$(dirname "$out")"

python=$("$root/scripts/venv.sh" example-python requirements.txt)
# Without WASI: Python's library asks for sockets, which plugins do not get. What would need them ends the call, and
# so does `print`: write to the log.
"$(dirname "$python")/componentize-py" --quiet --wit-path "$root/wit/framehook-plugin-0.2.0" --world postprocessor \
    componentize --stub-wasi app --output "$out" >&2
echo "$out"
