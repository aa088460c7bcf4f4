"""Alert rules and the dashboard, as promtool reads them; Grafana itself is not to be had here."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.render import ALERTS, Object, read_objects
from tests.manifests.tools import MANIFESTS, run_tool, try_tool
from tests.support.documents import ROOT

ALERTS_TEST = MANIFESTS / "monitoring/alerts_test.yaml"
DASHBOARD: dict[str, Any] = json.loads((MANIFESTS / "monitoring/dashboard.json").read_text())
PANELS: list[Object] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
METRICS = {
    "br_gpu_allocation_seconds_bucket",
    "br_gpu_allocations_total",
    "br_gpu_build_info",
    "br_gpu_cdi_spec_stale",
    "br_gpu_device_healthy",
    "br_gpu_device_info",
    "br_gpu_devices",
    "br_gpu_dra_claims_total",
    "br_gpu_dra_devices",
    "br_gpu_dra_forbidden",
    "br_gpu_dra_prepare_seconds_bucket",
    "br_gpu_dra_prepared_claims",
    "br_gpu_dra_published",
    "br_gpu_ecc_errors_total",
    "br_gpu_hami_containers_total",
    "br_gpu_hami_locked",
    "br_gpu_hami_registered",
    "br_gpu_last_list_timestamp_seconds",
    "br_gpu_links",
    "br_gpu_memory_total_bytes",
    "br_gpu_memory_used_bytes",
    "br_gpu_power_watts",
    "br_gpu_preferred_allocation_seconds_bucket",
    "br_gpu_probe_seconds",
    "br_gpu_registered",
    "br_gpu_registrations_total",
    "br_gpu_restarts_total",
    "br_gpu_rival",
    "br_gpu_temperature_celsius",
    "br_gpu_throttled",
    "br_gpu_utilization_ratio",
}
"""What the daemon exports, as Prometheus names the series."""


def rules() -> list[Object]:
    """The alert rules."""
    [document] = read_objects(ALERTS.read_text())
    found: list[Object] = document["groups"][0]["rules"]
    return found


def names_in(expression: str) -> set[str]:
    """The plugin's metrics in an expression."""
    return set(re.findall(r"\bbr_gpu_\w+", expression))


def test_rules_are_right_for_promtool() -> None:
    assert f"SUCCESS: {len(rules())} rules" in run_tool("promtool", "check", "rules", str(ALERTS))


def test_the_documented_scrape_is_right_for_prometheus_and_has_what_the_alerts_need(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    text = page.partition("```yaml\nrule_files:")[2].partition("```")[0]
    # Debian's promtool is built without the discovery of pods.
    [known] = read_objects(f"rule_files:{text}")
    assert known["scrape_configs"][0].pop("kubernetes_sd_configs")
    (tmp_path / "prometheus.yaml").write_text(json.dumps(known))
    (tmp_path / "alerts.yaml").write_text(ALERTS.read_text())
    run_tool("promtool", "check", "config", str(tmp_path / "prometheus.yaml"))
    [job] = known["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in ALERTS.read_text()
    daemonset = (MANIFESTS / "base/daemonset.yaml").read_text()
    for each in job["relabel_configs"][:2]:
        assert f"name: {each['regex']}\n" in daemonset


def test_each_alert_links_to_its_section_of_the_runbook_and_each_section_is_of_an_alert() -> None:
    runbook = ROOT / "docs/runbook.md"
    linked = {each["alert"]: each["annotations"]["runbook"] for each in rules()}
    assert linked == {name: f"docs/runbook.md#{name.lower()}" for name in linked}
    sections = re.findall(r"^## (Biren\w+)$", runbook.read_text(), re.M)
    assert sorted(sections) == sorted(linked)


def test_rules_fire_for_their_cause_and_for_nothing_else() -> None:
    run_tool("promtool", "test", "rules", str(ALERTS_TEST))


def test_every_rule_is_seen_to_fire_and_to_keep_quiet() -> None:
    [document] = read_objects(ALERTS_TEST.read_text())
    tried = [each for test in document["tests"] for each in test.get("alert_rule_test", [])]
    every = {rule["alert"] for rule in rules()}
    assert {each["alertname"] for each in tried if each["exp_alerts"]} == every
    assert {each["alertname"] for each in tried if not each["exp_alerts"]} == every


def test_a_rule_that_never_fires_is_noticed(tmp_path: Path) -> None:
    broken = ALERTS.read_text().replace("br_gpu_registered == 0", "br_gpu_registered == 2")
    (tmp_path / "alerts.yaml").write_text(broken)
    (tmp_path / "alerts_test.yaml").write_text(ALERTS_TEST.read_text())
    done = try_tool("promtool", "test", "rules", str(tmp_path / "alerts_test.yaml"))
    assert done.returncode != 0
    assert "BirenRegistrationLost" in done.stdout + done.stderr


def test_rules_and_panels_use_metrics_that_are_exported() -> None:
    used = names_in(" ".join([*EXPRESSIONS, *(rule["expr"] for rule in rules())]))
    assert used <= METRICS
    assert used >= METRICS, "a metric that is on no panel is one that nobody sees"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_of_the_dashboard_is_promql(expression: str, tmp_path: Path) -> None:
    """Grafana puts values in the place of its variables; `.*` is what it takes for All."""
    filled = expression.replace("$__rate_interval", "5m")
    filled = re.sub(r"\$(instance|resource)\b", ".*", filled)
    assert "$" not in filled
    rule = {"record": "panel:value", "expr": filled}
    file = tmp_path / "panel.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panel", "rules": [rule]}]}))
    assert "SUCCESS" in run_tool("promtool", "check", "rules", str(file))


def test_panels_have_titles_numbers_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["title"] for panel in PANELS)
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_panels_ask_the_data_source_that_the_reader_chose() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "instance", "resource"}
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"] == chosen
            assert all(target["datasource"] == chosen for target in panel["targets"])
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
