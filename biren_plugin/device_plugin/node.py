"""The parts that the resources of a node share, and the memory of each resource across restarts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from biren_plugin.board import Board
from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import VisibleDevices
from biren_plugin.core.model import DeviceList
from biren_plugin.core.placement.choose import Placement
from biren_plugin.core.rivals import RivalMemory
from biren_plugin.daemon_state import DaemonState
from biren_plugin.device_plugin.kubelet_folder import KUBELET_SOCKET, KubeletFolder
from biren_plugin.notice import Notice
from biren_plugin.records import frozen
from biren_plugin.unix_sockets import FileIdentity
from biren_plugin.worker_thread import WorkerThread

if TYPE_CHECKING:
    from biren_plugin.files.cdi_owner import CdiOwner


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

    async def admit(self, ids: Sequence[str]) -> bool:
        """Return whether it chose these cards for the container. Raises `RequestRefused` if another is to have them."""

    async def refuse(self, ids: Sequence[str]) -> None:
        """Note that a container does not get these cards."""


@frozen
class Node:
    """The parts that serve every resource of the node."""

    path: Path
    """The kubelet's device-plugins directory."""
    folder: Board[KubeletFolder]
    """The content of that directory."""
    state: DaemonState
    placement: Placement = "packed"
    visible_devices: VisibleDevices = "none"
    monitoring: bool = False
    """Whether the resource for monitoring is offered too."""
    cdi: "CdiOwner | None" = None
    """The owner of the node's CDI file; None: containers get nodes and mounts instead of CDI names."""
    scheduler: CardScheduler | None = None
    """The chooser of cards besides the kubelet; None: there is none."""
    thread: WorkerThread = attrs.Factory(WorkerThread)
    """Makes the blocking calls in `path`, in turn, so that no late one undoes a newer one."""
    kubelet_notice: Notice = attrs.Factory(Notice)
    """The wait for the kubelet is logged once for the node, not for each resource."""

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
        """Return the socket on which the kubelet accepts registrations."""
        return self.path / KUBELET_SOCKET

    @property
    def foreign_sockets(self) -> Mapping[str, FileIdentity]:
        """Return the sockets of other plugins in the directory."""
        return self.folder.latest.foreign if self.folder.latest is not None else {}


@frozen
class ResourceMemory:
    """The state of a resource that outlives restarts of its subtree."""

    offered: Board[DeviceList] = attrs.Factory(Board)
    """The last list sent to the kubelet."""
    judged: Board[DeviceList] = attrs.Factory(Board)
    """The last list before CDI withheld devices, with CDI."""
    registered: Board[bool] = attrs.Factory(Board)
    """Whether the kubelet accepted the registration and watches."""
    rivals: RivalMemory = attrs.Factory(RivalMemory)


class OwnSocket(NamedTuple):
    """The socket on which one life of a resource serves."""

    path: Path
    identity: FileIdentity
    """A file with another identity belongs to another process."""


@frozen
class Streams:
    """The streams of one life of a resource; each is a token that only equals itself."""

    open: frozenset[object] = frozenset()
    opened: int = 0
    """The number opened so far, including streams that ended before any task noticed them."""

    def with_new(self, stream: object) -> "Streams":
        """Return the streams with one more open."""
        return Streams(self.open | {stream}, self.opened + 1)

    def without(self, stream: object) -> "Streams":
        """Return the streams after one has ended."""
        return Streams(self.open - {stream}, self.opened)

    def since(self, before: "Streams") -> "Streams":
        """Return the streams opened since `before`."""
        return Streams(self.open - before.open, self.opened - before.opened)

    @property
    def one_ended(self) -> bool:
        """Return whether one of the streams has ended."""
        return len(self.open) < self.opened
