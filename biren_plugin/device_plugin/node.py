"""What the resources of a node share, and what each of them remembers from life to life."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import VisibleDevices
from biren_plugin.core.model import DeviceList
from biren_plugin.core.placement.choose import Placement
from biren_plugin.core.rivals import RivalMemory
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.folder import KUBELET_SOCKET, KubeletFolder
from biren_plugin.files.cdi_owner import CdiOwner
from biren_plugin.notice import Notice
from biren_plugin.unix_sockets import FileIdentity


class CardScheduler(Protocol):
    """Chooses cards for pods before the kubelet does, for one resource, as HAMi's scheduler does."""

    @property
    def resource(self) -> str:
        """The resource whose cards it chooses."""

    @property
    def offered(self) -> Board[DeviceList]:
        """Where the resource's list is posted, for it as for the kubelet."""

    async def prefer(self, request: PreferenceRequest) -> list[str] | None:
        """Return the ids that it chose for the container that asks; None for no opinion."""

    async def admit(self, ids: Sequence[str]) -> None:
        """Note that a container gets these cards. Raises `RequestRefused` if another is to have them."""

    async def refuse(self, ids: Sequence[str]) -> None:
        """Note that a container does not get these cards."""


@attrs.frozen
class Node:
    """What every resource of the node is served from."""

    path: Path
    """The kubelet's device-plugins directory."""
    folder: Board[KubeletFolder]
    """What is in it."""
    state: DaemonState
    placement: Placement = "packed"
    visible_devices: VisibleDevices = "none"
    cdi: CdiOwner | None = None
    """The owner of the node's CDI file; None: containers get nodes and mounts instead of CDI names."""
    scheduler: CardScheduler | None = None
    """Who chooses cards besides the kubelet; None: nobody."""
    kubelet_notice: Notice = attrs.Factory(Notice)
    """Whether the kubelet serves is logged for the node, not for each resource."""

    def scheduler_of(self, resource: str) -> CardScheduler | None:
        """Who chooses the cards of that resource besides the kubelet."""
        is_its = self.scheduler is not None and self.scheduler.resource == resource
        return self.scheduler if is_its else None

    def memory_of(self, resource: str) -> "ResourceMemory":
        """A new memory for that resource."""
        scheduler = self.scheduler_of(resource)
        return ResourceMemory() if scheduler is None else ResourceMemory(scheduler.offered)

    @property
    def kubelet_socket(self) -> Path:
        """Where the kubelet takes registrations."""
        return self.path / KUBELET_SOCKET

    @property
    def foreign_sockets(self) -> Mapping[str, FileIdentity]:
        """The sockets of other plugins in the directory."""
        return self.folder.latest.foreign if self.folder.latest is not None else {}


@attrs.frozen
class ResourceMemory:
    """What outlives each life of a resource's subtree."""

    offered: Board[DeviceList] = attrs.Factory(Board)
    """What the kubelet was sent last."""
    judged: Board[DeviceList] = attrs.Factory(Board)
    """The last list before CDI withheld devices, where CDI is on."""
    registered: Board[bool] = attrs.Factory(Board)
    """Whether the kubelet took the registration and watches."""
    rivals: RivalMemory = attrs.Factory(RivalMemory)


@attrs.frozen
class OwnSocket:
    """The socket that one life of a resource serves on."""

    path: Path
    identity: FileIdentity
    """Another file in its place is not ours."""


@attrs.frozen
class Streams:
    """The streams of one life of a resource; each is a token that equals itself only."""

    open: frozenset[object] = frozenset()
    opened: int = 0
    """All that were opened so far: one that ended before anybody looked was there all the same."""

    def with_new(self, stream: object) -> "Streams":
        """One more is open."""
        return Streams(self.open | {stream}, self.opened + 1)

    def without(self, stream: object) -> "Streams":
        """One has ended."""
        return Streams(self.open - {stream}, self.opened)

    def since(self, before: "Streams") -> "Streams":
        """Those that are not of `before`."""
        return Streams(self.open - before.open, self.opened - before.opened)

    @property
    def one_ended(self) -> bool:
        """Whether one of them has ended."""
        return len(self.open) < self.opened
