# Sourced from the root of the repository by those scripts that need the packages of requirements.txt: puts them
# into target/interop, once, and sets `python`. Needs python3 with venv, and the Python package index.
mkdir -p target/interop
if ! cmp -s tests/interop/requirements.txt target/interop/installed.txt; then
    python3 -m venv target/interop/venv
    target/interop/venv/bin/pip install --quiet --disable-pip-version-check -r tests/interop/requirements.txt
    cp tests/interop/requirements.txt target/interop/installed.txt
fi
python=target/interop/venv/bin/python
