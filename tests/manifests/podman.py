"""podman, with a storage of its own, as it runs where systemd does not; the daemon as a pod's container.

Cgroups are the kernel's own files and limits those of any process: a machine of CI is a container
itself, and may set neither otherwise.
"""

import subprocess
from collections.abc import Mapping
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

    def start_pod(
        self, name: str, image: str, objects: list[Object], host: Mapping[str, Path]
    ) -> "subprocess.Popen[str]":
        """The DaemonSet's container, with each folder of the host replaced by that of `host`.

        What a kubelet would ask of containerd; the process is podman's, with the container's log.
        """
        container = container_of(objects)
        context = container["securityContext"]
        volumes = {each["name"]: each for each in pod_of(objects)["volumes"]}
        flags = [f"--user={context['runAsUser']}:{context['runAsGroup']}", "--network=none"]
        flags += [f"--cap-drop={each}" for each in context["capabilities"]["drop"]]
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
        flags += [f"--env={each['name']}={each['value']}" for each in container["env"]]
        command = ["run", "--rm", f"--name={name}", *_LIMITS, *flags, image, *container["args"]]
        return subprocess.Popen(
            [find_tool("podman"), *self._flags, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
