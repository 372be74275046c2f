#!/usr/bin/env bash
# Takes prometheus and promtool out of Debian's package, once and without root, and prints their folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-target}/interop/prometheus
mkdir -p "$tools"
if ! [ -x "$tools/usr/bin/promtool" ]; then
    download=$(mktemp -d)
    # As root, apt-get would download as a user who may not write there.
    (cd "$download" && apt-get -qq -o APT::Sandbox::User=root download prometheus) >&2
    dpkg -x "$download"/prometheus_*.deb "$tools"
    rm -rf "$download"
fi
realpath "$tools/usr/bin"
