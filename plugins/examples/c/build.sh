#!/bin/sh
# Builds the plugin in C: build.sh [OUTPUT]. Needs clang, wasi-libc (Debian packages) and Rust with its target
# wasm32-wasip2, whose linker makes the component; fetches wit-bindgen from crates.io the first time.
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
out=${1:-$root/target/examples/crowd_c.wasm}
made=$root/target/examples/c
mkdir -p "$made" "$(dirname "$out")"

[ -e /usr/lib/wasm32-wasi/libc.a ] || { echo "build.sh: wasi-libc is missing: apt-get install wasi-libc" >&2; exit 1; }
"$root/scripts/tool.sh" wit-bindgen
# Functions and types of the contract, and an object file with the world's description, which the linker looks for.
"$root/.cache/wit-bindgen/bin/wit-bindgen" c --world postprocessor --out-dir "$made" \
    "$root/wit/framehook-plugin-0.2.0" >/dev/null

for source in plugin.c "$made/postprocessor.c"; do
    # -O2 and 128-bit SIMD, as plugins in Rust are built. The generated code is not ours to warn about.
    warn=-Wno-unused
    [ "$source" = plugin.c ] && warn="-Wall -Wextra -Werror"
    # shellcheck disable=SC2086 # words on purpose
    clang --target=wasm32-wasi -O2 -msimd128 $warn -I"$made" -c "$source" -o "$made/$(basename "$source" .c).o"
done
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
"$tools/wasm-component-ld" --wasm-ld-path "$tools/gcc-ld/wasm-ld" --wasi-adapter reactor \
    --no-entry --export=_initialize --gc-sections --strip-all -O2 \
    /usr/lib/wasm32-wasi/crt1-reactor.o "$made/plugin.o" "$made/postprocessor.o" \
    "$made/postprocessor_component_type.o" -L/usr/lib/wasm32-wasi -lc -lm -o "$out"
echo "$out"
