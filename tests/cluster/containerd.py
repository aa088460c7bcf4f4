"""containerd with its defaults for CDI, and with the tests' image."""

import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.images import PAUSE, write_archive
from tests.cluster.processes import Processes
from tests.cluster.programs import busybox, cni_directory
from tests.cluster.runtime_client import is_ready

_CONFIG: Final = """\
version = 3
root = "{state}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni}"]
  conf_dir = "/etc/cni/net.d"
"""
_NETWORK: Final = """\
{{"cniVersion": "1.0.0", "name": "node", "plugins": [{{"type": "ptp",
 "ipam": {{"type": "host-local", "subnet": "10.88.7.0/24", "dataDir": "{state}/addresses",
 "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"""


class Containerd:
    """containerd with its files below `state`; its name among `processes` is `containerd`."""

    def __init__(self, state: Path, processes: Processes) -> None:
        self.socket = Path("/run/containerd/containerd.sock")
        self._processes = processes
        self._config = state / "containerd.toml"
        text = _CONFIG.format(
            state=state, socket=self.socket, pause=PAUSE, cni=cni_directory() or "/opt/cni/bin"
        )
        self._config.write_text(text)
        Path("/etc/cni/net.d/10-node.conflist").write_text(_NETWORK.format(state=state))
        self._archive = state / "image.tar"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self._processes.start("containerd", "containerd", "--config", str(self._config))
        self._processes.wait_until("containerd", lambda: is_ready(self.socket))

    def import_image(self) -> None:
        """Imports the pods' image."""
        found = busybox()
        assert found is not None
        write_archive(found, self._archive)
        self.ctr("images", "import", "--local", str(self._archive))

    def ctr(self, *words: str) -> str:
        """The output of containerd's own client; an AssertionError if the client fails."""
        done = self._ctr(*words)
        assert done.returncode == 0, f"ctr {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def end_all_containers(self) -> None:
        """Kills each container and sandbox, as a power failure does."""
        for task in self.ctr("tasks", "list", "--quiet").split():
            self._ctr("tasks", "kill", "--signal", "SIGKILL", task)  # it may have ended meanwhile

    def _ctr(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
