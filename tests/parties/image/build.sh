#!/usr/bin/env bash
# Builds the image of Dockerfile with Debian's buildah, without a daemon and without a registry: its base images are stood
# in for by Debian root file systems that are made here. Then runs it as a node would: another user, no capabilities. As
# root. Debian: buildah, mmdebstrap, curl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
storage=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties/images
mkdir -p "$storage"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
b() {
    buildah --root "$storage/root" --runroot "$storage/run" "$@"
}
has() {
    b inspect --type image "$1" > /dev/null 2>&1
}

debian=localhost/debian:bookworm-slim
rust=localhost/rust:1.95-bookworm
if ! has "$debian"; then
    mmdebstrap --quiet --variant=minbase bookworm "$work/debian.tar"
    container=$(b from scratch)
    b add --quiet "$container" "$work/debian.tar" /
    b commit --quiet --rm "$container" "$debian"
fi
if ! has "$rust"; then
    container=$(b from --pull-never "$debian")
    b run "$container" -- sh -c 'apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev ca-certificates'
    b add --quiet "$container" "$(rustc --print sysroot)" /usr/local
    # A machine may reach the registries only through a proxy whose authority it trusts.
    b add --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
    b config --env CARGO_HOME=/usr/local/cargo "$container"
    b commit --quiet --rm "$container" "$rust"
fi

# Everything that git has, as a clone would: what else lies around stays out.
git archive HEAD | tar -x -C "$work"
b bud --quiet --pull-never --layers=false --tag localhost/intentd:cpu "$work"

container=$(b from --pull-never localhost/intentd:cpu)
root=$(b mount "$container")
echo "beyond its base: $(($(du -sm "$root" | cut -f1) - $(du -sm "$(b mount "$(b from --pull-never "$debian")")" | cut -f1))) MiB"
echo "program: $(stat -c %s "$root/opt/intentd/bin/intentd") bytes, sha256 $(sha256sum < "$root/opt/intentd/bin/intentd" | cut -c1-16)"
find "$root/opt" -type f -printf '%s %P\n'
began=$(date +%s%N)
b run --user 65532:65532 --cap-drop all "$container" -- intentd --port 18099 --admin-port off --lame-duck off > "$work/log" 2>&1 &
run=$!
until [ "$(curl -s "http://127.0.0.1:18099/predict?query=music")" = PlayMusic ]; do
    kill -0 "$run" || { cat "$work/log"; exit 1; }
    sleep 0.02
done
echo "first answer after $((($(date +%s%N) - began) / 1000000)) ms"
program=$(pgrep -f 'intentd --port 18099' | tail -1)
ps -o uid=,args= -p "$program"
grep -E 'Cap(Eff|Prm)' "/proc/$program/status"
kill -TERM "$program"
wait "$run" && echo "ended with 0 after SIGTERM"
