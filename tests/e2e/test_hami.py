"""The daemon as a process under a stand-in for HAMi's scheduler, with the independent kubelet."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU, HALF
from tests.e2e.daemon import DaemonProcess, run_command, until
from tests.kubelet.client import Event, KubeletProcess
from tests.support.api_server import StandInApiServer, stand_in_api_server
from tests.support.hami_books import Wish, read
from tests.support.hami_scheduler import ALLOCATED, CARDS, HANDSHAKE, PHASE, HamiScheduler


@pytest.fixture
def api() -> Iterator[StandInApiServer]:
    with stand_in_api_server() as running:
        yield running


@pytest.fixture
def hami(api: StandInApiServer) -> HamiScheduler:
    scheduler = HamiScheduler(api)
    scheduler.add_node()
    return scheduler


@pytest.fixture
def flags(api: StandInApiServer, folder: Path) -> list[str]:
    return ["--hami", f"--kubeconfig={api.kubeconfig(folder)}", "--node-name=n1"]


def reported(hami: HamiScheduler) -> dict[str, bool]:
    """The cards in HAMi's list of the node, and whether it may choose them."""
    return {
        each["id"]: each["health"] for each in json.loads(hami.annotation(CARDS) or "[]")
    }  # fmt: skip


def register(hami: HamiScheduler, cards: int) -> None:
    until(lambda: len(reported(hami)) == cards)
    hami.tick()


def run_pod(hami: HamiScheduler, kubelet: KubeletProcess, name: str, number: int) -> Event:
    """A pod with one container, from its creation to the kubelet's report."""
    until(lambda: hami.lock is None)
    assert hami.run_pod(name, Wish((number,))) == "bound"
    answer = kubelet.admit(GPU, number, pod=f"default/{name}")
    hami.set_status(name, phase="Running" if answer["ok"] else "Failed", startTime="now")
    return answer


def test_pods_with_1_2_and_4_cards_get_what_hami_chose(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    hami: HamiScheduler,
    flags: list[str],
    folder: Path,
) -> None:
    host.add_gpus({**dict.fromkeys(range(8), 1), 8: 2})
    daemon.start(*flags)
    listed = kubelet.wait_for_list(GPU, healthy=8)
    assert all(not each["numa"] for each in listed["devices"]), "HAMi aligns, not the kubelet"
    kubelet.wait_for_list(HALF, healthy=2)
    register(hami, 8)
    held: set[str] = set()
    for name, number in (("one", 1), ("two", 2), ("four", 4)):
        answer = run_pod(hami, kubelet, name, number)
        assert answer["ok"], answer
        (entry,) = read(hami.annotation(ALLOCATED, name) or "")
        assert set(answer["ids"]) == set(entry)
        given = answer["response"]["envs"]["BR_PHY_CARDS"].split(",")
        assert set(given) == set(entry), "the container has HAMi's choice"
        assert not held & set(entry)
        held |= set(entry)
        until(lambda: hami.lock is None)
        assert hami.annotation(PHASE, name) == "success"
    assert kubelet.admit(HALF, 1)["ok"], "HAMi does not know splits"
    status = run_command("status", "--json", f"--status-dir={folder / 'status'}")
    shown = json.loads(status.stdout)["hami"]
    assert (shown["registered"], shown["locked_for"], shown["mismatches"]) == (True, None, [])


def test_a_faulty_card_is_not_scheduled_and_a_restarted_scheduler_keeps_its_records(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    hami: HamiScheduler,
    flags: list[str],
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    daemon.start(*flags)
    kubelet.wait_for_list(GPU, healthy=4)
    register(hami, 4)
    assert run_pod(hami, kubelet, "one", 1)["ids"] == ["card_3"]
    until(lambda: hami.lock is None)
    host.pull_node("card_2")
    until(lambda: reported(hami)["card_2"] is False)
    hami.restart()
    daemon.end()
    daemon.start(*flags)
    until(lambda: "Reported" in (hami.annotation(HANDSHAKE) or ""))
    until(lambda: reported(hami)["card_2"] is False)
    hami.tick()
    kubelet.wait_for_list(GPU, healthy=3)
    assert run_pod(hami, kubelet, "two", 2)["ids"] == ["card_0", "card_1"]
    host.put_node_back("card_2")
    until(lambda: reported(hami)["card_2"])


def test_a_killed_daemon_and_a_stopped_one_leave_no_lock(
    host: SimulatedHost,
    kubelet: KubeletProcess,
    daemon: DaemonProcess,
    hami: HamiScheduler,
    api: StandInApiServer,
    flags: list[str],
) -> None:
    host.add_gpus(dict.fromkeys(range(2), 1))
    daemon.start(*flags)
    kubelet.wait_for_list(GPU, healthy=2)
    register(hami, 2)
    api.refuse = lambda method, _path: (503, "away") if method == "PATCH" else None
    assert run_pod(hami, kubelet, "one", 1)["ids"] == ["card_1"]
    daemon.kill()
    assert hami.lock is not None
    api.refuse = lambda _method, _path: None
    daemon.start(*flags)
    until(lambda: hami.lock is None)
    until(lambda: len(reported(hami)) == 2)
    daemon.wait_for_line("reported to HAMi", count=2)
    assert hami.run_pod("late", Wish((1,))) == "bound"
    assert daemon.end(signal.SIGTERM) == 0
    assert hami.lock is None


def test_hami_and_dra_together_are_refused_in_one_line() -> None:
    done = run_command("--hami", "--offer-by=dra")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "give --hami or --offer-by dra, not both" in done.stderr
