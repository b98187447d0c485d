#!/bin/sh
# Builds cargo-deny from crates.io into .cache/deny/bin, for `make lint`. Safe to call again: it does nothing when it is there.
set -eu
cd "$(dirname "$0")/.."

# Pinned, with its own lock file (`--locked`): what passes today passes tomorrow.
version=0.20.2

cache=.cache/deny
[ "$(cat "$cache/version" 2>/dev/null)" = "$version" ] && exit 0

rm -rf "$cache"
mkdir -p "$cache"
echo "==> building cargo-deny $version for the lints (a minute and a half on two cores)" >&2
# As in s3.sh: a target folder of its own, and not optimised, because it runs for a second and is built for minutes.
if ! CARGO_TARGET_DIR="$PWD/$cache/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install cargo-deny --version "=$version" --locked --root "$PWD/$cache" --no-track --quiet >&2; then
    echo "deny.sh: cargo could not build cargo-deny $version; its message is above" >&2
    exit 1
fi
rm -rf "$cache/target"

# Written last: an interrupted run starts over.
echo "$version" >"$cache/version"
