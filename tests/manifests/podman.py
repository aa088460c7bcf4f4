"""podman, with a storage of its own, as it runs where systemd does not; the daemon as a pod's container.

Cgroups are the kernel's own files and limits those of any process: a machine of CI is a container
itself, and may set neither otherwise.
"""

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.manifests.render import Object, container_of, pod_of
from tests.manifests.tools import ROOT, find_tool, run_tool

BASE: Final = "localhost/base"
_LIMITS: Final = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Podman:
    """podman with its images and containers below `storage`."""

    def __init__(self, storage: Path) -> None:
        self._flags = (
            f"--root={storage / 'images'}", f"--runroot={storage / 'state'}",
            "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none",
        )  # fmt: skip

    def __call__(self, *words: str, timeout: float = 60.0) -> str:
        """What it prints; an AssertionError with all that it said if it fails."""
        return run_tool("podman", *self._flags, *words, timeout=timeout)

    def build(self, tag: str, context: Path) -> str:
        """Builds our image without a network, from the wheels in the context; its id."""
        self(
            "build", "--network=none", "--no-cache", "--timestamp=0", *_LIMITS,
            f"--build-arg=BASE={BASE}", "--build-arg=PIP_NO_INDEX=1",
            f"--file={context / 'manifests/image/Containerfile'}", f"--tag={tag}", str(context),
            timeout=300.0,
        )  # fmt: skip
        return self("image", "inspect", "--format={{.Id}}", tag).strip()

    def run(self, image: str, *words: str, entry: str | None = None) -> str:
        """What a container prints that may do nothing and reaches nobody."""
        entrypoint = [f"--entrypoint={entry}"] if entry else []
        bare = ("--rm", "--network=none", "--read-only", "--cap-drop=all", *_LIMITS)
        return self("run", *bare, *entrypoint, image, *words)

    @contextlib.contextmanager
    def pod(self, image: str, objects: list[Object], host: Mapping[str, Path]) -> "Iterator[Pod]":
        """The DaemonSet's container, running, each folder of the host replaced by that of `host`.

        What a kubelet would ask of containerd. In the end its log is printed, for a test that failed.
        """
        name = "plugin"
        command = ["run", "--rm", f"--name={name}", *_LIMITS, *_flags_of(objects, host), image]
        process = subprocess.Popen(
            [find_tool("podman"), *self._flags, *command, *container_of(objects)["args"]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Pod(self, name, process)
        finally:
            self("rm", "--force", "--ignore", name)
            _, log = process.communicate(timeout=20)
            print(log)


class Pod:
    """A container that runs."""

    def __init__(self, podman: Podman, name: str, process: "subprocess.Popen[str]") -> None:
        self._podman = podman
        self._name = name
        self._process = process

    def run(self, *command: str) -> str:
        """What a command prints that is run in it; an AssertionError if it fails."""
        return self._podman("exec", self._name, *command)

    def status(self) -> dict[str, str]:
        """`/proc/PID/status` of its first process."""
        pid = self._podman("inspect", "--format={{.State.Pid}}", self._name).strip()
        return dict(re.findall(r"(\w+):\t(.*)", Path(f"/proc/{pid}/status").read_text()))

    def stop(self) -> int:
        """Asks it to end, as a kubelet does; its exit status."""
        self._podman("stop", "--time=10", self._name)
        return self._process.wait(timeout=20)


def _flags_of(objects: list[Object], host: Mapping[str, Path]) -> list[str]:
    container = container_of(objects)
    context = container["securityContext"]
    volumes = {each["name"]: each for each in pod_of(objects)["volumes"]}
    flags = ["--network=none", f"--user={context['runAsUser']}:{context['runAsGroup']}"]
    flags += [f"--cap-drop={each}" for each in context["capabilities"]["drop"]]
    flags += [f"--env={each['name']}={each['value']}" for each in container["env"]]
    if not context["allowPrivilegeEscalation"]:
        flags.append("--security-opt=no-new-privileges")
    if context["readOnlyRootFilesystem"]:
        flags += ["--read-only", "--read-only-tmpfs=false"]
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "emptyDir" in volume:
            flags.append(f"--mount=type=tmpfs,destination={mount['mountPath']}")
        else:
            source = host[volume["hostPath"]["path"]]
            mode = "ro" if mount.get("readOnly") else "rw"
            flags.append(f"--volume={source}:{mount['mountPath']}:{mode}")
    return flags
