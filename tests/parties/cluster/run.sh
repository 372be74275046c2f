#!/usr/bin/env bash
# Kubernetes, KEDA, Knative and Prometheus as processes, and parts of the test against them:
#     tests/parties/cluster/run.sh RESULTS PART...
# RESULTS is a folder for what is measured. A PART is standin, scaling, outages, growing, knative or article;
# scaling=hpa,prometheus runs two triggers only. The program is target/release/intentd, or the one that INTENTD names. As
# root: each pod has a network of its own. Nothing is left behind, for all of it runs in namespaces that end with this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. tests/parties/go-tools.sh

[ $# -ge 2 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "tests/parties/cluster: networks for pods need root" >&2; exit 1; }
for program in go java kubectl openssl ip setpriv unshare; do
    command -v "$program" > /dev/null || { echo "tests/parties/cluster: there is no $program" >&2; exit 1; }
done
intentd=$(realpath "${INTENTD:-target/release/intentd}")
[ -x "$intentd" ] || { echo "no $intentd: cargo build --release --features kafka" >&2; exit 1; }
mkdir -p "$1"
results=$(realpath "$1")
shift

module() { # folder of go.mod, module, what to say of it
    (cd "tests/parties/$1" && go list -m -f "$3" "$2")
}

# Knative asks the API server which version it is, which only its linker says.
ldflags="-X k8s.io/component-base/version.gitVersion=$(module kubernetes k8s.io/kubernetes '{{.Version}}')"
go_tools kubernetes tests/parties/kubernetes go.etcd.io/etcd/server/v3=etcd \
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
ldflags=
kubernetes=$built
keda=github.com/kedacore/keda/v2
go_tools keda tests/parties/keda $keda/cmd/operator $keda/cmd/adapter $keda/cmd/webhooks
operator=$built
serving=knative.dev/serving/cmd
go_tools knative tests/parties/knative ./queue $serving/activator $serving/autoscaler $serving/controller $serving/webhook
knative=$built
prometheus=$(tests/interop/prometheus_tools.sh)/prometheus
jars=$(tests/parties/kafka/install.sh | tail -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/programs.json" <<JSON
{
  "intentd": "$intentd",
  "prometheus": "$prometheus",
  "kafka-jars": "$jars",
  "etcd": "$kubernetes/etcd",
  "kube-apiserver": "$kubernetes/kube-apiserver",
  "kube-controller-manager": "$kubernetes/kube-controller-manager",
  "keda-operator": "$operator/operator",
  "keda-adapter": "$operator/adapter",
  "keda-webhooks": "$operator/webhooks",
  "keda-module": "$(module keda $keda '{{.Dir}}')",
  "knative-queue": "$knative/queue",
  "knative-activator": "$knative/activator",
  "knative-autoscaler": "$knative/autoscaler",
  "knative-controller": "$knative/controller",
  "knative-webhook": "$knative/webhook",
  "knative-modules": {
    "serving": "$(module knative knative.dev/serving '{{.Dir}}')",
    "networking": "$(module knative knative.dev/networking '{{.Dir}}')",
    "caching": "$(module knative knative.dev/caching '{{.Dir}}')"
  }
}
JSON
cd tests/parties
code=0
# A signal to this script would reach neither unshare nor the first process of its namespace.
PYTHONDONTWRITEBYTECODE=1 unshare --net --mount --pid --fork --kill-child --mount-proc \
    python3 -m cluster "$work/programs.json" "$work" "$results" "$@" 2> "$results/node.log" &
cluster=$!
trap 'kill -KILL "$cluster"' INT TERM HUP
wait "$cluster" || code=$?
if [ "$code" != 0 ]; then
    tail -n 20 "$results/node.log" >&2
    # The logs of every process and pod show what went wrong.
    rm -rf "$results/logs"
    cp -r "$work/logs" "$results/logs"
fi
exit "$code"
