#!/bin/sh
# Installs what a build needs and this machine lacks; says what it does, and does nothing twice.
#
#   scripts/setup.sh            what `make build` and `make demo` need
#   scripts/setup.sh --tests    and what `make test` and `make up-cluster` need
#   scripts/setup.sh --bench    and what only `make bench` needs besides
#
# Debian packages come through apt-get (as root or by sudo), the Rust toolchain and its wasm target
# through rustup, ONNX Runtime from PyPI and (for tests) Apache Kafka from Maven Central and an S3 server
# from crates.io into .cache/, and generators of clients from PyPI and npm. A run that finds everything needs no network.
set -eu
cd "$(dirname "$0")/.."

# OpenCV without its 500 MB of unneeded parts, and clang for its bindings: the library is not enough.
packages="libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev
          libclang-14-dev clang g++ pkg-config"
# FFmpeg's libraries, which decode videos.
packages="$packages libavcodec-dev libavformat-dev libavutil-dev libswscale-dev"
# librdkafka, which the `framehook` executable is linked with, is built from source: Debian's is too old.
# Its TLS and that of connections to an S3 store is the system's OpenSSL.
packages="$packages cmake libssl-dev"
# It includes the header of libcurl even where it is built without (librdkafka 2.12.1); nothing is linked with it. The package
# is not asked for by name, because others that bring the header exclude it.
[ -e /usr/include/curl/curl.h ] || [ -e "/usr/include/$(uname -m)-linux-gnu/curl/curl.h" ] ||
    packages="$packages libcurl4-openssl-dev"
case "${1-}" in
    "") ;;
    --tests | --bench)
        # curl follows the guides; docker-registry holds plugins; ffmpeg makes clips and judges what is decoded; openssl makes a
        # certificate; util-linux runs PostgreSQL as a user that is not root; what an old release wrote is packed with xz;
        # wasi-libc is for the example in C.
        packages="$packages curl docker-registry ffmpeg haproxy openssl postgresql-15 redis-server util-linux wasi-libc xz-utils"
        # Apache Kafka runs on any Java from 17 on, and Maven fetches it.
        command -v java >/dev/null || packages="$packages default-jre-headless"
        command -v mvn >/dev/null || packages="$packages maven"
        # The load of bench/rest.py.
        [ "$1" = --tests ] || packages="$packages wrk"
        ;;
    *) echo "setup: unknown option $1; usage: scripts/setup.sh [--tests | --bench]" >&2; exit 2 ;;
esac

say() { echo "==> setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# --- Python: runs the scripts, and fetches ONNX Runtime -----------------------------------------

command -v python3 >/dev/null || packages="$packages python3 python3-pip python3-venv"
if command -v python3 >/dev/null; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is $(python3 --version), but 3.11 or newer is needed"
    python3 -m pip --version >/dev/null 2>&1 || packages="$packages python3-pip"
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
fi

# --- Debian packages ----------------------------------------------------------------------------

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    fail "this is not Debian or a relative of it; Framehook is built and tested on Debian 12 (x86-64)." \
         "The packages it needs there: $(echo $packages)"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done

if [ -z "$missing" ]; then
    say "Debian packages are there"
else
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        fail "Debian packages are missing, and this is neither root nor able to use sudo. As root, run:
    apt-get update && apt-get install -y --no-install-recommends$missing"
    fi
    say "installing Debian packages:$missing"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    case $missing in *postgresql*)
        # Only the executables are wanted: without this the package would make and start a server of the system.
        $as_root mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" |
            $as_root tee /etc/postgresql-common/createcluster.d/framehook.conf >/dev/null ;;
    esac
    # Of these only the executables are wanted too, and a unit that is masked is not started. One that the
    # machine has already stays as it is: its package is not missing.
    for service in redis-server haproxy docker-registry; do
        case $missing in *$service*)
            unit=/etc/systemd/system/$service.service
            [ -e "$unit" ] || [ -L "$unit" ] || { $as_root mkdir -p "${unit%/*}"; $as_root ln -s /dev/null "$unit"; } ;;
        esac
    done
    # The lists may be old or absent; a failure shows what apt-get said.
    for step in "update" "install -y --no-install-recommends$missing"; do
        # shellcheck disable=SC2086 # words on purpose
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q $step >"$log" 2>&1 </dev/null || {
            tail -n 20 "$log" >&2
            fail "apt-get $step failed; its last lines are above"
        }
    done
fi

# --- Rust ---------------------------------------------------------------------------------------

command -v rustup >/dev/null && command -v cargo >/dev/null ||
    fail "rustup and cargo are needed and not on the PATH; install them as https://rustup.rs describes," \
         "then open a new shell (or run: . \"\$HOME/.cargo/env\")"

toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
if rustup toolchain list | grep -q "^$toolchain-"; then
    say "Rust $toolchain is there"
else
    say "installing Rust $toolchain through rustup"
    rustup toolchain install "$toolchain" --profile minimal --no-self-update
fi
components=$(rustup component list --toolchain "$toolchain" --installed)
for component in rustfmt clippy; do
    echo "$components" | grep -q "^$component" || {
        say "adding $component"
        rustup component add --toolchain "$toolchain" "$component"
    }
done
if rustup target list --toolchain "$toolchain" --installed | grep -qx wasm32-wasip2; then
    say "target wasm32-wasip2 is there"
else
    say "adding the target wasm32-wasip2"
    rustup target add --toolchain "$toolchain" wasm32-wasip2
fi

# --- ONNX Runtime -------------------------------------------------------------------------------

library=$(sh scripts/onnxruntime.sh)
say "ONNX Runtime is in ${library#"$PWD"/}"

# --- Servers for tests and benchmarks -----------------------------------------------------------

if [ -n "${1-}" ]; then
    # Not beside the executables: tests name it where they mean it.
    scripts/onnxruntime.sh openvino >/dev/null
    say "ONNX Runtime with OpenVINO is in .cache/onnxruntime-openvino"
    scripts/kafka/fetch.sh
    say "Apache Kafka is in .cache/kafka/lib"
    scripts/tool.sh s3
    say "the S3 server is in .cache/s3/bin"
    scripts/generators.sh
    say "generators of clients are in .cache/generators"
    scripts/venv.sh assets assets/make/requirements.txt >/dev/null
    say "Python packages that make and judge models are in .cache/venv-assets"
fi
