"""What the daemon was told, from whatever source, in one frozen place."""

from pathlib import Path
from typing import Final, Literal

import attrs

from biren_plugin.core.allocation import Placement
from biren_plugin.core.health import HealthMode, HealthPolicy
from biren_plugin.core.library import LibraryStatus
from biren_plugin.core.probes import OPTIONAL
from biren_plugin.errors import UsageError

ContainerRuntime = Literal["runc", "kata"]
LogLevel = Literal["debug", "info", "warning", "error"]
UnhealthyOn = Literal["warning", "critical", "error"]

MAX_PULSE: Final = 86_400
"""Seconds; a heartbeat rarer than once a day is a mistake."""
MIN_HEALTH_INTERVAL: Final = 0.1
MAX_HEALTH_INTERVAL: Final = 3600.0
MAX_RECOVER_AFTER: Final = 86_400.0

DEFAULT_CDI_DIR: Final = Path("/etc/cdi")


@attrs.frozen
class Settings:
    """The daemon's settings. Raises `UsageError` for values that no flag should have."""

    cdi_feature: bool = False
    container_runtime: ContainerRuntime = "runc"
    mount_host_path: bool = False
    overwrite_cdi_config: bool = False
    pulse: int = 0
    """Seconds between heartbeats; 0: none."""
    host_root: Path = Path("/")
    """Where the host's /sys, /dev and /usr are read; never part of a path given to a container."""
    device_plugin_dir: Path = Path("/var/lib/kubelet/device-plugins")
    cdi_dir: Path = DEFAULT_CDI_DIR
    mount_dri_device: bool = False
    log_level: LogLevel = "info"
    health_interval: float = 1.0
    """Seconds between looks at the cards; the management library is asked every fifth time."""
    health_mode: HealthMode = "enforce"
    recover_after: float = 30.0
    """Seconds that a card must be well before it returns to service."""
    unhealthy_on: UnhealthyOn = "critical"
    disable_probe: tuple[str, ...] = ()
    pod_resources_dir: Path = Path("/var/lib/kubelet/pod-resources")
    """Where the kubelet's socket is that tells which pod holds what."""
    placement: Placement = "packed"
    """Whether a pod's instances of split GPUs share a GPU, or are spread over many."""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.pulse <= MAX_PULSE:
            raise UsageError(
                f"--pulse {self.pulse}: give whole seconds from 0 (no heartbeat) to {MAX_PULSE}"
            )
        if not MIN_HEALTH_INTERVAL <= self.health_interval <= MAX_HEALTH_INTERVAL:
            raise UsageError(
                f"--health-interval {self.health_interval:g}: give seconds from "
                f"{MIN_HEALTH_INTERVAL:g} to {MAX_HEALTH_INTERVAL:g}"
            )
        if not 0 <= self.recover_after <= MAX_RECOVER_AFTER:
            raise UsageError(
                f"--recover-after {self.recover_after:g}: give seconds from 0 to {MAX_RECOVER_AFTER:g}"
            )
        for name in self.disable_probe:
            if name not in OPTIONAL:
                raise UsageError(f"--disable-probe {name}: give one of {', '.join(OPTIONAL)}")

    @property
    def health_policy(self) -> HealthPolicy:
        """What the flags say about verdicts."""
        return HealthPolicy(
            mode=self.health_mode,
            disabled=frozenset(self.disable_probe),
            unhealthy_on=LibraryStatus[self.unhealthy_on.upper()],
            recover_after=self.recover_after,
        )

    def not_yet(self) -> list[str]:
        """Flags that were given and that this version takes without acting on them."""
        given = {
            "--cdi-feature": self.cdi_feature,
            "--overwrite-cdi-config": self.overwrite_cdi_config,
            "--cdi-dir": self.cdi_dir != DEFAULT_CDI_DIR,
        }
        return [flag for flag, is_given in given.items() if is_given]

    def without_effect(self) -> list[str]:
        """Flags that were given and mean nothing on a kata node."""
        given = {
            "--mount-host-path": self.mount_host_path,
            "--mount-dri-device": self.mount_dri_device,
        }
        kata = self.container_runtime == "kata"
        return [flag for flag, is_given in given.items() if is_given and kata]

    def differing(self) -> str:
        """The settings that are not the defaults, for the first line of the log."""
        defaults = Settings()
        pairs = [
            f"{name}={value}"
            for name, value in attrs.asdict(self).items()
            if value != getattr(defaults, name)
        ]
        return ", ".join(pairs) or "all defaults"
