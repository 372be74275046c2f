#!/usr/bin/env bash
# Rebuilds kernels/prebuilt after a change of kernels/cuda, with the compiler version that CI uses.
set -euo pipefail
cd "$(dirname "$0")"

environment=$(./toolkit.sh "${XDG_CACHE_HOME:-$HOME/.cache}/intentd-ci/cuda-13.0")
eval "$environment"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --features cuda-13 --target-dir "$scratch"
out=$(dirname "$scratch"/debug/build/intentd-kernels-*/out/intentd.fatbin)
cp "$out/intentd.fatbin" "$out/SOURCES.sha256" prebuilt/
ls -l prebuilt
