#!/usr/bin/env bash
# Asks a server by clients of others: Triton's over HTTP and gRPC, Hugging Face's, the SDK of CloudEvents, gRPC's
# health and reflection; and by requests as KafkaSource and text-embeddings-inference have them. Its end is a part
# of that. Needs python3 with venv, and the Python package index once. The program is target/release/intentd, or
# the one that INTENTD names.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }
# Triton's client wants an older protobuf than the other scripts have.
packages=clients
. tests/interop/venv.sh

work=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    rm -rf "$work"
}
trap clean_up EXIT

# Without an objective, so that a slow machine refuses nothing: load is not what this is about. The lame duck is
# long enough to see what clients do meanwhile.
NO_COLOR=1 "$program" --host 127.0.0.1 --port 0 --admin-port off --threads 1 --slo off --lame-duck 2s \
    2> "$work/log" &
server=$!
port=
for _ in $(seq 200); do
    line=$(grep -m1 'serving predictions' "$work/log" || true)
    [ -z "$line" ] || { port=${line##*:}; break; }
    sleep 0.05
done
[ -n "$port" ] || { cat "$work/log" >&2; exit 1; }

"$python" tests/interop/surfaces/main.py "$port" "$server" || { tail -n 20 "$work/log" >&2; exit 1; }

# It was told to end, with streams open and connections left.
code=0
wait "$server" || code=$?
server=
[ "$code" = 0 ] || { echo "FAILED: the server ends with 0, not $code" >&2; cat "$work/log" >&2; exit 1; }
echo "ok the server has ended with 0"
