#!/usr/bin/env bash
# Registers, shared memory and spills of every kernel, for the architectures given (75 and 90 when
# none is). Fails when a kernel spills or when the compiler warns.
#
#     kernels/resources.sh [75 80 86 89 90]
set -euo pipefail
cd "$(dirname "$0")"
nvcc=${NVCC:-${CUDA_HOME:+$CUDA_HOME/bin/}nvcc}
[ $# -gt 0 ] || set -- 75 90

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compile() {
    "$nvcc" -cubin -O3 -std=c++17 -Werror all-warnings -Xptxas -v "-arch=sm_$1" \
        -o "$scratch/$1.cubin" cuda/intentd.cu 2> "$scratch/$1.log" || {
        cat "$scratch/$1.log"
        return 1
    }
}
children=()
for architecture in "$@"; do
    compile "$architecture" &
    children+=($!)
done
for child in "${children[@]}"; do
    wait "$child"
done

cat "$scratch"/*.log | awk '
    # The number before `words` in this line, 0 when they are not there.
    function before(words,   text) {
        if (!match($0, "[0-9]+ " words)) return 0
        text = substr($0, RSTART, RLENGTH); sub(/ .*/, "", text); return text + 0
    }
    /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2]; arch = quoted[4] }
    /bytes stack frame/ { spilled = before("bytes spill stores") + before("bytes spill loads") }
    /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
        printf "%-6s %-44s %9d %13d %12d\n", arch, name, registers, before("bytes smem"), spilled
        kernels++; if (spilled > 0) spilling++
    }
    BEGIN { printf "%-6s %-44s %9s %13s %12s\n", "", "kernel", "registers", "static shared", "spilled bytes" }
    END {
        printf "%d kernels, %d of them spill\n", kernels, spilling
        exit !(kernels > 0 && spilling == 0)
    }'
