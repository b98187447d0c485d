#!/bin/sh
# For whoever has a GPU of NVIDIA: runs the demo on it, compares what is found with what the processor finds, and prints
# frames a second. Takes some seconds once everything is built and fetched (`make build`, `make setup-gpu`: CUDA's own
# libraries, 1.5 GB; the driver is the machine's). A library of your own is named by FRAMEHOOK_ONNXRUNTIME_GPU.
set -eu
cd "$(dirname "$0")/.."

if ! ls /dev/nvidia[0-9]* >/dev/null 2>&1; then
    echo "gpu-check.sh: this machine has no GPU of NVIDIA, or not its driver: there is no /dev/nvidia0" >&2
    exit 1
fi
[ -x target/release/framehook ] || make build
[ -n "${FRAMEHOOK_ONNXRUNTIME_GPU-}" ] || make setup-gpu
exec python3 scripts/provider_check.py cuda
