#!/usr/bin/env bash
# Builds the programs that check.sh runs, stripped, into .gpu/ (not kept by git). Needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."

built() {
    cargo build --release --locked --features cuda --message-format=json "$@" |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["kind"][0] in ("bench", "bin"):
        print(message["target"]["name"], message["executable"])
'
}

mkdir -p .gpu
built --bin intentd --bench gpu --bench clients | while read -r name path; do
    strip -o ".gpu/$name" "$path"
done
mkdir -p .gpu/snips .gpu/clinc150
for file in snips/test.jsonl clinc150/test.jsonl; do
    [ ! -e "../shared/data/$file" ] || install -m 644 "../shared/data/$file" ".gpu/$file"
done
git describe --always --dirty > .gpu/commit
du -sh .gpu
