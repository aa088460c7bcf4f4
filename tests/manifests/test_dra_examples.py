"""Each example for DRA is valid, documented, and selects what its comment says of what is published."""

from pathlib import Path
from typing import Final

import pytest

from biren_plugin.commands.show_devices import judge_once
from biren_plugin.core.dra.pool import Pool, known_uuids, pool_of
from biren_plugin.core.parse.brml import CardReading
from biren_plugin.core.settings import Settings
from biren_plugin.host.readers import read_host
from biren_plugin.simulate.host import SimulatedHost
from tests.manifests.examples import (
    EXAMPLES,
    attribute_of,
    evaluate,
    objects_of,
    selected,
    specs_of,
    subrequests,
)
from tests.manifests.schemas import complaints
from tests.manifests.tools import ROOT

CHOSEN: Final = {
    "product-and-memory": ["card_0", "card_1", "card_8"],
    "numa-node": ["card_0", "card_1"],
    "driver-version": ["card_0", "card_1", "card_8"],
    "card-by-name": ["card_1"],
    "card-by-address": ["card_1"],
    "card-by-uuid": ["card_1"],
    "same-pcie-root": ["card_0", "card_1", "card_8"],
    "same-link-group": ["card_0", "card_1", "card_8"],
    "half-else-quarter": ["card_2", "card_3", "card_4", "card_5", "card_6", "card_7"],
    "shared-card": ["card_0", "card_1", "card_8"],
    "every-card": ["card_0", "card_1", "card_8"],
    "tolerant": ["card_0", "card_1", "card_8"],
}
"""Cards of `pool` that each claim may get."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Two whole GPUs, one in halves, one in quarters, and one whole GPU on another NUMA node."""
    root = tmp_path_factory.mktemp("host") / "root"
    SimulatedHost(root).add_gpus({0: 1, 1: 1, 2: 2, 3: 4, 4: 1})
    snapshot = read_host(Settings(host_root=root))
    inventory = judge_once(snapshot)
    readings = {number: CardReading(number=number, uuid=f"GPU-{number:04}") for number in range(9)}
    uuids = known_uuids(inventory, readings, {})
    return pool_of(inventory, snapshot.driver_version, uuids=uuids)


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_each_example_is_valid_wherever_the_api_is(path: Path) -> None:
    for version in ("1.34", "1.35", "1.36", "1.37"):
        assert complaints(objects_of(path), version) == []


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_each_example_is_documented(path: Path) -> None:
    assert f"(../manifests/examples/dra/{path.name})" in (ROOT / "docs/dra.md").read_text()


def test_each_claim_can_have_the_cards_that_its_comment_says(pool: Pool) -> None:
    claims = {
        name: devices
        for path in EXAMPLES.values()
        for name, devices in specs_of(objects_of(path)).items()
    }
    found = {
        name: sorted(
            pool.devices[device].id
            for request in subrequests(devices)
            for device in selected(request, pool)
        )
        for name, devices in claims.items()
    }
    assert found == CHOSEN


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_a_constraint_compares_an_attribute_that_every_device_has(path: Path, pool: Pool) -> None:
    for devices in specs_of(objects_of(path)).values():
        for constraint in devices.get("constraints", ()):
            name = constraint["matchAttribute"]
            values = [attribute_of(each, name) for part in pool.slices for each in part]
            assert all(isinstance(each, str) and each for each in values)
            assert len(set(values)) > 1, f"{name} is the same everywhere: it joins nothing"


def test_an_attribute_that_is_not_published_is_an_error_as_in_the_api_server(pool: Pool) -> None:
    with pytest.raises(KeyError):
        evaluate('device.attributes["gpu.birentech.com"].model == "x"', pool.slices[0][0])


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES)
def test_each_pod_names_a_claim_of_its_example(path: Path) -> None:
    objects = objects_of(path)
    for pod in (each["spec"] for each in objects if each["kind"] == "Pod"):
        claims = {each["name"]: each for each in pod.get("resourceClaims", ())}
        for each in claims.values():
            named = each.get("resourceClaimTemplateName") or each["resourceClaimName"]
            assert named in specs_of(objects)
        [container] = pod["containers"]
        used = {each["name"] for each in container["resources"].get("claims", ())}
        assert used == claims.keys()
