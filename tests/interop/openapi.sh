#!/usr/bin/env bash
# Holds the server to its own /openapi.json by schemathesis, which makes up requests from it, and by requests that
# it does not come upon. Needs python3 with venv, and the Python package index once. The program is
# target/release/intentd, or the one that INTENTD names.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }
packages=clients
. tests/interop/venv.sh
# What it writes, it writes where it runs.
script=$PWD/tests/interop/openapi.py

work=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    rm -rf "$work"
}
trap clean_up EXIT

# Without an objective, so that a slow machine refuses nothing.
NO_COLOR=1 "$program" --host 127.0.0.1 --port 0 --admin-port off --threads 1 --slo off --lame-duck 0 \
    2> "$work/log" &
server=$!
port=
for _ in $(seq 200); do
    line=$(grep -m1 'serving predictions' "$work/log" || true)
    [ -z "$line" ] || { port=${line##*:}; break; }
    sleep 0.05
done
[ -n "$port" ] || { cat "$work/log" >&2; exit 1; }

cd "$work"
"$python" "$script" "$port" || { tail -n 20 "$work/log" >&2; exit 1; }
