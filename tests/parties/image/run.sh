#!/usr/bin/env bash
# Runs the program of an image as a strict node would: its user, no capabilities, nothing to write to, process 1, a limit of
# memory. Ends with 0 only if every check holds.
#
#     tests/parties/image/run.sh cpu|cuda ROOT CONFIG
#
# ROOT is the image's file system, CONFIG the image's configuration as JSON. build.sh calls it.
set -euo pipefail
shopt -s inherit_errexit
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kind=$1 root=$2 config=$3
# That of deploy/overlays/cpu.
memory=$((1 << 30))
starts=5

work=$(mktemp -d)
cgroup=/sys/fs/cgroup/memory/intentd-image-$$
node='' program=''
finally() {
    local code=$?
    # Its namespaces end with it.
    [ -z "$node" ] || kill -KILL "$node" 2> "$work/kill" || true
    wait
    rm -rf "$work"
    [ ! -d "$cgroup" ] || rmdir "$cgroup"
    exit "$code"
}
trap finally EXIT

fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/log" ] || cat "$work/log" >&2
    exit 1
}

limit_memory() {
    mkdir "$cgroup" || fail "memory is limited by control groups of version 1, which this machine does not have"
    echo "$memory" > "$cgroup/memory.limit_in_bytes"
}

# Sets node and program, its process here: start [ARGUMENT...]
start() {
    # shellcheck disable=SC2016 # Of the inner shell.
    bash -c 'echo $$ > "$0/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --net --ipc --uts "$@"' \
        "$cgroup" "$here/node.sh" "$root" "$config" "$@" > "$work/log" 2>&1 &
    node=$!
    until program=$(pgrep --parent "$node"); do
        kill -0 "$node" 2> "$work/kill" || fail "it does not start"
    done
}

inside() {
    nsenter --target "$program" --net "$@"
}

# Waits for an answer and sets took, the milliseconds since began.
await_answer() {
    until [ "$(inside curl -s "http://127.0.0.1:$port/predict?query=music")" = PlayMusic ]; do
        kill -0 "$node" 2> "$work/kill" || fail "it ends before it answers"
        [ $(($(date +%s%N) - began)) -lt 60000000000 ] || fail "no answer in 60 s"
        sleep 0.01
    done
    took=$((($(date +%s%N) - began) / 1000000))
}

# Sets took, the milliseconds from SIGTERM to the end.
stop() {
    local code=0
    began=$(date +%s%N)
    kill -TERM "$program"
    wait "$node" || code=$?
    node=''
    took=$((($(date +%s%N) - began) / 1000000))
    [ "$code" = 0 ] || fail "it ends with $code after SIGTERM"
}

# status NAME VALUE: what the kernel says of the process.
status() {
    local value
    value=$(sed -n "s/^$1:[[:space:]]*//p" "/proc/$program/status" | xargs)
    [ "$value" = "$2" ] || fail "$1 is '$value', not '$2'"
}

confined() {
    local none=0000000000000000 writable
    status Name intentd
    status Uid '65532 65532 65532 65532'
    status Gid '65532 65532 65532 65532'
    status Groups ''
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
        status $set $none
    done
    status NoNewPrivs 1
    status NSpid "$program 1"
    writable=$(awk '$6 !~ /^ro(,|$)/ { print $5 }' "/proc/$program/mountinfo")
    [ -z "$writable" ] || fail "it can write to $writable"
    echo "uid 65532, no capabilities, no new privileges, process 1, all of its $(wc -l < "/proc/$program/mountinfo") mounts read-only"
}

# The command by which Docker would ask for its health.
healthy() {
    local command
    mapfile -t command < <(jq -r '.Healthcheck.Test[1:][]' "$config")
    [ ${#command[@]} -gt 0 ] || fail "the image has no health check"
    inside chroot "$root" "${command[@]}" || fail "${command[*]} ends with $?"
    echo "health check: ${command[*]} ends with 0"
}

# serves WHAT [ARGUMENT...]
serves() {
    local what=$1 times=() ends=() peak
    shift
    for ((i = 0; i < starts; i++)); do
        began=$(date +%s%N)
        start "$@"
        await_answer
        times+=("$took")
        if [ $i = 0 ]; then
            confined
            healthy
        fi
        stop
        ends+=("$took")
    done
    peak=$(($(cat "$cgroup/memory.max_usage_in_bytes") >> 20))
    echo "$what: PlayMusic after ${times[*]} ms, ends with 0 after SIGTERM in ${ends[*]} ms, at most $peak of $((memory >> 20)) MiB"
}

# refuses PATTERN [ARGUMENT...]: it ends at once, with an error that says why.
refuses() {
    local pattern=$1 code=0
    shift
    start "$@"
    wait "$node" || code=$?
    node=''
    [ "$code" != 0 ] || fail "$* ends with 0"
    grep -q "$pattern" "$work/log" || fail "$* does not say '$pattern'"
    echo "$*: ends with $code: $(grep "$pattern" "$work/log")"
}

# in_image COMMAND...: with the image's environment.
in_image() {
    local environment
    mapfile -t environment < <(jq -r '.Env[]' "$config")
    env -i "${environment[@]}" chroot "$root" "$@"
}

# libraries FILE: the loader finds all that a program or library of the image names.
libraries() {
    in_image ldd "$1" > "$work/libraries" || fail "ldd $1"
    ! grep 'not found' "$work/libraries" >&2 || fail "$1: libraries are missing"
    echo "$1: the loader finds its $(grep -c '=>' "$work/libraries") libraries"
}

# found_by_name LIBRARY: as by dlopen, which a program without a GPU does not get to.
found_by_name() {
    in_image env LD_PRELOAD="$1" true 2> "$work/loader"
    [ ! -s "$work/loader" ] || fail "$(cat "$work/loader")"
    echo "$1: the loader finds it by its name"
}

port=$(jq -r '.Env[]' "$config" | sed -n 's/^PORT=//p')
limit_memory
libraries /opt/intentd/bin/intentd
serves "without flags"
if [ "$kind" = cuda ]; then
    [ ! -e /dev/nvidiactl ] || fail "this machine has a GPU, for which no check is written"
    libraries /opt/intentd/lib/libcublasLt.so.13
    found_by_name libcublasLt.so.13
    serves "--device cpu" --device cpu
    refuses 'libcuda.so.1 cannot be loaded' --device cuda
fi
