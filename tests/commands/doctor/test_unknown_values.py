"""Whatever values of a node are unknown, no text for a person contains `None`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.commands.doctor import card_checks, passthrough_checks
from biren_plugin.core.health.verdicts import HealthKeeper
from biren_plugin.core.inventory.keeper import InventoryKeeper
from biren_plugin.core.inventory_log import remark_driver, remark_inventory, remark_lists
from biren_plugin.core.model import HostFacts, Inventory, Snapshot
from biren_plugin.core.observed import Holder, LibraryRound, Observed
from biren_plugin.core.parse.brml import CardReading, KnownCard, LibraryFacts, LibraryStatus
from biren_plugin.core.parse.card import Card, FunctionState, Link, NodeState
from biren_plugin.core.settings import ContainerRuntime, Settings
from tests.support.cards import GPU, HALF

small = st.none() | st.integers(0, 5)


def card(name: str, number: int) -> st.SearchStrategy[Card]:
    return st.builds(
        Card,
        name=st.just(name),
        number=st.just(number),
        physical_id=small,
        memory=st.none() | st.sampled_from([1 << 34, 1 << 35, 1 << 36]),
        pci_path=st.sampled_from([(), ("pci0000:3a", f"0000:3b:0{number}.0")]),
        numa_node=small,
        product=st.none(),
        split=st.none() | st.sampled_from([1, 2, 3, 4]),
        link=st.builds(Link, width=small),
        node=st.sampled_from(NodeState),
        function=st.sampled_from(FunctionState),
        aer_fatal=small,
        aer_nonfatal=small,
        unbound=st.sampled_from([(), ("0000:3b:00.1 (biren)",)]),
        misread=st.sampled_from([(), ("physical_id reads 'N/A'",)]),
        hung=st.booleans(),
        present=st.booleans(),
    )


@st.composite
def snapshots(draw: st.DrawFn, *, groups: bool) -> Snapshot:
    numbers = draw(st.lists(st.integers(0, 5), unique=True, max_size=4))
    name = "/dev/vfio/{}" if groups else "card_{}"
    return Snapshot(
        tuple(draw(card(name.format(number), number)) for number in sorted(numbers)),
        host=HostFacts(control_node=draw(st.booleans()), absent=("/usr/bin/brsmi",)),
        driver_loaded=draw(st.booleans()),
        module_loaded=draw(st.none() | st.booleans()),
        driver_version=draw(st.sampled_from([None, "", "1.0.0", "x"])),
        shows_groups=groups,
    )


readings = st.builds(
    CardReading,
    number=st.just(0),
    svi_current=st.sampled_from([None, 1, 2, 4]),
    status=st.none() | st.sampled_from(LibraryStatus),
    temperature=st.sampled_from([None, 99]),
    shutdown_temperature=st.sampled_from([None, 90]),
    slowdown_temperature=st.sampled_from([None, 80]),
    ecc_uncorrected=small,
    timed_out=st.booleans(),
)
libraries = st.none() | st.builds(
    LibraryRound,
    at=st.just(0.0),
    facts=st.just(LibraryFacts("libbiren-ml.so.1")),
    known=st.dictionaries(
        st.integers(0, 9), st.builds(KnownCard, index=st.just(0), split=st.sampled_from([None, 2]))
    ),
    readings=st.dictionaries(st.integers(0, 5), readings),
    hung=st.frozensets(st.integers(0, 5)),
)
holders = st.none() | st.dictionaries(
    st.tuples(st.sampled_from([GPU, HALF]), st.sampled_from(["card_0", "card_7", "/dev/vfio/3"])),
    st.just(Holder("default", "train")),
)


def texts_of(inventory: Inventory, before: Inventory | None) -> Iterator[str]:
    yield from inventory.unsettled
    yield from inventory.suspects
    for remark in remark_inventory(before, inventory):
        yield remark.text
    for remark in remark_lists(before.lists if before else (), inventory.lists):
        yield remark.text
    for each in inventory.lists:
        for device in each.devices:
            yield from (*device.reasons, *device.warnings)


@given(st.data(), st.booleans())
def test_no_verdict_or_log_line_names_none(data: st.DataObject, groups: bool) -> None:
    keeper, health = InventoryKeeper(), HealthKeeper()
    before = None
    for now in (0.0, 4.0, 8.0):
        snapshot = data.draw(snapshots(groups=groups))
        seen = Observed(snapshot, data.draw(libraries), data.draw(holders))
        inventory = health.judge(keeper.update(seen, now), seen, now)
        texts = [*texts_of(inventory, before)]
        texts += [remark.text for remark in remark_driver(None, seen.driver_version)]
        assert not [text for text in texts if "None" in text]
        before = inventory


@pytest.mark.parametrize("runtime", ["runc", "kata"])
def test_no_row_of_doctor_names_none(runtime: ContainerRuntime, tmp_path: Path) -> None:
    settings = Settings(
        host_root=tmp_path,
        container_runtime=runtime,
        mount_host_path=runtime == "runc",
        mount_dri_device=runtime == "runc",
    )

    @given(snapshots(groups=runtime == "kata"))
    def check(snapshot: Snapshot) -> None:
        with pytest.MonkeyPatch.context() as patched:
            for module in (card_checks, passthrough_checks):
                patched.setattr(module, "read_host", lambda _settings: snapshot)
            patched.setattr(passthrough_checks, "biren_functions", lambda _root: ["0000:3b:00.0"])
            rows = [
                *card_checks.check_cards(settings),
                *passthrough_checks.check_passthrough(settings),
            ]
        assert len(rows) > 1
        assert not [row for row in rows if "None" in f"{row.seen} {row.advice}"]

    check()
