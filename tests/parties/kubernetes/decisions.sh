#!/usr/bin/env bash
# What the calculator of Kubernetes' HPA decides, against the golden files of hpa/. It is built from Go modules. With
# `update`, writes the files anew. Exit code 2 when the modules cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../go-tools.sh
go_tools hpa . ./hpa
for input in hpa/*.json; do
    golden=${input%.json}.golden
    if [ "${1:-}" = update ]; then
        "$built/hpa" < "$input" > "$golden"
    else
        # Code 2 would mean that the modules cannot be had.
        diff -u "$golden" <("$built/hpa" < "$input") || exit 1
    fi
done
