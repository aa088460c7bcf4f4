"""What the model says is what the kubelet reads, field by field and in order."""

from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.container_edits import ContainerEdits
from biren_plugin.core.model import Device, DeviceList, Mount
from biren_plugin.core.parse.card import Card
from biren_plugin.wire import messages
from biren_plugin.wire._proto import deviceplugin_pb2 as pb
from biren_plugin.wire.messages import ListedDevice, PluginOptions, Registration
from tests.kubelet.protos import load

RESOURCE = "birentech.com/gpu"
text = st.text(max_size=20)
paths = text.map(lambda name: f"/dev/{name}")
devices = st.builds(
    Device,
    card=st.builds(
        Card,
        name=st.integers(0, 999).map("card_{}".format),
        number=st.integers(0, 999),
        numa_node=st.one_of(st.none(), st.integers(0, 7)),
    ),
    resource=st.just(RESOURCE),
    reasons=st.lists(text, max_size=2).map(tuple),
)
edits = st.builds(
    ContainerEdits,
    env=st.dictionaries(text, text, max_size=3).map(lambda env: tuple(sorted(env.items()))),
    device_nodes=st.lists(paths, max_size=3).map(tuple),
    mounts=st.lists(st.builds(Mount, host_path=paths, container_path=paths), max_size=3).map(tuple),
    cdi_devices=st.lists(text, max_size=3).map(tuple),
)
options = st.builds(PluginOptions, st.booleans(), st.booleans())


@given(st.lists(devices).map(tuple))
def test_a_list_arrives_whole_and_in_order(listed: tuple[Device, ...]) -> None:
    written = messages.write_list(DeviceList(RESOURCE, listed)).SerializeToString()
    assert messages.read_list(pb.ListAndWatchResponse.FromString(written)) == [
        ListedDevice(
            each.id,
            each.healthy,
            () if each.card.numa_node is None else (each.card.numa_node,),
        )
        for each in listed
    ]


def test_a_device_without_a_numa_node_has_no_topology() -> None:
    one = messages.write_list(DeviceList(RESOURCE, (Device(Card("card_0", 0), RESOURCE),)))
    assert not one.devices[0].HasField("topology")
    zero = Device(Card("card_0", 0, numa_node=0), RESOURCE)
    listed = messages.write_list(DeviceList(RESOURCE, (zero,)))
    assert [node.ID for node in listed.devices[0].topology.nodes] == [0], "0 is a node"


def test_health_is_one_of_the_two_words_that_the_kubelet_knows() -> None:
    card = Card("card_0", 0)
    pair = (Device(card, RESOURCE), Device(card, RESOURCE, ("its node is missing",)))
    written = messages.write_list(DeviceList(RESOURCE, pair)).SerializeToString()
    read = load().ListAndWatchResponse.FromString(written)
    assert [each.health for each in read.devices] == ["Healthy", "Unhealthy"]


@given(st.lists(edits))
def test_an_allocation_arrives_whole_and_in_order(containers: list[ContainerEdits]) -> None:
    written = messages.write_allocation(containers).SerializeToString()
    assert messages.read_allocation(pb.AllocateResponse.FromString(written)) == containers


def test_a_container_gets_its_nodes_read_write_and_its_mounts_read_only() -> None:
    given = ContainerEdits(
        env=(("BR_PHY_CARDS", "card_0"),),
        device_nodes=("/dev/biren/card_0",),
        mounts=(Mount("/usr/bin/brsmi-1.2", "/opt/birentech/bin/brsmi"),),
    )
    (written,) = messages.write_allocation([given]).container_responses
    read = load().ContainerAllocateResponse.FromString(written.SerializeToString())
    (node,), (mount,) = read.devices, read.mounts
    assert dict(read.envs) == {"BR_PHY_CARDS": "card_0"}
    assert (node.host_path, node.container_path, node.permissions) == (
        "/dev/biren/card_0",
        "/dev/biren/card_0",
        "rw",
    )
    assert (mount.host_path, mount.container_path, mount.read_only) == (
        "/usr/bin/brsmi-1.2",
        "/opt/birentech/bin/brsmi",
        True,
    )


@given(st.builds(Registration, text, text, text, options))
def test_a_registration_arrives_whole(registration: Registration) -> None:
    written = messages.write_registration(registration).SerializeToString()
    assert messages.read_registration(pb.RegisterRequest.FromString(written)) == registration


def test_a_registration_reads_as_another_kubelet_reads_it() -> None:
    written = messages.write_registration(Registration("biren.sock", RESOURCE))
    read = load().RegisterRequest.FromString(written.SerializeToString())
    assert (read.version, read.endpoint, read.resource_name) == ("v1beta1", "biren.sock", RESOURCE)
    assert read.options.get_preferred_allocation_available
    assert not read.options.pre_start_required


@given(options)
def test_options_arrive_unchanged(given_options: PluginOptions) -> None:
    written = messages.write_options(given_options).SerializeToString()
    assert messages.read_options(pb.DevicePluginOptions.FromString(written)) == given_options
