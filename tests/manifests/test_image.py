"""The image, built for real on a base of Debian's packages, and the daemon in it as the manifest runs it."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from biren_plugin import __version__
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.kubelet.client import KubeletProcess
from tests.manifests.image_archive import LOCKS, import_base, write_context
from tests.manifests.podman import Podman
from tests.manifests.render import container_of, overlay, read_objects
from tests.manifests.tools import ROOT, find_tool

pytestmark = pytest.mark.time_limit(900)  # the first test builds the image

IMAGE = f"localhost/br-gpu-device-plugin:{__version__}"
MIB = 2**20
CARDS = ["card_0", "card_1", "card_2", "card_3"]
PYTHON = "/opt/br-gpu-device-plugin/bin/python"
START = 20.0
"""Seconds: podman makes a container in one of them, unless the machine is busy."""

# Asks as the kubelet's probes do, from inside: the container has no network but its own.
ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
UNCOMPILED = """
import importlib.util, pathlib, sysconfig
for folder in ("/opt/br-gpu-device-plugin", sysconfig.get_path("stdlib") + "/asyncio"):
    for source in pathlib.Path(folder).rglob("*.py"):
        if not pathlib.Path(importlib.util.cache_from_source(str(source))).exists():
            print(source)
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build sees."""
    folder = tmp_path_factory.mktemp("context")
    write_context(folder)
    return folder


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the base in it."""
    for tool in ("podman", "runc", "mmdebstrap"):
        find_tool(tool)
    storage = tmp_path_factory.mktemp("podman")
    podman = Podman(storage)
    import_base(podman)
    yield podman
    podman("rmi", "--all", "--force")
    shutil.rmtree(storage, ignore_errors=True)


@pytest.fixture(scope="module")
def image_id(podman: Podman, context: Path) -> str:
    """The image, built."""
    return podman.build(IMAGE, context)


@pytest.fixture
def node(tmp_path: Path) -> dict[str, Path]:
    """A node of four GPUs: its folders, by the paths that the manifests mount."""
    host = SimulatedHost(tmp_path / "host")
    host.add_gpus(dict.fromkeys(range(4), 1))
    folders = {
        "/dev": host.root / "dev",
        "/sys": host.root / "sys",
        "/usr": host.root / "usr",
        "/etc/cdi": tmp_path / "cdi",
        "/var/lib/kubelet/device-plugins": tmp_path / "plugins",
        "/var/lib/kubelet/pod-resources": tmp_path / "pods",
    }
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    folders["/var/lib/kubelet/device-plugins"].chmod(0o750)  # as the kubelet makes it
    return folders


def test_locks_have_a_hash_for_each_file_and_name_no_host() -> None:
    for lock in LOCKS:
        text = lock.read_text()
        requirements = re.findall(
            r"^([a-z0-9.-]+)==\S+ \\\n((?:    --hash=sha256:\S+.*\n)+)", text, re.M
        )
        assert len(requirements) == len(re.findall(r"==", text)) > 0
        assert "://" not in text


def test_lock_has_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [(LOCKS[0], project["project"]["dependencies"])]
    wanted.append((LOCKS[1], project["build-system"]["requires"]))
    for lock, texts in wanted:
        locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.M))
        for requirement in map(Requirement, texts):
            name = re.sub("[-_.]+", "-", requirement.name.lower())
            version = locked.get(name, "none")
            assert version != "none", f"{name} is not locked: nox -s lock"
            assert requirement.specifier.contains(version), f"{name} {version}: nox -s lock"


@pytest.mark.usefixtures("image_id")
@pytest.mark.parametrize("entry", [None, "/root/k8s-device-plugin"])
def test_the_daemon_is_the_entry_under_our_name_and_the_vendors(
    podman: Podman, entry: str | None
) -> None:
    said = podman.run(IMAGE, "--version", entry=entry)
    assert said == f"br-gpu-device-plugin {__version__}\n"


@pytest.mark.usefixtures("image_id")
def test_no_shell_stands_between_the_runtime_and_the_daemon(podman: Podman) -> None:
    [config] = json.loads(podman("image", "inspect", IMAGE))
    assert config["Config"]["Entrypoint"] == ["/opt/br-gpu-device-plugin/bin/br-gpu-device-plugin"]
    assert not config["Config"].get("Cmd")


@pytest.mark.usefixtures("image_id")
def test_everything_is_compiled_beforehand(podman: Podman) -> None:
    assert podman.run(IMAGE, "-c", UNCOMPILED, entry=PYTHON) == ""


def test_the_same_sources_give_the_same_image(podman: Podman, context: Path, image_id: str) -> None:
    assert podman.build("localhost/again", context) == image_id


@pytest.mark.usefixtures("image_id")
def test_as_the_manifest_runs_it_the_daemon_serves_the_kubelet(
    podman: Podman, node: dict[str, Path]
) -> None:
    objects = overlay("base")
    plugins = node["/var/lib/kubelet/device-plugins"]
    with KubeletProcess(plugins) as kubelet, podman.pod(IMAGE, objects, node) as pod:
        kubelet.wait_for_list(GPU, healthy=CARDS, timeout=START)
        assert kubelet.admit(GPU, 2)["response"]["envs"] == {"BR_PHY_CARDS": "card_0,card_1"}

        status = pod.status()
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), "2: a filter is on"
        requested = container_of(objects)["resources"]["requests"]["memory"]
        resident = int(status["VmRSS"].removesuffix(" kB")) * 1024
        assert resident <= int(requested.removesuffix("Mi")) * MIB

        for probe in ("livenessProbe", "readinessProbe"):
            path = container_of(objects)[probe]["httpGet"]["path"]
            pod.run(PYTHON, "-c", ASK, f"http://127.0.0.1:9451{path}")  # an answer of 503 fails it

        assert pod.stop() == 0
        assert not list(plugins.glob("birentech*"))


@pytest.mark.usefixtures("image_id")
def test_as_the_cdi_overlay_runs_it_the_daemon_writes_the_file_and_names_it(
    podman: Podman, node: dict[str, Path]
) -> None:
    plugins = node["/var/lib/kubelet/device-plugins"]
    with KubeletProcess(plugins) as kubelet, podman.pod(IMAGE, overlay("cdi"), node) as pod:
        kubelet.wait_for_list(GPU, healthy=CARDS, timeout=START)
        [document] = read_objects((node["/etc/cdi"] / "biren.yaml").read_text())
        assert [each["name"] for each in document["devices"]] == CARDS
        response = kubelet.admit(GPU, 1)["response"]
        assert [each["name"] for each in response["cdi_devices"]] == ["birentech.com/gpu=card_0"]
        assert pod.stop() == 0
