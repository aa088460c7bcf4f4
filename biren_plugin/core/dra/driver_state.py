"""The state of the node's DRA driver, as `status`, the metrics and `/readyz` show it."""

from biren_plugin.records import frozen


@frozen
class DriverState:
    """The state of the node's DRA driver."""

    registered: bool = False
    """Whether the kubelet accepted it."""
    refusal: str = ""
    """Why the kubelet refused it; empty if it did not."""
    used: tuple[str, ...] = ()
    """The services that the kubelet has called: `v1.DRAPlugin`."""
    wanted: int = 0
    """Devices that should be in the API server."""
    stored: int = 0
    """Devices that are in the API server, after the last round."""
    trouble: str = ""
    """Why the slices are not as wanted, or what keeps the driver from starting; empty if nothing does."""
    forbidden: tuple[str, ...] = ()
    """Rights that the API server refuses: `create resourceslices`."""
    dropped: tuple[str, ...] = ()
    """Fields of devices that the API server drops, since a feature of the cluster is off."""
