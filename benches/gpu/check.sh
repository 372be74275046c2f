#!/usr/bin/env bash
# Everything that needs a GPU, in one go of less than ten minutes, the most telling first.
#
#     benches/gpu/pack.sh                    here: builds into .gpu/
#     benches/gpu/check.sh OUTPUT_FOLDER     on the machine with the GPU, from the same tree
#
# Needs there: an NVIDIA driver, cuBLASLt of CUDA 13 (PyTorch brings it), python3 with torch and
# transformers for the comparison, compute-sanitizer for the memory checks. What is missing is said
# and left out. Each part has a time limit; OUTPUT_FOLDER/summary.txt says how each ended.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: benches/gpu/check.sh OUTPUT_FOLDER}
mkdir -p "$out"
scratch=$(mktemp -d)

libraries=$(python3 -c 'import os, nvidia; print(*(
    os.path.join(root, folder, "lib") for root in nvidia.__path__ for folder in os.listdir(root)
), sep=":")' 2> /dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Where the programs look for the data sets: beside the tree, or carried in .gpu.
if [ ! -e ../shared/data ] && mkdir -p ../shared 2> /dev/null; then
    ln -sfn "$PWD/.gpu" ../shared/data
fi

{
    date -u
    echo "commit $(cat .gpu/commit)"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
    nproc
} > "$out/summary.txt" 2>&1

# part NAME SECONDS COMMAND...: at most eight files may come back, so parts of one name share one.
part() {
    local name=$1 seconds=$2 start=$SECONDS rc
    shift 2
    echo "== $*" >> "$out/$name.txt"
    # A process that hangs in the driver does not end at the first signal.
    timeout -k 5 "$seconds" "$@" >> "$out/$name.txt" 2>&1
    rc=$?
    echo "$name: exit code $rc after $((SECONDS - start)) s: $*" | tee -a "$out/summary.txt"
    tail -n 14 "$out/$name.txt"
}

serve_bert_base() {
    # Writes the checkpoint, should the comparison not have done so.
    .gpu/gpu drive "$scratch/base" < /dev/null || return
    .gpu/clients --clients 256 --seconds 10 --requests 0 --device cuda --tolerance 1 \
        --model "$scratch/base"
}

profile_bert_base() {
    .gpu/intentd profile --device cuda --model "$scratch/base" --duration 20s --tokens 12 \
        --slo 10ms,20ms,50ms --json "$out/profile.json"
}

sanitize() {
    part sanitizer "$2" compute-sanitizer --tool "$1" --error-exitcode 9 .gpu/gpu check --sanitize
}

export -f serve_bert_base profile_bert_base
export scratch out
part quick 60 .gpu/gpu check --quick
part time 75 .gpu/gpu time
part torch 150 python3 -u benches/gpu/torch_baseline.py .gpu/gpu "$scratch/base" 7
cp "$scratch/base/times.json" "$out/" 2> /dev/null
part clients 40 .gpu/clients --clients 256 --seconds 10 --requests 10000 --device cuda --tolerance 1e-2
part clients 40 bash -c serve_bert_base
part profile 40 bash -c profile_bert_base
sanitize memcheck 40
sanitize initcheck 30
part check 60 .gpu/gpu check
# Slow, and the library's own kernels may set it off: last, and to be read with care.
sanitize racecheck 40
cat "$out/summary.txt"
