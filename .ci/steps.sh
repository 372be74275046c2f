# Sourced by the scripts of this folder. `step COMMAND...` runs a command and notes how long it took. The script that
# was started first ends with a table of the steps and, where tests ran, of the tests that took longest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/intentd-ci
mkdir -p "$cache"

if [ -n "${CI:-}" ]; then
    # A clone is new each time, so what cargo would keep to build the next change sooner is never read.
    export CARGO_INCREMENTAL=0
    # Dependencies take minutes to build and do not change from run to run. Cargo rebuilds whatever its fingerprints
    # (compiler, flags, features, sources) say is stale, so sharing them between clones is safe.
    if [ -z "${CARGO_TARGET_DIR:-}" ]; then
        export CARGO_TARGET_DIR=$cache/target
        mkdir -p "$CARGO_TARGET_DIR"
        # Artefacts of old dependencies are never removed by cargo.
        if [ "$(du -sm "$CARGO_TARGET_DIR" | cut -f1)" -gt 12000 ]; then
            rm -rf "${CARGO_TARGET_DIR:?}"
        fi
    fi
fi
target=${CARGO_TARGET_DIR:-target}

# Of this run alone: what the table is made of, and what a step needs for itself.
if [ -z "${INTENTD_CI_SCRATCH:-}" ]; then
    INTENTD_CI_SCRATCH=$(mktemp -d)
    export INTENTD_CI_SCRATCH
    trap summary EXIT
fi

# The test programs that cargo starts go through .ci/timed, which notes how long each test takes.
host=$(rustc --version --verbose | sed -n 's/^host: //p')
declare -x "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<< "$host")_RUNNER=$PWD/.ci/timed"

step() {
    local began=$EPOCHSECONDS
    echo "== $* ($(date +%T))"
    echo "$*" > "$INTENTD_CI_SCRATCH/step"
    "$@"
    rm "$INTENTD_CI_SCRATCH/step"
    printf '%d\t%s\n' $((EPOCHSECONDS - began)) "$*" >> "$INTENTD_CI_SCRATCH/steps"
}

summary() {
    local code=$?
    cd "$INTENTD_CI_SCRATCH"
    if [ -s tests ]; then
        echo "== the tests that took longest"
        sort -rn tests | head -n 15 | awk -F '\t' '{ printf "%7.1f s  %s\n", $1, $2 }'
    fi
    touch steps
    echo "== the steps, in minutes"
    awk -F '\t' '{ printf "%6d:%02d  %s\n", $1 / 60, $1 % 60, $2; all += $1 }
        END { printf "%6d:%02d  together\n", all / 60, all % 60 }' steps
    [ ! -e step ] || echo "   FAILED  $(cat step)"
    rm -rf "$INTENTD_CI_SCRATCH"
    exit "$code"
}
