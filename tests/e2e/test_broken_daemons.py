"""The test kubelet detects each kind of broken daemon, and no fault in a sound one."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import DaemonProcess
from tests.kubelet.client import KubeletProcess
from tests.support.broken_daemons import WAYS, broken, end_what_it_left

CARDS = {"card_0", "card_1", "card_2", "card_3"}
SOON = 15.0
"""Seconds: a healthy daemon takes one, unless the machine is busy."""
NewDaemon = Callable[[], DaemonProcess]


def check_registration(kubelet: KubeletProcess, host: SimulatedHost, new: NewDaemon) -> None:
    new().start()
    kubelet.wait_for_list(GPU, healthy=CARDS, timeout=SOON)


def check_two_steps(kubelet: KubeletProcess, host: SimulatedHost, new: NewDaemon) -> None:
    check_registration(kubelet, host, new)
    mark = kubelet.mark()
    host.split(0, 2)
    kubelet.wait_for_list(GPU, healthy=CARDS - {"card_0"}, unhealthy=set(), since=mark)
    lists = [each for each in kubelet.events[mark:] if each.get("resource") == GPU]
    unhealthy = {"id": "card_0", "health": "Unhealthy"}
    assert any(unhealthy.items() <= device.items() for each in lists for device in each["devices"])


def check_control_node(kubelet: KubeletProcess, host: SimulatedHost, new: NewDaemon) -> None:
    check_registration(kubelet, host, new)
    devices = kubelet.admit(GPU, 1)["response"]["devices"]
    assert "/dev/biren-m" in [each["container_path"] for each in devices]


def check_lock(kubelet: KubeletProcess, host: SimulatedHost, new: NewDaemon) -> None:
    serving, waiting = new(), new()
    serving.start()
    kubelet.wait_for_list(GPU, healthy=CARDS, timeout=SOON)
    waiting.start()
    waiting.wait_for_line("standing by")
    mark = kubelet.mark()
    serving.end(signal.SIGTERM)
    kubelet.wait_for_list(GPU, healthy=CARDS, timeout=SOON, since=mark)


def check_cards(kubelet: KubeletProcess, host: SimulatedHost, new: NewDaemon) -> None:
    check_registration(kubelet, host, new)
    answer = kubelet.admit(GPU, 1)
    assert answer["response"]["envs"]["BR_PHY_CARDS"] == answer["ids"][0]


CHECKS = {
    "registers late": check_registration,
    "leaves a device out in one step": check_two_steps,
    "forgets the control node": check_control_node,
    "keeps the lock": check_lock,
    "answers another card": check_cards,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_daemon_fails_its_check_and_a_sound_one_passes(
    way: str,
    folder: Path,
    kubelet: KubeletProcess,
    host: SimulatedHost,
    new_daemon: NewDaemon,
) -> None:
    host.add_gpus(dict.fromkeys(range(4), 1))
    made: list[DaemonProcess] = []

    def new_broken() -> DaemonProcess:
        made.append(new_daemon())
        made[-1].environment |= broken(way, folder / "patch")
        return made[-1]

    with pytest.raises(AssertionError):
        CHECKS[way](kubelet, host, new_broken)
    for daemon in made:
        daemon.kill()
    end_what_it_left(folder / "patch")
    host.split(0, 1)
    kubelet.restart()
    CHECKS[way](kubelet, host, new_daemon)
