# Sourced by the scripts of this folder. `step COMMAND...` runs a command and notes how long it took. The script that
# was started first ends with a table of the steps and, where tests ran, of the tests that took longest.
set -euo pipefail
# Otherwise a command inside $(...) may fail and the next one runs.
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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
    # The tables are information: whether the checks passed is decided already.
    set +e
    export LC_ALL=C
    cd "$INTENTD_CI_SCRATCH"
    if [ -s tests ]; then
        echo "== the tests that took longest"
        sort -rn tests | awk -F '\t' 'NR <= 15 { printf "%7.1f s  %s\n", $1, $2 }'
    fi
    echo "== the steps, in minutes"
    touch steps
    awk -F '\t' '{ printf "%6d:%02d  %s\n", $1 / 60, $1 % 60, $2 }' steps
    printf '%6d:%02d  total\n' $((SECONDS / 60)) $((SECONDS % 60))
    [ "$code" = 0 ] || echo "   FAILED  $(cat step 2> /dev/null || echo "outside any step"), exit code $code"
    rm -rf "$INTENTD_CI_SCRATCH"
    exit "$code"
}

# Of this run alone: what the tables are made of, and what a step needs for itself.
if [ -z "${INTENTD_CI_SCRATCH:-}" ]; then
    INTENTD_CI_SCRATCH=$(mktemp -d)
    export INTENTD_CI_SCRATCH
    trap summary EXIT
    # Cargo goes by the times of sources: those of a clone may be older than what another clone has built since.
    [ -z "${CI:-}" ] || git ls-files -z | xargs -0 touch --no-create
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/intentd-ci
mkdir -p "$cache"

if [ -n "${CI:-}" ]; then
    # Incremental compilation pays only where the same clone is built again.
    export CARGO_INCREMENTAL=0
    # Dependencies take minutes to build and do not change from run to run. Cargo builds again what its fingerprints
    # (compiler, flags, features, times of sources) say is stale, so clones may share them one after another.
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

# The test programs that cargo starts go through .ci/timed, which notes how long each test takes.
host=$(rustc --version --verbose | sed -n 's/^host: //p')
declare -x "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<< "$host")_RUNNER=.ci/timed"
