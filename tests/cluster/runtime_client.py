"""A client of the Container Runtime Interface: it starts a container with CDI names, as a kubelet does."""

import os
from pathlib import Path
from typing import Any, Final

import grpc

from tests.cluster.images import BUSYBOX
from tests.cluster.isolation import CGROUP_VARIABLE
from tests.cluster.pods import LOOK, Inside
from tests.cluster.processes import poll
from tests.kubelet.protos import load_file

_SCHEMA: Final = Path(__file__).with_name("cri.proto")
_DEADLINE: Final = 30.0
"""Seconds for one call."""


def is_ready(socket: Path) -> bool:
    """Whether the runtime answers calls: its socket exists earlier, and even `ctr version` works earlier."""
    protos = load_file(_SCHEMA)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            protos.stub(channel, "RuntimeService").Version(protos.VersionRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
    return True


def run_container(socket: Path, logs: Path, *names: str) -> Inside:
    """What a container with these CDI names finds.

    Its log lies in `logs`. Raises grpc.RpcError if containerd cannot resolve a name.
    """
    protos = load_file(_SCHEMA)
    sandbox = protos.PodSandboxConfig(
        metadata={"name": "pod", "uid": os.urandom(8).hex(), "namespace": "default"},
        log_directory=str(logs),
        linux={
            "cgroup_parent": os.environ[CGROUP_VARIABLE],
            "security_context": {"namespace_options": {"network": "NODE"}},
        },
    )
    config = protos.ContainerConfig(
        metadata={"name": "main"},
        image={"image": BUSYBOX},
        command=["/bin/sh", "-c", LOOK],
        log_path="log",
        CDI_devices=[{"name": name} for name in names],
    )
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = protos.stub(channel, "RuntimeService")
        request = protos.RunPodSandboxRequest(config=sandbox)
        pod = stub.RunPodSandbox(request, timeout=_DEADLINE).pod_sandbox_id
        try:
            return _look(protos, stub, pod, sandbox, config, logs / "log")
        finally:
            poll(lambda: _is_removed(protos, stub, pod), f"the end of sandbox {pod}")


def _is_removed(protos: Any, stub: Any, pod: str) -> bool:
    """Tries once. The call fails while a container is ending; a kubelet repeats it, too."""
    try:
        stub.StopPodSandbox(protos.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=_DEADLINE)
        request = protos.RemovePodSandboxRequest(pod_sandbox_id=pod)
        stub.RemovePodSandbox(request, timeout=_DEADLINE)
    except grpc.RpcError:
        return False
    return True


def _look(protos: Any, stub: Any, pod: str, sandbox: Any, config: Any, log: Path) -> Inside:
    request = protos.CreateContainerRequest(
        pod_sandbox_id=pod, config=config, sandbox_config=sandbox
    )
    made = stub.CreateContainer(request, timeout=_DEADLINE)
    request = protos.StartContainerRequest(container_id=made.container_id)
    stub.StartContainer(request, timeout=_DEADLINE)

    def printed() -> str | None:
        # Each line is: time, stream, whether the line is whole, text.
        lines = log.read_text().splitlines() if log.exists() else []
        text = [line.split(" ", 3)[3] for line in lines if line.count(" ") >= 3]
        return "\n".join(text) if "end" in text else None

    return Inside.read(poll(printed, f"the container's last line in {log}") or "")
