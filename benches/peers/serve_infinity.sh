#!/usr/bin/env bash
# Infinity on a checkpoint: benches/peers/serve_infinity.sh CHECKPOINT_DIR [PORT] [torch|optimum]
#
# Answers POST /classify {"input": ["music"], "model": "model"}. `torch` takes the checkpoint,
# `optimum` (ONNX Runtime) the directory `plain` that export.py wrote for it, which Infinity optimises
# itself. Each keeps Infinity's defaults for the rest; THREADS is the number of cores.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$(realpath "${1:?usage: serve_infinity.sh CHECKPOINT_DIR [PORT] [torch|optimum]}")
export HF_HUB_OFFLINE=1 INFINITY_ANONYMOUS_USAGE_STATS=0 DO_NOT_TRACK=1
export OMP_NUM_THREADS=${THREADS:-$(nproc)}
# Its warm-up sends 512 tokens whatever the model takes, and this engine does not cut texts.
more=()
[ "${3:-torch}" != optimum ] || more=(--no-model-warmup)
exec "$root/target/peers/infinity/bin/infinity_emb" v2 --model-id "$model" --served-model-name model \
    --engine "${3:-torch}" "${more[@]}" --device cpu --host 127.0.0.1 --port "${2:-8104}" --log-level warning
