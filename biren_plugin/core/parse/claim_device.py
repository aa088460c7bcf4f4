"""The CDI name of a device of a prepared claim: `<uid>:<request>:<device>`."""

from typing import Final

from biren_plugin.core.parse.vendor import CLAIM_KIND
from biren_plugin.records import frozen

_ADMIN: Final = "admin"
_SEPARATOR: Final = ":"
"""In no uid, request or device name, which are DNS labels; allowed inside a CDI name."""


@frozen
class ClaimDevice:
    """One device of one request of a prepared claim.

    Its name is all that is remembered of the claim: the claim's file has it, and the kubelet keeps it in
    its checkpoint and reports it on its pod-resources socket.
    """

    uid: str
    """The claim's."""
    request: str
    device: str
    """Its name in the node's pool."""
    admin: bool = False
    """Whether it is for monitoring, whatever others hold."""

    @classmethod
    def parse(cls, name: str) -> "ClaimDevice | None":
        """From a CDI name, with or without the kind; None for a name that is not one of ours."""
        uid, *rest = name.removeprefix(f"{CLAIM_KIND}=").split(_SEPARATOR)
        match rest:
            case [request, device] if uid and request and device:
                return cls(uid, request, device)
            case [request, device, suffix] if uid and request and device and suffix == _ADMIN:
                return cls(uid, request, device, admin=True)
        return None

    @property
    def name(self) -> str:
        """The CDI device's name, without the kind."""
        parts = [self.uid, self.request, self.device, *([_ADMIN] if self.admin else [])]
        return _SEPARATOR.join(parts)

    @property
    def cdi_id(self) -> str:
        """The name with the kind, as runtimes look it up."""
        return f"{CLAIM_KIND}={self.name}"
