#!/usr/bin/env bash
# Prints registers, shared memory and spills of every kernel for the given architectures (default: 75 and 90). Fails
# when a kernel spills, when the compiler warns, or when the first load of a skinny product is not one of its weights:
# skinny.cu depends on early loads of the weights, and the assembler is free to delay them.
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
    # The number before `words` in this line, or 0.
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

for architecture in "$@"; do
    echo "architecture sm_$architecture"
    nvdisasm -c "$scratch/$architecture.cubin"
done | awk '
    /^architecture/ { arch = $2 }
    # Turing has no bf16 products; those kernels end at once.
    /^\.text\./ {
        name = substr($1, 7); sub(/:$/, "", name)
        waiting = name ~ /^skinny_/ && !(arch == "sm_75" && name ~ /bf16/)
        products += waiting
    }
    waiting && / LDG/ {
        waiting = 0
        if ($0 !~ /LDG[A-Z0-9.]*\.128/) { print arch, name ": its first load is" $0; late++ }
    }
    END {
        printf "%d skinny products, %d of them ask for something before their weights\n", products, late
        exit !(products > 0 && late == 0)
    }'
