#!/usr/bin/env bash
# Builds the programs that check.sh runs, strips them, and packs them with all that they read into .gpu/package.tar.gz
# (not kept by git). Needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What carries it to a machine with a GPU may take little more, and has the sources to carry as well.
MEBIBYTES_MAX=48

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

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
install -D -m 644 -t "$tree/models/intent-snips" models/intent-snips/probes.jsonl
install -m 755 benches/gpu/check.sh benches/gpu/torch_baseline.py "$tree"
git describe --always --dirty > "$tree/commit"
built --bin intentd --bench gpu --bench clients > "$scratch/built"
while read -r name path; do
    strip -o "$tree/$name" "$path"
done < "$scratch/built"
# Beside the tree, where the programs look for them.
for file in snips/test.jsonl clinc150/test.jsonl; do
    [ ! -e "../shared/data/$file" ] || install -D -m 644 "../shared/data/$file" "$scratch/shared/data/$file"
done
mkdir -p "$scratch/shared"

rm -rf .gpu
mkdir .gpu
tar -C "$scratch" -czf .gpu/package.tar.gz tree shared
size=$(du -m .gpu/package.tar.gz | cut -f1)
echo ".gpu/package.tar.gz: $size MiB"
if [ "$size" -gt "$MEBIBYTES_MAX" ]; then
    echo "benches/gpu/pack.sh: more than $MEBIBYTES_MAX MiB; leave something out" >&2
    rm .gpu/package.tar.gz
    exit 1
fi
