#!/usr/bin/env bash
# Builds Knative's queue-proxy and the programs beside this file from Go modules, and prints the folder with them. Needs
# go, 1.24 or newer. Exit code 2 when the modules cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../go-tools.sh
if ! command -v go > /dev/null; then
    echo "tests/parties/knative/install.sh: there is no go" >&2
    exit 1
fi
go_tools knative . ./queue ./kpa >&2
echo "$built"
