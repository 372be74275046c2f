#!/usr/bin/env bash
# Scrapes two replicas by the real Prometheus: do all metrics arrive, do the rules of deploy/prometheus
# evaluate, and does promtool find anything to say? Needs Debian's package `prometheus` (by apt-get, once,
# without root), dpkg and python3. The program is target/release/intentd, or the one that INTENTD names.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }
tools=$(tests/interop/prometheus_tools.sh)
promtool=$tools/promtool
rules=deploy/prometheus

work=$(mktemp -d)
children=()
clean_up() {
    [ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT

echo "== promtool on deploy/prometheus"
"$promtool" check config "$rules/prometheus.yml"
"$promtool" check rules "$rules/intentd-rules.yaml"
"$promtool" test rules "$rules/intentd-rules-test.yaml"

# One replica as it comes, and one that refuses what is more than one at a time.
port_of() { # log, what is said before the address
    local line
    for _ in $(seq 200); do
        line=$(grep -m1 "$2" "$1" || true)
        [ -z "$line" ] || { echo "${line##*:}"; return; }
        sleep 0.05
    done
    cat "$1" >&2
    return 1
}
start() { # name, flags
    local log=$work/$1.log
    shift
    NO_COLOR=1 "$program" --host 127.0.0.1 --port 0 --admin-port 0 --threads 1 --lame-duck 0 "$@" 2> "$log" &
    children+=($!)
}
start first
start second --triton-metrics --max-concurrency 1
mains=() admins=()
for name in first second; do
    mains+=("$(port_of "$work/$name.log" 'serving predictions')")
    admins+=("$(port_of "$work/$name.log" 'serving metrics')")
done

cat > "$work/prometheus.yml" <<END
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$PWD/$rules/intentd-rules.yaml]
scrape_configs:
  - job_name: intentd
    static_configs:
      - targets: ["127.0.0.1:${admins[0]}", "127.0.0.1:${admins[1]}"]
        labels: {namespace: interop}
END
"$promtool" check config "$work/prometheus.yml"
api=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$tools/prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
    --web.listen-address="127.0.0.1:$api" --log.level=warn 2> "$work/prometheus.log" &
children+=($!)

echo "== prometheus, $("$tools/prometheus" --version 2>&1 | head -n 1)"
python3 tests/interop/prometheus.py "$promtool" "$api" \
    "${mains[0]}" "${mains[1]}" "${admins[0]}" "${admins[1]}" \
    || { tail -n 20 "$work/prometheus.log" >&2; exit 1; }
