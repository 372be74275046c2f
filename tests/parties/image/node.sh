#!/usr/bin/env bash
# Becomes the program of an image, as a strict node starts it. Run by run.sh in new namespaces, of which it is process 1.
#
#     node.sh ROOT CONFIG [ARGUMENT...]
set -euo pipefail

root=$1 config=$2
shift 2
mapfile -t environment < <(jq -r '.Env[]' "$config")
mapfile -t entrypoint < <(jq -r '.Entrypoint[]' "$config")
IFS=: read -r user group < <(jq -r .User "$config")

ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid "$root"
mount --bind /dev "$root/dev"
mount -o remount,bind,ro,nosuid,noexec "$root/dev"
mount -t proc -o ro,nosuid,nodev,noexec proc "$root/proc"
# The last step is one of the image's own programs: who may change the root has a capability.
exec env -i "${environment[@]}" chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "${entrypoint[@]}" "$@"
