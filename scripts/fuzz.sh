#!/usr/bin/env bash
# Fuzzes what reads bytes of strangers, guided by coverage: fuzz.sh [SECONDS] [TARGET...]
# SECONDS are those of all targets together (600). New inputs are kept in .cache/fuzz, findings in fuzz/artifacts.
# Works on the stable compiler: the flags below are what `cargo fuzz` passes, without its sanitizer, which needs nightly.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(model manifest envelope multipart cursor mp4 outputs records hook_result)

coverage="-Cpasses=sancov-module -Ccodegen-units=1"
for option in -sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table \
  -sanitizer-coverage-trace-compares; do
  coverage+=" -Cllvm-args=$option"
done
# With a target named, build scripts and macros get none of these flags.
host=$(rustc -vV | sed -n 's/^host: //p')
build="$PWD/target/fuzz"
echo "==> building the fuzz targets"
RUSTFLAGS="$coverage" CARGO_TARGET_DIR="$build" cargo build --release --manifest-path fuzz/Cargo.toml \
  --features libfuzzer --target "$host" --bins

each=$((seconds / ${#targets[@]} + 1))
for target in "${targets[@]}"; do
  echo "==> fuzzing $target for $each s"
  mkdir -p ".cache/fuzz/$target" "fuzz/artifacts/$target"
  "$build/$host/release/$target" -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
    -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" ".cache/fuzz/$target" "fuzz/seeds/$target"
done
