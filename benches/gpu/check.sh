#!/usr/bin/env bash
# Everything that needs a GPU, in one go of eight minutes at most, the most telling first.
#
#     benches/gpu/pack.sh                     here: builds and packs .gpu/package.tar.gz
#     benches/gpu/check.sh OUTPUT_FOLDER      on the machine with the GPU, from the same tree; or, from the package alone:
#     tar xzf package.tar.gz && tree/check.sh OUTPUT_FOLDER
#
# Needs there: an NVIDIA driver, cuBLASLt of CUDA 13 (PyTorch brings it), python3 with torch and transformers for the
# comparison, compute-sanitizer for the memory checks. What is missing is said and left out. Each part has a time limit
# and writes what it knows as soon as it knows it, so a run that is cut off still tells. OUTPUT_FOLDER/summary.txt says
# how each part ended. Exit code 2 when there is no GPU to be had.
set -uo pipefail

# All parts together, in seconds; the limits below add up to it.
budget=${GPU_CHECK_SECONDS:-480}
out=${1:?usage: benches/gpu/check.sh OUTPUT_FOLDER}
mkdir -p "$out" || exit
out=$(realpath "$out")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

here=$(dirname "$(realpath "$0")")
if [ -x "$here/gpu" ]; then
    cd "$here" || exit
else
    tar -C "$scratch" -xzf "$here/../../.gpu/package.tar.gz" || exit
    cd "$scratch/tree" || exit
fi

libraries=$(python3 -c 'import os, nvidia; print(*(
    os.path.join(root, folder, "lib") for root in nvidia.__path__ for folder in os.listdir(root)
), sep=":")' 2> /dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

{
    date -u
    echo "commit $(cat commit)"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
    nproc
} > "$out/summary.txt" 2>&1

# part FILE SECONDS COMMAND...: of at most eight files that may come back, some belong to several parts.
part() {
    local file=$1 seconds=$2 start=$SECONDS code
    shift 2
    [ "$seconds" -le $((budget - SECONDS)) ] || seconds=$((budget - SECONDS))
    if [ "$seconds" -lt 5 ]; then
        echo "$file: left out, no time: $*" | tee -a "$out/summary.txt"
        return 1
    fi
    echo "== $*" >> "$out/$file.txt"
    # A process that hangs in the driver does not end at the first signal.
    timeout -k 5 "$seconds" "$@" >> "$out/$file.txt" 2>&1
    code=$?
    echo "$file: exit code $code after $((SECONDS - start)) s: $*" | tee -a "$out/summary.txt"
    tail -n 14 "$out/$file.txt"
    return "$code"
}

compare_with_torch() {
    local code
    python3 -u torch_baseline.py ./gpu "$scratch/base" 7
    code=$?
    cat "$scratch/base/times.json"
    return "$code"
}

serve_bert_base() {
    # Writes the checkpoint, should the comparison not have done so.
    ./gpu drive "$scratch/base" < /dev/null || return
    ./clients --clients 256 --seconds 10 --requests 0 --device cuda --tolerance 1 --model "$scratch/base"
}

profile_bert_base() {
    local code
    ./intentd profile --device cuda --model "$scratch/base" --duration 20s --tokens 12 \
        --slo 10ms,20ms,50ms --json "$scratch/profile.json"
    code=$?
    cat "$scratch/profile.json"
    return "$code"
}

sanitize() {
    part sanitizer "$2" compute-sanitizer --tool "$1" --error-exitcode 9 ./gpu check --sanitize
}

export -f compare_with_torch serve_bert_base profile_bert_base
export scratch
part quick 45 ./gpu check --quick
# The program's code for a device that it cannot open: nothing below would say more.
if [ $? = 2 ]; then
    cat "$out/summary.txt"
    exit 2
fi
part time 70 ./gpu time
part torch 120 bash -c compare_with_torch
part check 60 ./gpu check
part clients 30 ./clients --clients 256 --seconds 10 --requests 10000 --device cuda --tolerance 1e-2
part clients 35 bash -c serve_bert_base
part profile 35 bash -c profile_bert_base
sanitize memcheck 35
sanitize initcheck 25
# Slow, and the library's own kernels may set it off: last, and to be read with care.
sanitize racecheck 25
cat "$out/summary.txt"
