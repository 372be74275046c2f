#!/usr/bin/env bash
# Kills members and brokers of a real Apache Kafka while records flow, and counts what was lost and what was repeated:
#   run.sh [member|broker|one-of-three|mixed|self-test] [--kills 20] [--json FILE]        (--help names the rest)
# The program is target/release/intentd, built with --features kafka, or the one that INTENTD names. Needs java and mvn
# (see ../install.sh), python3 with venv, setpriv (Debian: util-linux), and the package indexes of Maven and Python.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
INTENTD=$(realpath "${INTENTD:-$here/../../../../target/release/intentd}")
[ -x "$INTENTD" ] || { echo "no $INTENTD: cargo build --release --features kafka" >&2; exit 1; }

KAFKA_JARS=$("$here/../install.sh" | tail -n 1)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties
venv=$cache/kills-$(sha256sum "$here/requirements.txt" | cut -c1-12)
# Two of these may be started at once.
mkdir -p "$cache"
exec 9> "$venv.lock"
flock 9
if ! [ -e "$venv/installed" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$here/requirements.txt"
    touch "$venv/installed"
fi
exec 9>&-

export INTENTD KAFKA_JARS PYTHONPATH=$here/.. PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m kills "$@"
