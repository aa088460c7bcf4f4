"""The daemon's settings, from every source, in one frozen place.

A new setting needs only a field here: its flag, its variable, its key in the settings file and the
file's schema are made from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs

from biren_plugin.core.container_edits import VisibleDevices
from biren_plugin.core.health.modes import MODES, HealthMode
from biren_plugin.core.health.probes import OPTIONAL, PROBES
from biren_plugin.core.health.recovery import STEADY
from biren_plugin.core.health.verdicts import HealthPolicy
from biren_plugin.core.inventory.excluded_cards import EXCLUDE_PATTERN
from biren_plugin.core.parse import vendor
from biren_plugin.core.parse.brml import LibraryStatus
from biren_plugin.core.placement.choose import Placement
from biren_plugin.core.setting_field import (
    DEFAULT_STATUS_DIR,
    Absolute,
    Between,
    EachMatching,
    Matching,
    Members,
    is_host,
    key_of,
    setting,
    split_address,
)
from biren_plugin.errors import BadSetting
from biren_plugin.records import frozen

ContainerRuntime = Literal["runc", "kata"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]
UnhealthyOn = Literal["warning", "critical", "error"]
OfferBy = Literal["device-plugin", "dra"]
Source = Literal["flag", "environment", "file"]
"""The sources of a value, the first one takes precedence; without one, the default applies."""

EVERY_PROBE: Final = tuple(probe.name for probe in PROBES)
MAX_PULSE: Final = 86_400
"""Seconds; a heartbeat rarer than once a day is a mistake."""
_MAX_RECOVER_AFTER: Final = 86_400

_PORT: Final = (
    "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
)
_ADDRESS: Final = rf"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):({_PORT})"
_LABEL: Final = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NODE_NAME: Final = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*"
"""A DNS subdomain, as Kubernetes requires of the names of nodes."""

DEFAULT_CDI_DIR: Final = Path("/etc/cdi")
_FOLDERS_OF_SOCKETS: Final = ("device_plugin_dir", "pod_resources_dir", "status_dir")
"""Settings whose directories hold sockets that must not meet: two sockets are called `kubelet.sock`."""


@frozen
class SettingsFile:
    """The file that settings were read from."""

    path: Path
    chosen_from: Path | None = None
    """The directory of `--config-dir` that it was chosen from; None if `--config` named it."""
    trouble: str = ""
    """For `doctor`: why nothing was read from it; empty if it was read."""


@frozen
class Settings:
    """The daemon's settings. Raises `BadSetting` for invalid values."""

    cdi_feature: bool = setting(
        False,
        "Answer the kubelet with CDI device names instead of device nodes, and keep the CDI file in "
        "step with the node's cards (kubelet 1.28 and newer).",
    )
    container_runtime: ContainerRuntime = setting(
        "runc",
        "The node's container runtime. runc: containers get the driver's cards. kata: their virtual "
        "machines get the IOMMU groups of Biren functions that are bound to vfio-pci.",
    )
    mount_host_path: bool = setting(
        False,
        f"Mount the driver's library and tool into each container, below {vendor.CONTAINER_FOLDER}, and "
        f"the driver's own tree, {vendor.DRIVER_TREE}; all read-only.",
    )
    overwrite_cdi_config: bool = setting(
        False,
        "Write the CDI file at each start and keep it up to date, even if it is foreign. Without this "
        "flag an existing file is left alone, and devices that it lacks are Unhealthy.",
    )
    pulse: int = setting(
        0,
        "Seconds between heartbeats, each a full scan of the host and a list sent again; 0: lists are "
        "sent only when they change.",
        Between(0, MAX_PULSE, f"whole seconds from 0 (no heartbeat) to {MAX_PULSE}"),
    )
    mount_dri_device: bool = setting(
        False, "Give each container the render node of vgem (on the host: modprobe vgem)."
    )
    visible_devices: VisibleDevices = setting(
        "none",
        f"index: containers also get {vendor.VISIBLE_VARIABLE}, the indexes of their cards as they count them, "
        "for images that read it. none: only "
        f"{vendor.CARDS_VARIABLE}.",
    )
    host_root: Path = setting(
        Path("/"),
        "Where the host's /sys, /dev and /usr are found; never part of a path given to a container.",
    )
    device_plugin_dir: Path = setting(
        Path("/var/lib/kubelet/device-plugins"),
        "The kubelet's directory of device plugin sockets.",
        Absolute(),
    )
    cdi_dir: Path = setting(
        DEFAULT_CDI_DIR, f"The directory of the CDI file, {vendor.CDI_FILE}.", Absolute()
    )
    log_level: LogLevel = setting("info", "Minimum severity to log.")
    health_interval: float = setting(
        1.0,
        "Seconds between scans of the cards, fractions allowed; the management library is read "
        "every fifth time, and device nodes are watched.",
        Between(0.1, 3600, "seconds from 0.1 to 3600"),
    )
    health_mode: HealthMode = setting(
        "enforce",
        "enforce: findings of the probes count. observe: they are logged and shown, and only a missing "
        "card is Unhealthy. off: only missing cards are detected.",
    )
    recover_after: float = setting(
        STEADY,
        "Seconds that a card must be healthy before it returns to service; longer if it flaps.",
        Between(0, _MAX_RECOVER_AFTER, f"seconds from 0 to {_MAX_RECOVER_AFTER}"),
    )
    unhealthy_on: UnhealthyOn = setting(
        "critical",
        "A card is Unhealthy from this health status of the management library on.",
    )
    disable_probe: tuple[str, ...] = setting(
        (),
        f"A probe to disable; may be repeated. One of: {', '.join(OPTIONAL)}.",
        Members(OPTIONAL),
    )
    probe: tuple[str, ...] = setting(
        (),
        "How one probe counts, NAME=enforce, NAME=observe or NAME=off; may be repeated. It takes precedence over "
        f"--disable-probe and --health-mode. NAME is one of: {', '.join(OPTIONAL)}.",
        EachMatching(
            f"({'|'.join(OPTIONAL)})=({'|'.join(MODES)})",
            "NAME=enforce, NAME=observe or NAME=off, with a NAME that --help lists",
        ),
    )
    monitoring_resource: bool = setting(
        False,
        f"Also offer {vendor.MONITORING_RESOURCE}, one device with which a container gets the nodes of all cards, "
        "including cards that pods hold: for an exporter.",
    )
    exclude: tuple[str, ...] = setting(
        (),
        "A card to leave out: its name (card_3), its PCI address or its UUID; may be repeated. It is shown "
        "as excluded and not offered.",
        EachMatching(EXCLUDE_PATTERN, "card_N, a PCI address such as 0000:3b:00.0, or a UUID"),
    )
    pod_resources_dir: Path = setting(
        Path("/var/lib/kubelet/pod-resources"),
        "The kubelet's directory of the socket that reports which pod holds which card.",
        Absolute(),
    )
    placement: Placement = setting(
        "packed",
        "packed: the instances of split GPUs that a pod asks for share a GPU, the one most in use. "
        "spread: each comes from another GPU, the one least in use.",
    )
    nfd_features_dir: Path | None = setting(
        None,
        "Keep a file of node labels for Node Feature Discovery in this directory; usually "
        "/etc/kubernetes/node-feature-discovery/features.d.",
        Absolute(),
    )
    log_format: LogFormat = setting(
        "auto",
        "text: a line for people. json: one JSON object a line. auto: text in a terminal, else json.",
    )
    metrics_address: str = setting(
        "",
        "HOST:PORT of /metrics, /healthz and /readyz, as in 127.0.0.1:9451; empty: not served.",
        Matching(
            _ADDRESS,
            "HOST:PORT, as in 127.0.0.1:9451, or :9451 for all addresses",
            lambda text: is_host(split_address(text)[0]),
        ),
    )
    status_dir: Path = setting(
        DEFAULT_STATUS_DIR,
        "The directory of the socket that `br-gpu-device-plugin status` reads.",
        Absolute(),
    )
    offer_by: OfferBy = setting(
        "device-plugin",
        "How cards are offered to Kubernetes, one way for a node. device-plugin: the kubelet's device "
        "plugin API. dra: Dynamic Resource Allocation (Kubernetes 1.34 and newer).",
    )
    kubelet_root: Path = setting(
        Path("/var/lib/kubelet"),
        "The kubelet's --root-dir, with its directories `plugins` and `plugins_registry`; for dra.",
        Absolute(),
    )
    claim_cdi_dir: Path = setting(
        Path("/var/run/cdi"),
        "The directory of the CDI files of claims; for dra.",
        Absolute(),
    )
    evict_on: tuple[str, ...] = setting(
        (),
        "A probe whose faults evict the pods that hold the card, besides keeping new pods away; "
        f"may be repeated; for dra. One of: {', '.join(EVERY_PROBE)}.",
        Members(EVERY_PROBE),
    )
    kubeconfig: Path | None = setting(
        None,
        "The file with the API server's address and credentials, outside of a pod; for dra and hami.",
    )
    node_name: str = setting(
        "",
        "The node's name, where no pod's token has it; for dra, hami and --config-dir.",
        Matching(_NODE_NAME, "the name of the Node object: a-z, 0-9, '-' and '.'"),
    )
    hami: bool = setting(
        False,
        "Work under HAMi's scheduler (2.10 and newer): report the whole GPUs to it, allocate what it "
        "chose, and release its lock on the node. Needs access to the API server.",
    )
    origins: Mapping[str, Source] = attrs.field(factory=dict, eq=False, kw_only=True)
    """The source of each value that is not the default, by field; not a setting itself."""

    def __attrs_post_init__(self) -> None:
        """Raises `BadSetting` for settings that contradict each other."""
        _refuse_contradictions(self)

    file: SettingsFile | None = attrs.field(default=None, eq=False, kw_only=True)
    """The settings file; None if none was given. Not itself a setting."""

    @property
    def offers_groups(self) -> bool:
        """Return whether the node's cards are VFIO groups, for virtual machines, rather than the driver's."""
        return self.container_runtime == "kata"

    @property
    def health_policy(self) -> HealthPolicy:
        """Return the settings about verdicts."""
        return HealthPolicy(
            mode=self.health_mode,
            disabled=frozenset(self.disable_probe),
            probes=dict(map(_split_probe, self.probe)),
            unhealthy_on=LibraryStatus[self.unhealthy_on.upper()],
            recover_after=self.recover_after,
        )

    def metrics_host_and_port(self) -> tuple[str, int]:
        """Return `[::1]:9451` or `:9451` as host and port; no host: all addresses."""
        return split_address(self.metrics_address)

    def differing(self) -> str:
        """Return the settings that are not the defaults, for the first line of the log.

        `pulse=30 (environment)`; the source is left out for a flag.
        """
        pairs = []
        for field in SETTINGS:
            value = getattr(self, field.name)
            if value != field.default:
                text = ",".join(value) if isinstance(value, tuple) else f"{value}"
                source = self.origins.get(field.name, "flag")
                from_where = "" if source == "flag" else f" ({source})"
                pairs.append(f"{field.name}={text}{from_where}")
        return ", ".join(pairs) or "all defaults"


def _split_probe(word: str) -> tuple[str, HealthMode]:
    """`link-width=off` in two."""
    name, _, mode = word.partition("=")
    return name, cast("HealthMode", mode)  # its validator saw to that


def _refuse_contradictions(settings: Settings) -> None:
    """Raises `BadSetting` for settings that contradict each other."""
    is_dra, is_kata = settings.offer_by == "dra", settings.offers_groups
    if settings.hami and (is_dra or is_kata):
        why, other = (
            ("HAMi places no pods with resource claims", "--offer-by dra")
            if is_dra
            else ("HAMi counts the driver's cards, not VFIO groups", "--container-runtime kata")
        )
        raise BadSetting("hami", "true", f"{why}; give --hami or {other}, not both")
    if settings.kubeconfig is not None and is_dra and not settings.node_name:
        text = "give --node-name too, the name of this node"
        raise BadSetting("kubeconfig", f"{settings.kubeconfig}", text)
    folders: dict[Path, str] = {}
    for name in sorted(_FOLDERS_OF_SOCKETS, key=lambda each: is_given(settings, each)):
        path = getattr(settings, name)
        if (other := folders.setdefault(path, name)) != name:
            text = f"give a directory that --{key_of(other)} does not name"
            raise BadSetting(name, f"{path}", text)


def is_given(settings: Settings, name: str) -> bool:
    """Return whether a setting differs from its default."""
    return bool(getattr(settings, name) != attrs.fields_dict(Settings)[name].default)


SETTINGS: Final["tuple[attrs.Attribute[Any], ...]"] = tuple(
    field for field in attrs.fields(Settings) if not field.kw_only
)
"""Return the fields that are settings, in the order of the help."""
