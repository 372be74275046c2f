#!/usr/bin/env bash
# Installs the CUDA 13.0 compiler and a disassembler from the Python package index: 110 MB, without root or a GPU.
#
#     kernels/toolkit.sh DIRECTORY        installs them into DIRECTORY, unless they are there already
#
# Prints the line that selects the compiler in a shell: eval "$(kernels/toolkit.sh ~/.cache/cuda)"
# Needs python3 with venv or pip (Debian: python3-venv), and a C++ compiler that nvcc calls.
set -euo pipefail

directory=${1:?usage: kernels/toolkit.sh DIRECTORY}
# The versions of CUDA 13.0 update 2. Older drivers refuse the PTX of newer compilers.
wheels=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    # Reads the output of older compilers; there is no version 13.0.
    nvidia-cuda-nvdisasm==13.2.51
)

home() {
    find "$directory" -type d -path '*/nvidia/cu13' 2>/dev/null | head -n 1
}

install() {
    local scratch
    mkdir -p "$directory"
    if scratch=$(mktemp -d) && python3 -m venv "$scratch" >&2; then
        "$scratch/bin/pip" install --quiet --no-deps --upgrade --target "$directory" "${wheels[@]}" >&2
    else
        python3 -m pip install --quiet --no-deps --upgrade --target "$directory" "${wheels[@]}" >&2
    fi
    rm -rf "$scratch"
}

if [ ! -x "$(home)/bin/nvcc" ] || [ ! -x "$(home)/bin/nvdisasm" ]; then
    rm -rf "${directory:?}/nvidia"
    install
fi
if ! "$(home)/bin/nvcc" --version >/dev/null; then
    echo "kernels/toolkit.sh: nvcc is not usable in $directory; remove that folder and try again" >&2
    exit 1
fi
home=$(realpath "$(home)")
# NVIDIA's installer puts the libraries of a toolkit there.
ln -sfn lib "$home/lib64"
echo "export CUDA_HOME=$home PATH=$home/bin:\$PATH"
