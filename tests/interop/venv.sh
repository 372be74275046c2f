# Sourced from the root of the repository by those scripts that need Python packages: puts those of
# tests/interop/$packages.txt (requirements.txt where nothing is said) into target/interop, once, and sets
# `python`. Needs python3 with venv, and the Python package index.
packages=${packages:-requirements}
# The name of the first one stays what it was before there were others.
venv=target/interop/venv
installed=target/interop/installed.txt
if [ "$packages" != requirements ]; then
    venv=target/interop/venv-$packages
    installed=target/interop/installed-$packages.txt
fi
mkdir -p target/interop
if ! cmp -s "tests/interop/$packages.txt" "$installed"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "tests/interop/$packages.txt"
    cp "tests/interop/$packages.txt" "$installed"
fi
python=$venv/bin/python
