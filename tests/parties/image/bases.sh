# shellcheck shell=bash disable=SC2154 # b, container, from, here and work are build.sh's.
# Sourced by build.sh: stand-ins for the images that FROM names, since no registry of images is needed here. Each is a root
# file system of the same distribution, with what the real image is used for at the same paths.

debian=localhost/debian:bookworm-slim
ubuntu=localhost/ubuntu:22.04
rust=localhost/rust:1.95-bookworm
# Those of Dockerfile.cuda's default.
cuda_base=localhost/nvidia/cuda:13.0.2-base-ubuntu22.04
cuda_devel=localhost/nvidia/cuda:13.0.2-devel-ubuntu22.04

# The images that a Dockerfile needs and that are not there yet.
bases() {
    case $1 in
        cpu) local needed=(debian rust) ;;
        cuda) local needed=(debian rust ubuntu cuda_base cuda_devel) ;;
    esac
    local name
    for name in "${needed[@]}"; do
        if ! b inspect --type image "${!name}" > "$work/inspect" 2>&1; then
            echo "making ${!name}"
            "make_$name" > "$work/log" 2>&1
            rm "$work/log"
        fi
    done
}

# A container's changes as an image: finish CONTAINER NAME
finish() {
    b commit --quiet --format docker "$1" "$2"
}

# root_file_system NAME [OPTION OF MMDEBSTRAP...] SUITE
root_file_system() {
    local name=$1
    mmdebstrap --quiet --variant=minbase "${@:2}" "$work/base.tar"
    from scratch
    b add --quiet "$container" "$work/base.tar" /
    rm "$work/base.tar"
    finish "$container" "$name"
}

make_debian() {
    root_file_system "$debian" bookworm
}

# Its packages are signed by keys that Debian has as a package of its next release.
make_ubuntu() {
    mmdebstrap --quiet --variant=extract --include=ubuntu-archive-keyring trixie "$work/keyring"
    root_file_system "$ubuntu" --components=main,universe --include=apt,ubuntu-keyring \
        --keyring="$work/keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg" jammy
    rm -r "$work/keyring"
}

# A machine may reach the registries only through a proxy whose authority it trusts.
trust_like_the_host() {
    b add --quiet "$1" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
}

install() {
    b run "$1" -- sh -c "apt-get -qq update && apt-get -qq install --no-install-recommends ${*:2} \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/*"
}

# This machine's compiler. In the real image rustup's programs stand in the same places.
make_rust() {
    local toolchain
    toolchain=$(rustc --print sysroot)
    from "$debian"
    install "$container" gcc libc6-dev ca-certificates
    trust_like_the_host "$container"
    b add --quiet "$container" "$toolchain/bin/cargo" "$toolchain/bin/rustc" /usr/local/rustup/toolchains/1.95/bin/
    b add --quiet "$container" "$toolchain/lib" /usr/local/rustup/toolchains/1.95/lib
    b run "$container" -- sh -c 'mkdir -p /usr/local/cargo/bin && ln -s /usr/local/rustup/toolchains/1.95/bin/* /usr/local/cargo/bin/'
    b config --env CARGO_HOME=/usr/local/cargo --env RUSTUP_HOME=/usr/local/rustup \
        --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    finish "$container" "$rust"
}

# NVIDIA's wheels have the files of its packages, in one folder.
wheels() {
    python3 -m venv "$work/wheels"
    "$work/wheels/bin/pip" install --quiet --no-deps --require-hashes --requirement "$here/cuda.txt"
    echo "$work"/wheels/lib/python3*/site-packages/nvidia/cu13
}

make_cuda_base() {
    local toolkit
    toolkit=$(wheels)
    from "$ubuntu"
    install "$container" ca-certificates
    b add --quiet "$container" "$toolkit"/lib/libcudart.so.* /usr/local/cuda-13.0/targets/x86_64-linux/lib/
    b run "$container" -- sh -c 'cd /usr/local && ln -s cuda-13.0 cuda && ln -s targets/x86_64-linux/lib cuda/lib64'
    b config --env PATH=/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
        --env NVIDIA_VISIBLE_DEVICES=all --env NVIDIA_DRIVER_CAPABILITIES=compute,utility "$container"
    finish "$container" "$cuda_base"
}

make_cuda_devel() {
    local toolkit home=/usr/local/cuda-13.0
    toolkit=$(wheels)
    from "$cuda_base"
    trust_like_the_host "$container"
    b add --quiet "$container" "$toolkit/bin" $home/bin
    b add --quiet "$container" "$toolkit/nvvm" $home/nvvm
    b add --quiet "$container" "$toolkit/include" $home/targets/x86_64-linux/include
    b add --quiet "$container" "$toolkit/lib" $home/targets/x86_64-linux/lib
    b run "$container" -- ln -s targets/x86_64-linux/include $home/include
    b config --env LIBRARY_PATH=/usr/local/cuda/lib64/stubs "$container"
    finish "$container" "$cuda_devel"
}
