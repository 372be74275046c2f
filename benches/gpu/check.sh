#!/usr/bin/env bash
# Everything that needs a GPU, in one go of eight minutes at most, the most telling first.
#
#     benches/gpu/pack.sh                     here: builds and packs .gpu/package.tar.gz
#     benches/gpu/check.sh OUTPUT_FOLDER      on the machine with the GPU, from the same tree; or, from the package alone:
#     tar xzf package.tar.gz && tree/check.sh OUTPUT_FOLDER
#
# Needs there: an NVIDIA driver, cuBLASLt of CUDA 13 (PyTorch brings it), python3 with torch and transformers for the
# comparison, compute-sanitizer for the memory checks. Whatever is missing is reported and skipped. Each part has a time
# limit and writes its results as they come, so an interrupted run still leaves some. OUTPUT_FOLDER/summary.txt says how
# each part ended. Exit code 1 when a part failed, 2 when the device could not be opened, 3 when nothing could be run.
set -uo pipefail

# All parts together, in seconds; the limits below add up to it.
budget=${GPU_CHECK_SECONDS:-480}
out=${1:?usage: benches/gpu/check.sh OUTPUT_FOLDER}
mkdir -p "$out" || exit 3
if [ -n "$(ls -A "$out")" ]; then
    echo "$out is not empty: its files would be mixed with those of this run" >&2
    exit 3
fi
out=$(realpath "$out")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

here=$(dirname "$(realpath "$0")")
if [ -x "$here/gpu" ]; then
    cd "$here" || exit 3
elif tar -C "$scratch" -xzf "$here/../../.gpu/package.tar.gz"; then
    cd "$scratch/tree" || exit 3
else
    echo "no .gpu/package.tar.gz: run benches/gpu/pack.sh" >&2
    exit 3
fi

libraries=$(timeout -k 2 10 python3 -c 'import os, nvidia; print(*(
    os.path.join(root, folder, "lib") for root in nvidia.__path__ for folder in os.listdir(root)
), sep=":")' 2> /dev/null)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

{
    date -u
    echo "commit $(cat commit)"
    timeout -k 2 10 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv
    nproc
} > "$out/summary.txt" 2>&1

# part FILE SECONDS COMMAND...: of at most eight files that may come back, some belong to several parts.
part() {
    local file=$1 seconds=$2 start=$SECONDS left code
    shift 2
    # Five seconds for a process that hangs in the driver and does not end at the first signal.
    left=$((budget - SECONDS - 5))
    [ "$seconds" -le "$left" ] || seconds=$left
    if [ "$seconds" -lt 5 ]; then
        echo "$file: left out, no time: $*" | tee -a "$out/summary.txt"
        failed=1
        return 1
    fi
    echo "== $*" >> "$out/$file.txt"
    timeout -k 5 "$seconds" "$@" >> "$out/$file.txt" 2>&1
    code=$?
    [ "$code" = 0 ] || failed=1
    echo "$file: exit code $code after $((SECONDS - start)) s: $*" | tee -a "$out/summary.txt"
    tail -n 14 "$out/$file.txt"
    return "$code"
}

# What a part has written to a file besides, also when it was cut off.
append() {
    [ ! -e "$2" ] || cat "$2" >> "$out/$1.txt"
}

serve_bert_base() {
    # Writes the checkpoint, should the comparison not have done so.
    ./gpu drive "$scratch/base" < /dev/null || return
    ./clients --clients 256 --seconds 10 --requests 0 --device cuda --tolerance 1 --model "$scratch/base"
}

sanitize() {
    part sanitizer "$2" compute-sanitizer --tool "$1" --error-exitcode 9 ./gpu check --sanitize
}

export -f serve_bert_base
export scratch
failed=0
part quick 45 ./gpu check --quick
# Exit code 2: the program could not open the device. Nothing below would say more.
if [ $? = 2 ]; then
    cat "$out/summary.txt"
    exit 2
fi
part time 70 ./gpu time
part torch 120 python3 -u torch_baseline.py ./gpu "$scratch/base" 7
append torch "$scratch/base/times.json"
part check 60 ./gpu check
part clients 30 ./clients --clients 256 --seconds 10 --requests 10000 --device cuda --tolerance 1e-2
part clients 35 bash -c serve_bert_base
part profile 35 ./intentd profile --device cuda --model "$scratch/base" --duration 20s --tokens 12 \
    --slo 10ms,20ms,50ms --json "$scratch/profile.json"
append profile "$scratch/profile.json"
sanitize memcheck 35
sanitize initcheck 25
# Slow, and the library's own kernels may set it off: last, and to be read with care.
sanitize racecheck 25
cat "$out/summary.txt"
exit "$failed"
