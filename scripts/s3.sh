#!/bin/sh
# Builds an S3 server, s3s-fs from crates.io, into .cache/s3/bin, for tests only: one minute on two cores.
# Safe to call again: it does nothing when it is there.
set -eu
cd "$(dirname "$0")/.."

# Pinned, with its own lock file (`--locked`): the tests see the same server everywhere.
version=0.14.1

cache=.cache/s3
[ "$(cat "$cache/version" 2>/dev/null)" = "$version" ] && exit 0

rm -rf "$cache"
mkdir -p "$cache"
echo "==> building the S3 server s3s-fs $version for tests (one minute)" >&2
# A target folder of its own: what it is built from is of no use to the rest. Not optimised: that takes half the time, and the
# tests that use it take two seconds more.
if ! CARGO_TARGET_DIR="$PWD/$cache/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install s3s-fs --version "=$version" --locked \
        --features binary --root "$PWD/$cache" --no-track --quiet >&2; then
    echo "s3.sh: cargo could not build s3s-fs $version; its message is above" >&2
    exit 1
fi
rm -rf "$cache/target"

# Written last: an interrupted run starts over.
echo "$version" >"$cache/version"
