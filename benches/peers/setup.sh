#!/usr/bin/env bash
# Makes the Python environments of the peers under target/peers/: benches/peers/setup.sh
#
# `torch` has torch alone and is seen by the two others, which so share its 5 GB: `venv` for ONNX
# Runtime, LitServe and the scripts here, `infinity` for Infinity. Run again, it does only what is
# left to do. PYTHON names the interpreter, 3.11 or newer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/../../target/peers"
cd "$here/../../target/peers"

# environment NAME REQUIREMENTS: stamped with its requirements when it is complete.
environment() {
    local name=$1 requirements=$here/$2
    cmp -s "$requirements" "$name/complete" && return
    rm -rf "$name"
    "${PYTHON:-python3.11}" -m venv "$name"
    if [ "$name" != torch ]; then
        ls -d "$PWD"/torch/lib/python3.*/site-packages > "$(ls -d "$name"/lib/python3.*/site-packages)/torch.pth"
    fi
    "$name/bin/pip" install --quiet -r "$requirements"
    cp "$requirements" "$name/complete"
}

environment torch requirements-torch.txt
environment venv requirements.txt
environment infinity requirements-infinity.txt
for name in venv infinity; do
    echo "target/peers/$name: $("$name/bin/python" -c '
import onnxruntime, torch, transformers
print("torch", torch.__version__, "transformers", transformers.__version__, "onnxruntime", onnxruntime.__version__)')"
done
