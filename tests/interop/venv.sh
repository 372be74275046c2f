# Sourced from the root of the repository by those scripts that need Python packages: puts those of
# tests/interop/$packages.txt (requirements.txt where nothing is said) into the folder that cargo builds in, once, and
# sets `python`. Needs python3 with venv, and the Python package index.
packages=${packages:-requirements}
venv=${CARGO_TARGET_DIR:-target}/interop/venv-$packages
if ! cmp -s "tests/interop/$packages.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "tests/interop/$packages.txt"
    cp "tests/interop/$packages.txt" "$venv/installed.txt"
fi
python=$(realpath "$venv")/bin/python
