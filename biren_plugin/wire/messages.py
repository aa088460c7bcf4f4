"""Translates between the core's types and protobuf messages, both ways. Decides nothing."""

from collections.abc import Sequence
from typing import Final

from biren_plugin.core.container_edits import ContainerEdits
from biren_plugin.core.model import DeviceList, Mount
from biren_plugin.records import frozen
from biren_plugin.wire._proto import deviceplugin_pb2 as pb

HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"
"""The kubelet knows these two only."""


@frozen
class ListedDevice:
    """A device of a list, as the kubelet received it."""

    id: str
    healthy: bool
    numa_nodes: tuple[int, ...] = ()


@frozen
class PluginOptions:
    """The optional calls that a plugin wants."""

    pre_start_required: bool = False
    get_preferred_allocation_available: bool = True


@frozen
class Registration:
    """What a plugin sends to the kubelet about itself."""

    endpoint: str
    """File name of the plugin's socket."""
    resource: str
    version: str = "v1beta1"
    options: PluginOptions = PluginOptions()


def write_list(devices: DeviceList) -> pb.ListAndWatchResponse:
    """Return a whole list as a message."""
    message = pb.ListAndWatchResponse()
    for device in devices.devices:
        written = message.devices.add(ID=device.id, health=HEALTHY if device.healthy else UNHEALTHY)
        if device.card.numa_node is not None:
            written.topology.nodes.add(ID=device.card.numa_node)
    return message


def read_list(message: pb.ListAndWatchResponse) -> list[ListedDevice]:
    """Return a list as the kubelet reads it."""
    return [
        ListedDevice(
            each.ID, each.health == HEALTHY, tuple(node.ID for node in each.topology.nodes)
        )
        for each in message.devices
    ]


def write_allocation(containers: Sequence[ContainerEdits]) -> pb.AllocateResponse:
    """Return the answer to `Allocate`, with a response for each container."""
    message = pb.AllocateResponse()
    for edits in containers:
        response = message.container_responses.add(envs=dict(edits.env))
        real = dict(edits.links)
        for path in edits.device_nodes:
            response.devices.add(
                container_path=path, host_path=real.get(path, path), permissions="rw"
            )
        for mount in edits.mounts:
            response.mounts.add(
                container_path=mount.container_path, host_path=mount.host_path, read_only=True
            )
        for name in edits.cdi_devices:
            response.cdi_devices.add(name=name)
    return message


def read_allocation(message: pb.AllocateResponse) -> list[ContainerEdits]:
    """Return what a container runtime would be given, for each container."""
    return [
        ContainerEdits(
            env=tuple(sorted(response.envs.items())),
            device_nodes=tuple(device.container_path for device in response.devices),
            links=tuple(
                (device.container_path, device.host_path)
                for device in response.devices
                if device.host_path != device.container_path
            ),
            mounts=tuple(Mount(each.host_path, each.container_path) for each in response.mounts),
            cdi_devices=tuple(device.name for device in response.cdi_devices),
        )
        for response in message.container_responses
    ]


def write_options(options: PluginOptions) -> pb.DevicePluginOptions:
    """A plugin's options."""
    return pb.DevicePluginOptions(
        pre_start_required=options.pre_start_required,
        get_preferred_allocation_available=options.get_preferred_allocation_available,
    )


def read_options(message: pb.DevicePluginOptions) -> PluginOptions:
    """A plugin's options."""
    return PluginOptions(message.pre_start_required, message.get_preferred_allocation_available)


def write_registration(registration: Registration) -> pb.RegisterRequest:
    """Return the request for `Register`; older kubelets read the options in it."""
    return pb.RegisterRequest(
        version=registration.version,
        endpoint=registration.endpoint,
        resource_name=registration.resource,
        options=write_options(registration.options),
    )


def read_registration(message: pb.RegisterRequest) -> Registration:
    """Return the registration as a kubelet reads it."""
    return Registration(
        message.endpoint, message.resource_name, message.version, read_options(message.options)
    )
