"""`doctor` finds each unmet prerequisite and gives advice; a hanging check delays no other."""

import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
import trio.testing

from biren_plugin import unix_sockets
from biren_plugin.commands import show_status
from biren_plugin.commands.cdi_file_commands import generate_file
from biren_plugin.commands.doctor import (
    card_checks,
    daemon_checks,
    directory_checks,
    examination,
    kubelet_checks,
)
from biren_plugin.commands.doctor.card_checks import check_cards, check_library
from biren_plugin.commands.doctor.daemon_checks import check_daemon, check_limits
from biren_plugin.commands.doctor.diagnosis import (
    Check,
    Verdict,
    exit_status,
    failure,
    ok,
    some_of,
    unknown,
)
from biren_plugin.commands.doctor.diagnosis import warning as warned
from biren_plugin.commands.doctor.directory_checks import check_mounts
from biren_plugin.commands.doctor.kubelet_checks import check_kubelet, check_kubelet_version
from biren_plugin.commands.doctor.passthrough_checks import check_passthrough
from biren_plugin.commands.doctor.runtime_checks import check_cdi_file, check_runtime
from biren_plugin.commands.show_devices import devices as show_devices
from biren_plugin.core.parse.brml import LibraryFacts
from biren_plugin.core.setting_field import STATUS_SOCKET
from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState
from biren_plugin.errors import HostUnreadable
from biren_plugin.host import brml_session
from biren_plugin.monitor.status import status_document
from biren_plugin.simulate.host import SimulatedHost
from biren_plugin.unix_sockets import UnixListener
from biren_plugin.wire.unix_grpc import DEFAULT_LIMITS, Server
from tests.support.cards import GPU, devices, listed
from tests.support.clocks import Gate
from tests.support.daemon_states import hold, new_state, register
from tests.support.recorded import HOSTS

Examination = Callable[[Settings], Iterator[Check]]


@pytest.fixture
def host(tmp_path: Path) -> SimulatedHost:
    return SimulatedHost(tmp_path / "host")


@pytest.fixture(autouse=True)
def no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def rows(examination: Examination, settings: Settings) -> dict[str, Check]:
    checks = list(examination(settings))
    found = {check.name: check for check in checks}
    assert len(found) == len(checks), "two rows of one name"
    for check in checks:
        assert check.seen
        assert check.advice or check.verdict in (Verdict.OK, Verdict.UNKNOWN)
    return found


def verdicts(examination: Examination, settings: Settings) -> dict[str, str]:
    return {name: check.verdict.value for name, check in rows(examination, settings).items()}


def test_the_exit_status_follows_the_worst_row() -> None:
    good = [ok("a", "x"), unknown("b", "x")]
    assert exit_status([]) == 0
    assert exit_status(good) == 0
    assert exit_status([*good, warned("c", "x", "y")]) == 1
    assert exit_status([failure("d", "x", "y"), warned("c", "x", "y"), *good]) == 2


def test_a_long_list_is_shortened_with_the_number_left_out() -> None:
    assert some_of(["a", "b"]) == "a; b"
    assert some_of(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_a_complete_host_has_only_ok_rows(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 2})
    settings = Settings(host_root=host.root, mount_host_path=True)
    found = rows(check_cards, settings)
    assert {check.verdict for check in found.values()} == {Verdict.OK}
    assert found["driver"].seen == "loaded, version 1.12.0"
    assert found["cards"].seen == "3 cards, on 2 GPUs"
    assert found["driver files"].seen == "5 to be mounted"


def test_a_host_root_that_is_a_file_is_reported_as_not_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.touch()
    assert (
        rows(check_cards, Settings(host_root=root))["driver"].seen == f"{root} is not a directory"
    )


def test_a_missing_driver_is_a_failure_with_the_command_that_loads_it(tmp_path: Path) -> None:
    found = rows(check_cards, Settings(host_root=tmp_path))
    assert found["driver"].verdict is Verdict.FAILURE
    assert "modprobe biren" in found["driver"].advice


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.2.1", "failure"), ("1.2.2", "ok"), ("1.12.0", "ok"), ("", "unknown"), ("x", "unknown")],
)
def test_the_driver_must_be_1_2_2_or_newer(host: SimulatedHost, version: str, verdict: str) -> None:
    (host.root / "sys/module/biren/version").write_text(f"{version}\n")
    assert verdicts(check_cards, Settings(host_root=host.root))["driver"] == verdict


def test_cards_without_the_drivers_module_are_a_warning(host: SimulatedHost) -> None:
    host.add_gpus({0: 1})
    host.unload_module()
    (host.root / "sys/module").mkdir(exist_ok=True)
    driver = rows(check_cards, Settings(host_root=host.root))["driver"]
    assert driver.verdict is Verdict.WARNING
    assert "unloaded" in driver.seen


@pytest.mark.parametrize(("version", "verdict"), [("1.9.0", "ok"), ("1.10.0", "warning")])
def test_a_missing_control_node_is_reported_only_if_the_driver_should_have_it(
    host: SimulatedHost, version: str, verdict: str
) -> None:
    (host.root / "dev/biren-m").unlink()
    (host.root / "sys/module/biren/version").write_text(version)
    assert verdicts(check_cards, Settings(host_root=host.root))["control node"] == verdict


def test_a_missing_node_is_named_and_its_card_is_unhealthy(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 1})
    host.pull_node("card_1")
    found = rows(check_cards, Settings(host_root=host.root))
    assert found["device nodes"].verdict is Verdict.FAILURE
    assert "/dev/biren/card_1 is missing" in found["device nodes"].seen
    assert "card_0" not in found["device nodes"].seen
    assert found["health"].seen.startswith("card_1: ")


def test_a_doubt_about_a_healthy_card_is_shown_by_doctor_and_devices(
    host: SimulatedHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.add_gpus({0: 1, 1: 1})
    (host.root / "sys/class/biren/card_1/device/numa_node").write_text("4711\n")
    row = rows(check_cards, Settings(host_root=host.root))["health"]
    doubt = "numa_node reads '4711', so the card has no NUMA node"
    assert row.verdict is Verdict.WARNING
    assert row.seen.startswith(f"card_1: {doubt}")
    show_devices(host_root=host.root)
    assert doubt in capsys.readouterr().out


def test_unhealthy_cards_of_several_resources_are_named_in_the_order_of_their_numbers(
    host: SimulatedHost,
) -> None:
    host.add_gpus({0: 2, 1: 1})
    host.pull_node("card_1")
    host.pull_node("card_2")
    seen = rows(check_cards, Settings(host_root=host.root))["health"].seen
    assert seen.index("card_1: ") < seen.index("card_2: ")


def test_a_device_node_without_its_link_for_systemd_is_a_warning(host: SimulatedHost) -> None:
    host.add_gpus({0: 1, 1: 1})
    settings = Settings(host_root=host.root)
    assert verdicts(check_cards, settings)["/dev/char links"] == "ok"
    link = host.root / "dev/char/1:3"
    link.unlink()
    row = rows(check_cards, settings)["/dev/char links"]
    assert row.verdict is Verdict.WARNING
    assert row.seen.startswith("/dev/biren/card_0 has no /dev/char/1:3")
    assert "systemctl daemon-reload" in row.advice
    link.parent.rmdir()
    assert verdicts(check_cards, settings)["/dev/char links"] == "unknown"


def test_an_unsettled_split_is_a_warning() -> None:
    assert verdicts(check_cards, Settings(host_root=HOSTS / "unsettled"))["splits"] == "warning"


def test_vgem_and_driver_files_are_checked_only_if_requested(host: SimulatedHost) -> None:
    (host.root / "usr/bin/brsmi").unlink()
    plain = verdicts(check_cards, Settings(host_root=host.root))
    assert plain["vgem"] == "ok"
    assert "driver files" not in plain
    asked = Settings(host_root=host.root, mount_dri_device=True, mount_host_path=True)
    found = rows(check_cards, asked)
    assert found["vgem"].verdict is Verdict.WARNING
    assert "/usr/bin/brsmi" in found["driver files"].seen
    mixed = Settings(host_root=HOSTS / "mixed", mount_dri_device=True)
    assert "renderD129" in rows(check_cards, mixed)["vgem"].seen


def test_a_missing_library_is_ok_and_an_unloadable_one_is_a_warning(
    host: SimulatedHost, tmp_path: Path
) -> None:
    assert verdicts(check_library, Settings(host_root=tmp_path / "none")) == {
        "management library": "ok"
    }
    assert verdicts(check_library, Settings(host_root=host.root)) == {
        "management library": "warning"
    }


def test_a_working_library_is_shown_with_its_version_and_missing_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Answering:
        def __init__(self, _root: Path) -> None:
            facts = LibraryFacts("/usr/lib/libbiren-ml.so.1", "1.12.0", "1.5.0", tuple("abcde"))
            self.library = SimpleNamespace(facts=facts)

        def names(self) -> list[str]:
            return []

    monkeypatch.setattr(card_checks, "BrmlReader", Answering)
    (check,) = check_library(Settings())
    assert check.verdict is Verdict.OK
    assert check.seen == (
        "/usr/lib/libbiren-ml.so.1, version 1.5.0, too old for a; b; c; and 2 more"
    )


def test_a_library_missing_in_a_pod_may_be_on_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(brml_session, "find_library", lambda _root: [])
    assert verdicts(check_library, Settings()) == {"management library": "unknown"}


def add_function(root: Path, address: str, driver: str | None) -> None:
    function = root / "sys/bus/pci/devices" / address
    function.mkdir(parents=True)
    (function / "vendor").write_text("0x1ee0\n")
    if driver is not None:
        folder = root / "sys/bus/pci/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        (function / "driver").symlink_to(f"../../drivers/{driver}")


def test_kata_needs_an_iommu_and_bound_functions(tmp_path: Path) -> None:
    settings = Settings(host_root=tmp_path, container_runtime="kata")
    assert verdicts(check_passthrough, settings) == {
        "IOMMU": "failure",
        "VFIO functions": "unknown",
    }
    (tmp_path / "sys/kernel/iommu_groups/7").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    assert verdicts(check_passthrough, settings) == {"IOMMU": "ok", "VFIO functions": "failure"}
    add_function(tmp_path, "0000:3b:00.0", "vfio-pci")
    add_function(tmp_path, "0000:3c:00.0", "BEV_HYPER_DRIVER")
    assert verdicts(check_passthrough, settings)["VFIO functions"] == "ok"
    add_function(tmp_path, "0000:3d:00.0", "biren")
    add_function(tmp_path, "0000:3e:00.0", None)
    seen = rows(check_passthrough, settings)["VFIO functions"].seen
    assert seen == "0000:3d:00.0 is bound to biren; 0000:3e:00.0 is bound to nothing"
    assert verdicts(check_cards, settings) == {"driver": "ok"}
    assert verdicts(check_passthrough, Settings(host_root=tmp_path)) == {"IOMMU": "ok"}


def test_a_kata_node_is_judged_as_by_the_daemon() -> None:
    settings = Settings(host_root=HOSTS / "sriov_mixed", container_runtime="kata")
    found = rows(check_passthrough, settings)
    assert found["VFIO functions"].seen == "0000:04:00.3 is bound to biren"
    groups = found["VFIO groups"]
    assert groups.verdict is Verdict.FAILURE
    assert groups.seen.startswith(
        "/dev/vfio/18: function 0000:02:00.1 (snd_hda_intel) of its IOMMU"
    )


def test_functions_without_a_group_cannot_be_allocated(tmp_path: Path) -> None:
    settings = Settings(host_root=tmp_path, container_runtime="kata")
    add_function(tmp_path, "0000:3b:00.0", "vfio-pci")
    groups = rows(check_passthrough, settings)["VFIO groups"]
    assert groups.verdict is Verdict.FAILURE
    assert "no IOMMU group" in groups.seen


def test_usable_groups_are_ok_and_unused_functions_are_a_warning(tmp_path: Path) -> None:
    settings = Settings(host_root=tmp_path, container_runtime="kata")
    add_function(tmp_path, "0000:3b:00.0", "vfio-pci")
    group = tmp_path / "sys/kernel/iommu_groups/7"
    group.mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:3b:00.0/iommu_group").symlink_to(group)
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/7").symlink_to("/dev/null")
    assert rows(check_passthrough, settings)["VFIO groups"].verdict is Verdict.OK
    numa_node = tmp_path / "sys/bus/pci/devices/0000:3b:00.0/numa_node"
    numa_node.write_text("4711\n")
    doubtful = rows(check_passthrough, settings)["VFIO groups"]
    assert doubtful.verdict is Verdict.WARNING
    assert doubtful.seen.startswith("/dev/vfio/7: numa_node reads '4711'")
    numa_node.unlink()
    add_function(tmp_path, "0000:3c:00.0", "vfio-pci")
    assert rows(check_passthrough, settings)["VFIO groups"].verdict is Verdict.WARNING


@pytest.fixture
async def daemon(monkeypatch: pytest.MonkeyPatch) -> DaemonState:
    """The daemon that `doctor` reads: it serves card_0 and card_1."""
    state = new_state(listed(GPU, *devices(GPU, 0, 1)))
    monkeypatch.setattr(daemon_checks, "ask", lambda _folder: status_document(state))
    return state


async def test_the_daemon_reports_faults_that_one_scan_does_not_show(daemon: DaemonState) -> None:
    found = rows(check_daemon, Settings())["daemon"]
    assert found.verdict is Verdict.OK
    assert found.seen.endswith("2 devices healthy")

    first, second = devices(GPU, 0, 1)
    doubtful = attrs.evolve(first, warnings=("it is hot",))
    hold(daemon, listed(GPU, doubtful, second))
    found = rows(check_daemon, Settings())["daemon"]
    assert found.verdict is Verdict.WARNING
    assert "card_0: it is hot" in found.seen

    hold(daemon, listed(GPU, doubtful, attrs.evolve(second, reasons=("it loses data",))))
    found = rows(check_daemon, Settings())["daemon"]
    assert found.verdict is Verdict.FAILURE
    assert "card_1: it loses data" in found.seen


async def test_the_daemons_reason_that_several_cards_share_comes_once(daemon: DaemonState) -> None:
    gone = "the driver's module was unloaded"
    faulty = [attrs.evolve(each, reasons=(gone,)) for each in devices(GPU, 0, 1, 2, 3, 4)]
    hold(daemon, listed(GPU, *faulty))
    assert rows(check_daemon, Settings())["daemon"].seen.endswith(f": card_0 to card_4 (5): {gone}")


async def test_an_unregistered_daemon_is_a_failure_unless_it_stands_by(
    daemon: DaemonState,
) -> None:
    register(daemon, GPU, taken=False)
    found = rows(check_daemon, Settings())["daemon"]
    assert found.verdict is Verdict.FAILURE
    assert "not registered with the kubelet" in found.seen
    daemon.role = "standing by"
    assert verdicts(check_daemon, Settings()) == {"daemon": "ok"}
    daemon.hindrance = "process 7 (backup) holds the lock"
    found = rows(check_daemon, Settings())["daemon"]
    assert found.verdict is Verdict.FAILURE
    assert "process 7 (backup) holds the lock" in found.seen


def test_an_unreachable_daemon_is_not_a_fault(tmp_path: Path) -> None:
    found = rows(check_daemon, Settings(status_dir=tmp_path))["daemon"]
    assert found.verdict is Verdict.UNKNOWN
    assert "in the daemon's container" in found.seen


def test_a_daemon_that_does_not_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(show_status, "ANSWER_DEADLINE", 0.05)
    with (
        tempfile.TemporaryDirectory(prefix="br") as folder,
        socket.socket(socket.AF_UNIX) as stopped,
    ):
        stopped.bind(f"{folder}/{STATUS_SOCKET}")
        stopped.listen()  # and nobody accepts
        found = rows(check_daemon, Settings(status_dir=Path(folder)))["daemon"]
    assert found.verdict is Verdict.FAILURE


async def kubelet_rows(settings: Settings) -> dict[str, Check]:
    """Return the rows, read in a thread as `doctor` does."""
    return await trio.to_thread.run_sync(rows, check_kubelet, settings)


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[None]:
    """A gRPC server of some service."""
    server = Server([], DEFAULT_LIMITS, lambda error: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.handle, [UnixListener(path)])
        yield
        nursery.cancel_scope.cancel()


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """The socket of a stopped process: the kernel accepts connections for it. It is asked for 0.1 s only."""
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubelet_checks, "_ANSWER_DEADLINE", 0.1)
        listener.bind(f"{path}")
        listener.listen()
        yield


async def test_a_running_kubelet_is_distinguished_from_a_leftover_socket(
    tmp_path: Path,
) -> None:
    settings = Settings(device_plugin_dir=tmp_path, pod_resources_dir=tmp_path / "none")
    found = await kubelet_rows(settings)
    assert {name: each.verdict.value for name, each in found.items()} == {
        "kubelet's directory": "ok",
        "kubelet's socket": "failure",
        "other plugins": "ok",
        "pod resources": "warning",
    }
    async with served(path := tmp_path / "kubelet.sock"):
        assert (await kubelet_rows(settings))["kubelet's socket"].verdict is Verdict.OK
    with frozen(path):
        check = (await kubelet_rows(settings))["kubelet's socket"]
        assert check.verdict is Verdict.FAILURE
        assert "does not answer" in check.seen
        assert "no answer in" in check.seen
    check = (await kubelet_rows(settings))["kubelet's socket"]
    assert check.verdict is Verdict.FAILURE
    assert "Connection refused" in check.seen


async def test_an_unserved_plugin_socket_is_a_failure_frozen_or_dead() -> None:
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        settings = Settings(device_plugin_dir=Path(folder), pod_resources_dir=Path(folder) / "none")
        path = Path(folder) / "birentech.com-gpu.sock"
        async with served(path):
            assert (await kubelet_rows(settings))["plugin's sockets"].verdict is Verdict.OK
        assert "plugin's sockets" not in await kubelet_rows(settings)
        with frozen(path):
            check = (await kubelet_rows(settings))["plugin's sockets"]
            assert check.verdict is Verdict.FAILURE
            assert check.seen == f"{path.name}: no answer in 0.1 s"
        check = (await kubelet_rows(settings))["plugin's sockets"]
        assert check.verdict is Verdict.FAILURE
        assert check.seen == f"{path.name}: Connection refused"


def test_a_missing_directory_is_a_failure(tmp_path: Path) -> None:
    settings = Settings(device_plugin_dir=tmp_path / "none", pod_resources_dir=tmp_path)
    assert verdicts(check_kubelet, settings)["kubelet's directory"] == "failure"


async def test_a_running_kubelets_deleted_socket_needs_a_kubelet_restart() -> None:
    with tempfile.TemporaryDirectory(prefix="br") as folder:
        registering, pods = Path(folder) / "plugins", Path(folder) / "pods"
        registering.mkdir()
        pods.mkdir()
        settings = Settings(device_plugin_dir=registering, pod_resources_dir=pods)
        for alive, name in ((pods, "kubelet's socket"), (registering, "pod resources")):
            async with served(alive / "kubelet.sock"):
                row = (await kubelet_rows(settings))[name]
            assert "though the kubelet runs" in row.seen
            assert "only a restart of the kubelet creates it again" in row.advice


def test_other_plugins_are_named_and_one_for_the_same_cards_is_a_failure(tmp_path: Path) -> None:
    settings = Settings(device_plugin_dir=tmp_path, pod_resources_dir=tmp_path / "none")
    for name in ("birentech.com-gpu.sock", "nvidia.sock"):
        (tmp_path / name).touch()
    check = rows(check_kubelet, settings)["other plugins"]
    assert check.verdict is Verdict.OK
    assert check.seen.startswith("nvidia.sock; the row daemon shows")
    (tmp_path / "biren-device-plugin.sock").touch()
    check = rows(check_kubelet, settings)["other plugins"]
    assert check.verdict is Verdict.FAILURE
    assert check.seen == "biren-device-plugin.sock, nvidia.sock"


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ("featureGates: {DevicePluginCDIDevices: false}", "failure"),
        ("featureGates: {DevicePluginCDIDevices: true}", "ok"),
        ("featureGates: []", "unknown"),
        ("a: [", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_gate_is_read_from_the_kubelets_configuration(
    tmp_path: Path, config: str | None, verdict: str
) -> None:
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    settings = Settings(
        host_root=tmp_path, device_plugin_dir=tmp_path / "device-plugins", cdi_feature=True
    )
    assert verdicts(check_kubelet_version, settings) == {
        "kubelet's version": "unknown",  # a program of another root is not run
        "kubelet's CDI gate": verdict,
    }


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Kubernetes v1.31.2", "ok"),
        ("Kubernetes v1.12.0", "failure"),
        ("who knows", "unknown"),
    ],
)
def test_the_version_comes_from_the_program_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, verdict: str
) -> None:
    program = tmp_path / "kubelet"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert verdicts(check_kubelet_version, Settings())["kubelet's version"] == verdict
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # in a pod it is not the host's
    assert verdicts(check_kubelet_version, Settings())["kubelet's version"] == "unknown"


def configure_containerd(root: Path, text: str) -> None:
    path = root / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ("enable_cdi = true", "ok"),
        ("enable_cdi = false", "failure"),
        ("", "unknown"),
        ('enable_cdi = true\ncdi_spec_dirs = ["/opt/cdi"]', "failure"),
    ],
)
def test_containerd_must_read_the_directory_of_the_cdi_file(
    tmp_path: Path, config: str, verdict: str
) -> None:
    configure_containerd(tmp_path, f'[plugins."io.containerd.grpc.v1.cri"]\n{config}')
    settings = Settings(host_root=tmp_path, cdi_feature=True)
    assert verdicts(check_runtime, settings)["containerd's CDI directories"] == verdict
    without = verdicts(check_runtime, Settings(host_root=tmp_path))
    assert without["containerd's CDI directories"] == "ok"


def test_birens_own_runtime_is_shown_as_harmless(tmp_path: Path) -> None:
    runtimes = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes'
    configure_containerd(tmp_path, f"{runtimes}.biren]\n{runtimes}.runc]\n")
    check = rows(check_runtime, Settings(host_root=tmp_path))["biren runtime"]
    assert check.verdict is Verdict.OK
    assert "has biren," in check.seen


def test_birens_runtime_is_recognised_by_its_program_too(tmp_path: Path) -> None:
    runtimes = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes'
    program = "/usr/local/birensupa/bin/biren-container-runtime"
    configure_containerd(tmp_path, f'{runtimes}.gpu.options]\nBinaryName = "{program}"\n')
    check = rows(check_runtime, Settings(host_root=tmp_path))["biren runtime"]
    assert f"has gpu ({program})," in check.seen


def test_without_birens_runtime_the_advice_names_the_variable_for_plain_handlers(
    tmp_path: Path,
) -> None:
    configure_containerd(tmp_path, "version = 3")
    (tmp_path / "usr/local/birensupa/container-toolkit/biren-container-toolkit").mkdir(parents=True)
    check = rows(check_runtime, Settings(host_root=tmp_path))["biren runtime"]
    assert "is installed, but none in /etc/containerd/config.toml" in check.seen
    assert (
        check.advice == "for images that read BIREN_VISIBLE_DEVICES, give --visible-devices=index"
    )
    given = Settings(host_root=tmp_path, visible_devices="index")
    assert rows(check_runtime, given)["biren runtime"].advice == ""


def test_files_imported_by_containerds_configuration_are_read_too(tmp_path: Path) -> None:
    configure_containerd(tmp_path, 'imports = ["/etc/containerd/conf.d/*.toml", "relative", 3]')
    folder = tmp_path / "etc/containerd/conf.d"
    folder.mkdir()
    (folder / "cdi.toml").write_text('[plugins."io.containerd.cri.v1.runtime"]\nenable_cdi = true')
    (folder / "odd.toml").write_text("= no TOML")
    found = verdicts(check_runtime, Settings(host_root=tmp_path, cdi_feature=True))
    assert found["containerd's CDI directories"] == "ok"


def test_on_talos_the_containerd_that_runs_pods_is_checked(tmp_path: Path) -> None:
    configure_containerd(tmp_path, '[plugins."io.containerd.cri.v1.runtime"]\nenable_cdi = false')
    talos = tmp_path / "etc/cri/containerd.toml"
    (talos.parent / "conf.d").mkdir(parents=True)
    talos.write_text('version = 3\nimports = ["/etc/cri/conf.d/cri.toml"]\n')
    (talos.parent / "conf.d/cri.toml").write_text(
        '[plugins."io.containerd.cri.v1.runtime"]\n'
        'enable_cdi = true\ncdi_spec_dirs = ["/var/cdi/static"]\n'
    )
    settings = Settings(host_root=tmp_path, cdi_feature=True, cdi_dir=Path("/var/cdi/static"))
    assert verdicts(check_runtime, settings)["containerd's CDI directories"] == "ok"


def test_crio_is_checked_if_containerd_is_not_configured(tmp_path: Path) -> None:
    folder = tmp_path / "etc/crio/crio.conf.d"
    folder.mkdir(parents=True)
    (tmp_path / "etc/crio/crio.conf").write_text('[crio.runtime]\ncdi_spec_dirs = ["/a"]\n')
    settings = Settings(host_root=tmp_path, cdi_feature=True)
    assert verdicts(check_runtime, settings)["CRI-O's CDI directories"] == "failure"
    (folder / "10-cdi.conf").write_text(
        '[crio.runtime]\ncdi_spec_dirs = ["/etc/cdi"]\n[crio.runtime.runtimes.biren]\n'
    )
    found = rows(check_runtime, settings)
    assert found["CRI-O's CDI directories"].verdict is Verdict.OK
    assert found["CRI-O"].verdict is Verdict.UNKNOWN
    assert "biren" in found["biren runtime"].seen


@pytest.mark.parametrize("text", [None, "= no TOML"])
def test_an_invisible_configuration_is_unknown(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        configure_containerd(tmp_path, text)
    found = verdicts(check_runtime, Settings(host_root=tmp_path, cdi_feature=True))
    assert set(found.values()) == {"unknown"}


def test_the_cdi_file_must_have_what_the_node_needs(host: SimulatedHost, tmp_path: Path) -> None:
    host.add_gpus({0: 1})
    asked = Settings(host_root=host.root, cdi_dir=tmp_path, cdi_feature=True)
    file = tmp_path / "biren.yaml"
    assert rows(check_cdi_file, asked)["CDI file"].seen.startswith(f"{file}: missing")
    file.write_text("a: [")
    assert verdicts(check_cdi_file, asked) == {"CDI file": "failure"}
    generate_file(Settings(host_root=host.root, cdi_dir=tmp_path), None, "yaml", overwrite=True)
    assert verdicts(check_cdi_file, asked) == {"CDI file": "ok"}
    host.add_gpus({1: 1})
    assert "card_1" in rows(check_cdi_file, asked)["CDI file"].seen
    assert verdicts(check_cdi_file, Settings(cdi_dir=tmp_path)) == {"CDI file": "ok"}
    generate_file(Settings(host_root=host.root, cdi_dir=tmp_path), None, "yaml", overwrite=True)
    (tmp_path / "other.yaml").write_text(file.read_text())
    row = rows(check_cdi_file, asked)["CDI file"]
    assert row.seen.endswith("remove one")
    assert row.advice == "remove the other file: the daemon keeps biren.yaml up to date"


def test_mounts_are_checked_only_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts(check_mounts, Settings()) == {"mounts": "ok"}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / / ro - overlay overlay rw\n"
        "2 1 0:2 / /sys ro - sysfs sysfs ro\n"
        "3 1 0:3 / /dev rw - tmpfs tmpfs rw\n"
        "4 1 0:4 / /var/lib/kubelet/device-plugins rw - ext4 /dev/sda rw\n"
    )
    monkeypatch.setattr(directory_checks, "_MOUNTINFO", table)
    settings = Settings(cdi_feature=True, mount_host_path=True, nfd_features_dir=Path("/nfd"))
    assert verdicts(check_mounts, settings) == {
        "mount of sys": "ok",
        "mount of dev": "failure",
        "mount of kubelet": "ok",
        "mount of pod resources": "warning",
        "mount of usr": "warning",
        "mount of CDI": "failure",
        "mount of features": "warning",
    }


def test_a_tmpfs_on_dev_with_all_nodes_is_ok(
    host: SimulatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    table = tmp_path / "mountinfo"
    table.write_text(f"3 1 0:3 / {host.root}/dev rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(directory_checks, "_MOUNTINFO", table)
    settings = Settings(host_root=host.root)
    assert verdicts(check_mounts, settings)["mount of dev"] == "failure", "no card shows that it is"
    host.add_gpus({0: 1, 1: 1})
    row = rows(check_mounts, settings)["mount of dev"]
    assert (row.verdict, row.seen) == (
        Verdict.OK, f"{host.root}/dev is tmpfs, with the device node of each card"
    )  # fmt: skip
    host.pull_node("card_1")
    assert verdicts(check_mounts, settings)["mount of dev"] == "failure"


def test_a_user_namespace_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "uid_map"
    table.write_text("         0     100000      65536\n")
    monkeypatch.setattr(unix_sockets, "_UID_MAP", table)
    row = rows(check_limits, Settings())["user namespace"]
    assert row.verdict is Verdict.FAILURE
    assert "hostUsers" in row.advice


def test_the_limits_of_the_process_are_checked() -> None:
    assert set(verdicts(check_limits, Settings())) == {"descriptors", "inotify"}


def test_few_descriptors_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (64, 64))
    assert verdicts(check_limits, Settings())["descriptors"] == "warning"


async def test_a_hanging_check_is_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    release = Gate()

    def hang(_settings: Settings) -> Iterator[Check]:
        release.wait()
        yield ok("never", "seen")

    try:
        (check,) = await examination.examine(Settings(), [("driver", hang)])
    finally:
        release.set()
    assert (check.name, check.verdict) == ("driver", Verdict.FAILURE)


async def test_a_check_prevented_by_the_host_does_not_affect_the_others() -> None:
    def refuse(_settings: Settings) -> Iterator[Check]:
        yield ok("lost", "with the rest of its examination")
        raise PermissionError(13, "Permission denied", "/sys/secret")

    def fine(_settings: Settings) -> Iterator[Check]:
        yield ok("fine", "x")

    refused, good = await examination.examine(Settings(), [("limits", refuse), ("other", fine)])
    assert refused == unknown("limits", "/sys/secret: Permission denied", "run doctor as root")
    assert good == ok("fine", "x")


async def test_a_host_that_cannot_be_read_is_not_called_a_bug() -> None:
    def refuse(_settings: Settings) -> Iterator[Check]:
        raise HostUnreadable("cannot read /sys/class/biren: Input/output error; see `dmesg`")

    [check] = await examination.examine(Settings(), [("CDI file", refuse)])
    assert (check.verdict, check.advice) == (Verdict.UNKNOWN, "")
    assert check.seen == "cannot read /sys/class/biren: Input/output error; see `dmesg`"


async def test_a_check_with_a_bug_does_not_affect_the_others() -> None:
    def stumble(_settings: Settings) -> Iterator[Check]:
        yield ok("lost", "with the rest of its examination")
        raise RuntimeError("deadlock detected")

    def fine(_settings: Settings) -> Iterator[Check]:
        yield ok("fine", "x")

    stumbled, good = await examination.examine(Settings(), [("limits", stumble), ("other", fine)])
    assert (stumbled.name, stumbled.verdict) == ("limits", Verdict.UNKNOWN)
    assert "RuntimeError: deadlock detected" in stumbled.seen
    assert good == ok("fine", "x")


def test_shared_modules_are_imported_before_the_checks_threads_start() -> None:
    # Imported by two threads at once, it came out as a deadlock in one of three runs of `doctor`.
    code = "import sys, biren_plugin.commands.doctor.examination; sys.exit('ruamel.yaml' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
