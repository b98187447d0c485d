#!/bin/sh
# Builds one of the tools that come from crates.io into .cache/NAME/bin: tool.sh s3|deny|mutants|wit-bindgen. Safe to call again, and
# by several at a time: it does nothing when the tool is there.
set -eu
cd "$(dirname "$0")/.."

# Pinned, each with its own lock file (`--locked`): what passes today passes tomorrow.
name=${1-}
case $name in
    s3) crate=s3s-fs version=0.14.1 features="--features binary" what="an S3 server for tests (a minute)" ;;
    deny) crate=cargo-deny version=0.20.2 features= what="the check of licences and origins (a minute and a half)" ;;
    mutants) crate=cargo-mutants version=27.1.0 features= what="mutation testing (a minute)" ;;
    wit-bindgen) crate=wit-bindgen-cli version=0.61.0 features="--no-default-features --features c" what="bindings for plugins in C (a minute)" ;;
    *) echo "usage: scripts/tool.sh s3|deny|mutants|wit-bindgen" >&2; exit 2 ;;
esac

# Who comes second waits, and finds it there.
mkdir -p .cache
exec 9>".cache/$name.lock"
flock 9

cache=.cache/$name
[ "$(cat "$cache/version" 2>/dev/null)" = "$version" ] && exit 0

rm -rf "$cache"
mkdir -p "$cache"
echo "==> building $crate $version: $what" >&2
# In a target folder of its own: what it is built from is of no use to the rest. Not optimised: that would take twice as
# long, and these run for seconds.
# shellcheck disable=SC2086  # no features are no argument
if ! CARGO_TARGET_DIR="$PWD/$cache/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install "$crate" --version "=$version" --locked $features --root "$PWD/$cache" --no-track --quiet >&2; then
    echo "tool.sh: cargo could not build $crate $version; its message is above" >&2
    exit 1
fi
rm -rf "$cache/target"

# Written last: an interrupted run starts over.
echo "$version" >"$cache/version"
