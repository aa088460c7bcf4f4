"""The daemon with a real shared library: its readings of a card reach the kubelet.

Also what only the kubelet's second socket tells: a card that a pod holds is not given away.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from biren_plugin.core.parse.brml import ReturnCode
from biren_plugin.simulate.host import SimulatedHost
from tests.brml import STATE_VARIABLE, WELL, BrmlState
from tests.e2e.conftest import GPU, HALF
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess

QUICK = ("--health-interval=0.2", "--recover-after=0.5")
"""A round of the library each second; what is well again counts half a second later."""


@pytest.fixture
def installed(host: SimulatedHost, brml_library: Path) -> Path:
    """The library on the host."""
    path: Path = host.root / "usr/lib/libbiren-ml.so.1"
    path.unlink()
    shutil.copy(brml_library, path)
    return path


@pytest.fixture
def library(
    folder: Path, host: SimulatedHost, installed: Path, daemon: DaemonProcess
) -> Iterator[BrmlState]:
    """What the daemon's library says: all is well with two whole GPUs, which the host has."""
    host.add_gpus({0: 1, 1: 1})
    state = BrmlState(folder / "brml-state")
    state.set_system(driver="1.12.0", library="1.9")
    state.add_gpu(0, **WELL)
    state.add_gpu(1, **WELL)
    daemon.environment[STATE_VARIABLE] = str(state.path)
    yield state
    state.close()


@pytest.fixture
def telling_kubelet(plugins: Path, folder: Path) -> Iterator[KubeletProcess]:
    """A kubelet that tells which pod holds what."""
    with KubeletProcess(plugins, f"--pod-resources={folder / 'pod-resources'}") as running:
        yield running


def start(daemon: DaemonProcess, kubelet: KubeletProcess) -> None:
    daemon.start(*QUICK)
    kubelet.wait_for_list(GPU, healthy=2)
    daemon.wait_for_line(r"management library \S+, version 1\.9, driver 1\.12\.0")


def test_status_that_is_critical_puts_a_card_out_of_service_until_it_is_well(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    start(daemon, kubelet)
    library.set_card(1, status=2)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("card_1 is Unhealthy: .*reports health status critical")
    library.set_card(1, status=0)
    kubelet.wait_for_list(GPU, healthy=["card_0", "card_1"])
    daemon.wait_for_line("card_1 is Healthy again")


def test_status_below_the_threshold_is_a_warning_only(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    start(daemon, kubelet)
    library.set_card(0, status=1)
    daemon.wait_for_line(f"{GPU}: card_0: .*reports health status warning")
    assert not daemon.matching("is Unhealthy")


def test_card_whose_calls_hang_is_unhealthy_and_the_other_is_judged_on(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    start(daemon, kubelet)
    library.hang("brmlDeviceGetHealthStatus", 1)
    kubelet.wait_for_list(GPU, ["card_0"], ["card_1"])  # a call counts as hung after 5 s
    daemon.wait_for_line("card_1 is Unhealthy: .*library did not answer for 5 s")
    mark = kubelet.mark()
    library.set_card(0, status=3)
    kubelet.wait_for_list(GPU, [], ["card_0", "card_1"], since=mark)
    library.set_card(0, status=0)
    kubelet.wait_for_list(GPU, ["card_0"], ["card_1"])
    library.release()
    kubelet.wait_for_list(GPU, ["card_0", "card_1"])


def test_card_over_which_the_library_times_out_is_unhealthy(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    start(daemon, kubelet)
    library.fail("brmlDeviceGetHandleByNodeId", ReturnCode.TIMEOUT, 1)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("card_1 is Unhealthy: .*library timed out over it")


def test_uncorrected_errors_that_rise_put_a_card_out_of_service(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    library.set_card(0, ecc_uncorrected=7)  # from before: no fault
    start(daemon, kubelet)
    library.set_card(1, ecc_uncorrected=1)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("card_1 is Unhealthy: uncorrected ECC errors have risen above 0")
    assert not daemon.matching("card_0 is Unhealthy")


def test_temperature_at_the_shutdown_threshold_puts_a_card_out_of_service(
    library: BrmlState, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    start(daemon, kubelet)
    library.set_card(1, temperature=94)
    daemon.wait_for_line("card_1: its temperature has reached the slowdown threshold of 85")
    library.set_card(1, temperature=95)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("card_1 is Unhealthy: .*reached the shutdown threshold of 95")


def test_old_library_leaves_the_rest_to_judge_by(
    library: BrmlState,
    installed: Path,
    old_brml_library: Path,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
) -> None:
    shutil.copy(old_brml_library, installed)
    library.set_system(driver="1.2.1")
    library.set_card(1, temperature=96, status=3)
    daemon.start(*QUICK)
    kubelet.wait_for_list(GPU, healthy=["card_0"], unhealthy=["card_1"])
    daemon.wait_for_line("too old for .*brmlDeviceGetHealthStatus")
    assert not daemon.matching("health status")


def test_a_driver_that_is_too_old_is_logged_once(
    library: BrmlState, host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    (host.root / "sys/module/biren/version").write_text("1.2.1\n")
    start(daemon, kubelet)
    daemon.wait_for_line(r"driver 1\.2\.1 is too old")
    library.set_card(1, status=2)
    kubelet.wait_for_list(GPU, healthy=1, unhealthy=1)
    assert len(daemon.matching("is too old")) == 1


def test_daemon_without_a_library_says_so_in_one_line_and_does_without(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    (host.root / "usr/lib/libbiren-ml.so.1").unlink()
    shutil.rmtree(host.root / "usr/local/birensupa")
    host.add_gpus({0: 1})
    daemon.start(*QUICK)
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line("there is no management library on this node")
    host.add_gpus({1: 1})  # another look for one
    kubelet.wait_for_list(GPU, healthy=2)
    assert len(daemon.matching("management library")) == 1


def test_library_that_cannot_be_loaded_is_one_warning(
    host: SimulatedHost, installed: Path, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    installed.write_text("no library\n")
    host.add_gpus({0: 1})
    daemon.start(*QUICK)
    kubelet.wait_for_list(GPU, healthy=1)
    daemon.wait_for_line(f"WARNING.*cannot load {installed}: ")
    assert len(daemon.matching("cannot load")) == 1


def test_card_that_a_pod_holds_is_not_given_away_by_a_new_split(
    folder: Path, host: SimulatedHost, telling_kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    kubelet = telling_kubelet
    host.add_gpus({0: 1, 1: 1})
    daemon.start(*QUICK, f"--pod-resources-dir={folder / 'pod-resources'}")
    kubelet.wait_for_list(GPU, healthy=2)
    [held] = kubelet.admit(GPU, 1, pod="default/train")["ids"]
    gpu = int(held.removeprefix("card_"))
    other = f"card_{1 - gpu}"
    halves = host.split(gpu, 2)
    assert held in halves, "the name is used again"
    free = next(name for name in halves if name != held)
    kubelet.wait_for_list(HALF, healthy=[free], unhealthy=[held])
    daemon.wait_for_line(f"{HALF}: {held} is Unhealthy: pod default/train still holds {held}")
    daemon.wait_for_line(f"{GPU}: {held} is Unhealthy: .*pod default/train holds {held}, which is")
    kubelet.wait_for_list(GPU, healthy=[other], unhealthy=[held])
    kubelet.command("free", resource=GPU, ids=[held])
    kubelet.wait_for_list(GPU, healthy=[other], unhealthy=[])
    kubelet.wait_for_list(HALF, healthy=halves)
