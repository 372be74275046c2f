#!/usr/bin/env bash
# Reads the load reports of `--orca always` as others do: three definitions of the message (ours, the one
# that gRPC publishes, and one written out here), and rules as strict as Envoy's. Needs python3 with venv,
# and the Python package index once. The program is target/release/intentd, or the one that INTENTD names.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }
. tests/interop/venv.sh

work=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    rm -rf "$work"
}
trap clean_up EXIT

# By the numbers of the standard, written down without a look at proto/.
mkdir "$work/written"
cat > "$work/written/report.proto" <<'END'
syntax = "proto3";
package written;
message Report {
  double cpu_utilization = 1;
  double mem_utilization = 2;
  uint64 rps = 3;
  map<string, double> request_cost = 4;
  map<string, double> utilization = 5;
  double rps_fractional = 6;
  double eps = 7;
  map<string, double> named_metrics = 8;
  double application_utilization = 9;
}
END
"$python" -m grpc_tools.protoc -I "$work/written" \
    --descriptor_set_out="$work/written.pb" "$work/written/report.proto"
"$python" -m grpc_tools.protoc -I proto \
    --descriptor_set_out="$work/ours.pb" proto/xds/data/orca/v3/orca_load_report.proto

NO_COLOR=1 "$program" --host 127.0.0.1 --port 0 --admin-port off --threads 1 --lame-duck 0 \
    --orca always 2> "$work/log" &
server=$!
port=
for _ in $(seq 200); do
    line=$(grep -m1 'serving predictions' "$work/log" || true)
    [ -z "$line" ] || { port=${line##*:}; break; }
    sleep 0.05
done
[ -n "$port" ] || { cat "$work/log" >&2; exit 1; }

"$python" tests/interop/orca.py "$port" "$work/ours.pb" "$work/written.pb"
