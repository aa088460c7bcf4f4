"""`devices`."""

from pathlib import Path

from biren_plugin.commands.flags import HostRoot, Runtime, Switch


def devices(
    *,
    json: Switch = False,
    topology: Switch = False,
    container_runtime: Runtime = "runc",
    host_root: HostRoot = Path("/"),
) -> int:
    """Show the Biren cards of this host, or its VFIO groups.

    Parameters
    ----------
    json
        Print one JSON document (its schema: schema/devices.schema.json, schema/groups.schema.json
        or schema/topology.schema.json).
    topology
        Show how close they are to each other instead: links, as the management library tells them,
        and places in the PCI tree.
    container_runtime
        runc: the driver's cards. kata: the IOMMU groups of Biren functions that are bound to vfio-pci.
    host_root
        Where the host's /sys and /dev are found.
    """
    if topology:
        from biren_plugin.commands.show_topology import show_topology

        show_topology(host_root, groups=container_runtime == "kata", as_json=json)
    elif container_runtime == "kata":
        from biren_plugin.commands.show_groups import show_groups

        show_groups(host_root, as_json=json)
    else:
        from biren_plugin.commands.show_devices import show_devices

        show_devices(host_root, as_json=json)
    return 0
