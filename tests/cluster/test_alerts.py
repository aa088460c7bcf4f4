"""A real Prometheus scrapes the daemon: an alert fires for a faulty card and clears when it recovers."""

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.host import NodeHost
from tests.cluster.node import Node
from tests.cluster.processes import Processes, poll
from tests.e2e.daemon import DaemonProcess
from tests.manifests.render import ALERTS

METRICS: Final = "127.0.0.1:9451"
PROMETHEUS: Final = "127.0.0.1:19090"
_CONFIG: Final = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
- job_name: br-gpu-device-plugin
  static_configs: [{{targets: ["{metrics}"]}}]
"""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Processes]:
    """Prometheus with the project's rules, without their waiting times."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here: install Debian's prometheus")
    rules, config = tmp_path / "alerts.yaml", tmp_path / "prometheus.yaml"
    rules.write_text(re.sub(r"^( +for): .*$", r"\1: 0s", ALERTS.read_text(), flags=re.M))
    config.write_text(_CONFIG.format(rules=rules, metrics=METRICS))
    processes = Processes(tmp_path / "logs")
    processes.start(
        "prometheus", "prometheus", f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={PROMETHEUS}",
    )  # fmt: skip
    yield processes
    processes.kill_all()


def ask(path: str) -> Any:
    """Prometheus' answer; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{PROMETHEUS}/api/v1/{path}", timeout=5) as answer:
            return json.loads(answer.read())["data"]
    except OSError:
        return None


def firing() -> set[tuple[str, str]]:
    """The alerts that fire, each with its card."""
    alerts = (ask("alerts") or {"alerts": []})["alerts"]
    return {
        (each["labels"]["alertname"], each["labels"].get("card", ""))
        for each in alerts
        if each["state"] == "firing"
    }


def scraped() -> bool:
    """Whether Prometheus has read the daemon's page."""
    targets = (ask("targets") or {"activeTargets": []})["activeTargets"]
    return [each["health"] for each in targets] == ["up"]


@pytest.mark.usefixtures("prometheus")
def test_an_alert_fires_for_a_faulty_card_and_clears_when_the_card_recovers(
    node: Node, host: NodeHost, new_daemon: Callable[..., DaemonProcess]
) -> None:
    host.add_gpus({0: 1, 1: 1})
    new_daemon(f"--metrics-address={METRICS}").start()
    node.view.wait_for({"card_0", "card_1"})
    poll(scraped, "a scrape")
    poll(lambda: not firing(), "no alert", shown=firing)
    host.silence("card_1")
    poll(lambda: ("BirenCardUnhealthy", "card_1") in firing(), "the card's alert", shown=firing)
    host.unsilence("card_1")
    poll(lambda: not firing(), "no alert", shown=firing)
