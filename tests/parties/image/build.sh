#!/usr/bin/env bash
# Builds an image from nothing with Debian's buildah, without a daemon and without a registry of images, and runs it as a
# node would. With --twice, builds it again from nothing and compares. Ends with 0 only if every check holds.
#
#     tests/parties/image/build.sh cpu|cuda [--twice]
#
# As root. Debian: buildah, curl, iproute2, jq, mmdebstrap, python3-venv, uidmap; and cargo. What is built is HEAD.
set -euo pipefail
shopt -s inherit_errexit
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
cd "$here/../../.."

kind=${1:-}
# The most that an image may add to its base.
case $kind in
    cpu) dockerfile=Dockerfile limit=60 base=debian ;;
    cuda) dockerfile=Dockerfile.cuda limit=650 base=cuda_base ;;
    *) sed -n '5s/^# *//p' "$0" >&2; exit 2 ;;
esac
twice=${2:-}

export BUILDAH_ISOLATION=chroot
storage=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/intentd-parties/images
mkdir -p "$storage"
exec 9> "$storage/lock"
flock --shared 9
work=$(mktemp -d)
# apt reads keys in it as another user.
chmod a+rx "$work"
containers=()
b() {
    buildah --root "$storage/root" --runroot "$storage/run" "$@"
}
# Sets container, which is removed in the end: from IMAGE
from() {
    container=$(b from --pull-never "$1")
    containers+=("$container")
}
finally() {
    local code=$?
    # The log of a build that failed.
    [ "$code" = 0 ] || [ ! -f "$work/log" ] || tail -n 100 "$work/log" >&2
    [ ${#containers[@]} = 0 ] || b rm "${containers[@]}" > /dev/null
    # Removes the layers of all stages but the last, unless another build is running. A build that was killed may still
    # hold some of them.
    ! flock --nonblock --exclusive 9 || b rmi --prune > /dev/null || echo "some layers are still in use" >&2
    rm -rf "$work"
    exit "$code"
}
trap finally EXIT
# shellcheck source=tests/parties/image/bases.sh
source "$here/bases.sh"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

lint() {
    python3 -m venv "$work/lint"
    "$work/lint/bin/pip" install --quiet --require-hashes --requirement "$here/hadolint.txt"
    "$work/lint/bin/hadolint" Dockerfile Dockerfile.cuda
    echo "hadolint: no findings"
}

# build TAG
build() {
    local began=$SECONDS
    # Cache mounts lie in this folder: an empty one, so that nothing of an earlier build is used.
    mkdir "$work/tmp"
    TMPDIR=$work/tmp b bud --pull-never --layers --no-cache --format docker --file "$work/context/$dockerfile" --tag "$1" \
        "$work/context" > "$work/log" 2>&1
    rm "$work/log"
    compgen -G "$work/tmp/buildah-cache*" > "$work/caches" || fail "the caches of the build lie elsewhere"
    rm -rf "$work/tmp"
    echo "$1: built in $((SECONDS - began)) s"
}

# The number of an image's layers.
layers() {
    b inspect --type image "$1" | jq '.OCIv1.rootfs.diff_ids | length'
}

# Sets root: open_image TAG
open_image() {
    from "$1"
    root=$(b mount "$container")
}

# Of each file its checksum, and its rights and owner or where it points to.
manifest() {
    (
        cd "$1"
        find . -xdev -type f -exec sha256sum {} +
        find . -xdev ! -type d -printf '%M %U:%G %l %p\n'
    ) | sort
}

# The files that the second manifest has and the first has not, or has otherwise.
differences() {
    comm -13 "$1" "$2" | awk '{ print $NF }' | sort -u
}

# What an image has beyond its base, by the manifests of both.
figures() {
    local bytes
    differences "$work/base" "$work/first" > "$work/beyond"
    bytes=$(cd "$root" && xargs stat --format %s < "$work/beyond" | awk '{ sum += $1 } END { print sum }')
    echo "beyond its base: $((bytes >> 20)) MiB in $(wc -l < "$work/beyond") files; the greatest:"
    (cd "$root" && xargs stat --format '%s %n' < "$work/beyond" | sort -rn | sed -n 1,10p)
    [ $((bytes >> 20)) -lt "$limit" ] || fail "$limit MiB or more"
    echo "layers beyond its base: $(($(layers "localhost/intentd:$kind") - $(layers "${!base}")))"
    (cd "$root" && find opt -type f -exec sha256sum {} +)
}

compare() {
    local first=$root
    build "localhost/intentd:$kind-again"
    open_image "localhost/intentd:$kind-again"
    manifest "$root" > "$work/again"
    diff -r "$first/opt/intentd" "$root/opt/intentd" || fail "the program differs from build to build"
    echo "program: the same bytes in both builds"
    echo "other files that differ: $(differences "$work/first" "$work/again" | xargs)"
}

lint
bases "$kind"
mkdir "$work/context"
# Everything that git has, as a clone would: what else lies around stays out.
git archive HEAD | tar -x -C "$work/context"
echo "commit $(git rev-parse --short HEAD)"
open_image "${!base}"
manifest "$root" > "$work/base"
build "localhost/intentd:$kind"
open_image "localhost/intentd:$kind"
manifest "$root" > "$work/first"
figures
b inspect --type image "localhost/intentd:$kind" | jq .Docker.config > "$work/config.json"
"$here/run.sh" "$kind" "$root" "$work/config.json"
[ "$twice" != --twice ] || compare
