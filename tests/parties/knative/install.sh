#!/usr/bin/env bash
# Builds Knative's queue-proxy and the programs beside this file from Go modules, by the versions in go.mod and the
# checksums in go.sum, and prints the folder with them. Needs go, 1.24 or newer. Exit code 2 when the modules cannot be
# had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
version=$(cat go.mod go.sum ./*/main.go | sha256sum | cut -c1-12)
programs=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties/knative-$version
if ! command -v go > /dev/null; then
    echo "tests/parties/knative/install.sh: there is no go" >&2
    exit 1
fi
mkdir -p "$(dirname "$programs")"
exec 9> "$programs.lock"
flock 9
if [ ! -e "$programs/done" ]; then
    go mod download >&2 || exit 2
    for program in queue kpa; do
        GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -trimpath -ldflags=-s -o "$programs/$program" "./$program" >&2
    done
    touch "$programs/done"
fi
echo "$programs"
