"""The services of a DRA driver in the core's types, in every version that kubelets know, and its registration."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final, Protocol

from purerpc import Servicer

from biren_plugin.core.dra.claims import ClaimId, DeviceHealth, PreparedDevice
from biren_plugin.records import frozen
from biren_plugin.wire._proto import (
    dra_health_v1_pb2,
    dra_health_v1alpha1_pb2,
    dra_v1_pb2,
    dra_v1beta1_pb2,
)
from biren_plugin.wire._proto import pluginregistration_pb2 as pb
from biren_plugin.wire._proto.dra_health_v1_grpc import DRAResourceHealthServicer as HealthV1
from biren_plugin.wire._proto.dra_health_v1alpha1_grpc import (
    DRAResourceHealthServicer as HealthV1Alpha1,
)
from biren_plugin.wire._proto.dra_v1_grpc import DRAPluginServicer as PluginV1
from biren_plugin.wire._proto.dra_v1beta1_grpc import DRAPluginServicer as PluginV1Beta1
from biren_plugin.wire._proto.pluginregistration_grpc import RegistrationServicer
from biren_plugin.wire.unix_grpc import Limits, Server

VERSIONS: Final = (
    "v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth",
)  # fmt: skip
"""The announced services; the kubelet uses the first plugin service that it knows."""
CALL_DEADLINE: Final = 44.0
"""Seconds; the kubelet gives up after 45."""


class Driver(Protocol):
    """Answers the calls. Each claim gets its own answer."""

    async def prepare(self, claims: Sequence[ClaimId]) -> Mapping[str, list[PreparedDevice] | str]:
        """Return by uid the claim's devices, or why it was not prepared."""

    async def unprepare(self, claims: Sequence[ClaimId]) -> Mapping[str, str]:
        """Return by uid why the claim was not unprepared; empty if it was."""

    def health(self) -> AsyncGenerator[Sequence[DeviceHealth], None]:
        """Yield whole lists, at each change and regularly."""


def new_driver_server(
    driver: Driver, on_bug: Callable[[Exception], None], on_used: Callable[[str], None]
) -> Server:
    """Return a gRPC server of both versions of the plugin service and of the health service.

    `on_used` gets the name of each called service, as in `VERSIONS`.
    """
    servicers: list[Servicer] = [
        _plugin(PluginV1, dra_v1_pb2, driver, partial(on_used, "v1.DRAPlugin")),
        _plugin(PluginV1Beta1, dra_v1beta1_pb2, driver, partial(on_used, "v1beta1.DRAPlugin")),
        _health(HealthV1, dra_health_v1_pb2, driver, partial(on_used, "v1.DRAResourceHealth")),
        _health(
            HealthV1Alpha1,
            dra_health_v1alpha1_pb2,
            driver,
            partial(on_used, "v1alpha1.DRAResourceHealth"),
        ),
    ]
    return Server(servicers, Limits(answer=CALL_DEADLINE), on_bug)


def _plugin(
    base: type[Servicer], pb: ModuleType, driver: Driver, on_used: Callable[[], None]
) -> Servicer:
    """Return the servicer of one version; the versions' messages have the same fields."""

    class Plugin(base):  # type: ignore[misc]  # purerpc's classes have no types
        async def NodePrepareResources(self, request: Any) -> Any:
            on_used()
            answers = await driver.prepare([_claim(each) for each in request.claims])
            response = pb.NodePrepareResourcesResponse()
            for uid, answer in answers.items():
                entry = response.claims[uid]  # creates the entry, even for a claim without a device
                if isinstance(answer, str):
                    entry.error = answer
                    continue
                for device in answer:
                    entry.devices.add(
                        request_names=[device.request],
                        pool_name=device.pool,
                        device_name=device.device,
                        cdi_device_ids=[device.cdi_id],
                    )
            return response

        async def NodeUnprepareResources(self, request: Any) -> Any:
            answers = await driver.unprepare([_claim(each) for each in request.claims])
            response = pb.NodeUnprepareResourcesResponse()
            for uid, error in answers.items():
                response.claims[uid].error = error
            return response

    return Plugin()


def _health(
    base: type[Servicer], pb: ModuleType, driver: Driver, on_used: Callable[[], None]
) -> Servicer:
    class Health(base):  # type: ignore[misc]
        async def NodeWatchResources(self, _request: Any) -> AsyncIterator[Any]:
            on_used()
            async with contextlib.aclosing(driver.health()) as lists:
                async for devices in lists:
                    now = int(time.time())
                    response = pb.NodeWatchResourcesResponse()
                    for each in devices:
                        identifier = pb.DeviceIdentifier(
                            pool_name=each.pool, device_name=each.device
                        )
                        response.devices.add(
                            device=identifier,
                            health=pb.UNHEALTHY if each.message else pb.HEALTHY,
                            last_updated_time=now,
                            message=each.message,
                        )
                    yield response

    return Health()


def _claim(message: Any) -> ClaimId:
    return ClaimId(message.namespace, message.name, message.uid)


@frozen
class PluginInfo:
    """The driver's information for the kubelet."""

    name: str
    endpoint: str
    """The path of its socket, the same in the container and on the host."""
    versions: tuple[str, ...]


def new_info_server(
    info: PluginInfo, on_status: Callable[[str], None], on_bug: Callable[[Exception], None]
) -> Server:
    """Return a server of `GetInfo`; `on_status` gets the kubelet's refusal, or an empty text for registered."""
    return Server([_InfoServicer(info, on_status)], Limits(), on_bug)


class _InfoServicer(RegistrationServicer):
    def __init__(self, info: PluginInfo, on_status: Callable[[str], None]) -> None:
        self._info = info
        self._on_status = on_status

    async def GetInfo(self, _request: pb.InfoRequest) -> pb.PluginInfo:
        return pb.PluginInfo(
            type="DRAPlugin",
            name=self._info.name,
            endpoint=self._info.endpoint,
            supported_versions=self._info.versions,
        )

    async def NotifyRegistrationStatus(
        self, request: pb.RegistrationStatus
    ) -> pb.RegistrationStatusResponse:
        registered = request.plugin_registered
        self._on_status("" if registered else request.error or "refused without a reason")
        return pb.RegistrationStatusResponse()
