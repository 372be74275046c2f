#!/usr/bin/env bash
# Drives `intentd scaler` by Python's gRPC library, as KEDA does: plain text, TLS, mutual TLS.
# Needs python3 with venv, openssl, and the Python package index once. The program is
# target/release/intentd, or the one that INTENTD names.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${INTENTD:-target/release/intentd}
[ -x "$program" ] || { echo "no $program: cargo build --release" >&2; exit 1; }
work=${CARGO_TARGET_DIR:-target}/interop
. tests/interop/venv.sh
"$python" -m grpc_tools.protoc -I crates/scaler/proto/externalscaler \
    --python_out="$work" --grpc_python_out="$work" crates/scaler/proto/externalscaler/externalscaler.proto

# Authorities, and what they sign: a server, a client, and a client of somebody else's.
certificates=$(mktemp -d "$work/certificates.XXXXXX")
trap 'rm -rf "$certificates"' EXIT
authority() { # name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$certificates/$1.key" -out "$certificates/$1.pem" 2>/dev/null
}
signed() { # name, usage, authority
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
        -keyout "$certificates/$1.key" -out "$certificates/$1.csr" 2>/dev/null
    printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=%s\n' "$2" > "$certificates/$1.ext"
    openssl x509 -req -in "$certificates/$1.csr" -days 2 -CAcreateserial \
        -CA "$certificates/$3.pem" -CAkey "$certificates/$3.key" \
        -extfile "$certificates/$1.ext" -out "$certificates/$1.pem" 2>/dev/null
}
authority ca
authority other
signed server serverAuth ca
signed client clientAuth ca
signed stranger clientAuth other

PYTHONPATH="$work" "$python" tests/interop/scaler_client.py "$program" "$certificates"
