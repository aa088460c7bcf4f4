"""What the daemon was told, from whatever source, in one frozen place."""

from pathlib import Path
from typing import Final, Literal

import attrs

from biren_plugin.errors import UsageError

ContainerRuntime = Literal["runc", "kata"]
LogLevel = Literal["debug", "info", "warning", "error"]

MAX_PULSE: Final = 86_400
"""Seconds; a heartbeat rarer than once a day is a mistake."""

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

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.pulse <= MAX_PULSE:
            raise UsageError(
                f"--pulse {self.pulse}: give whole seconds from 0 (no heartbeat) to {MAX_PULSE}"
            )

    def not_yet(self) -> list[str]:
        """Flags that were given and that this version takes without acting on them."""
        given = {
            "--cdi-feature": self.cdi_feature,
            "--overwrite-cdi-config": self.overwrite_cdi_config,
            "--cdi-dir": self.cdi_dir != DEFAULT_CDI_DIR,
        }
        return [flag for flag, is_given in given.items() if is_given]

    def differing(self) -> str:
        """The settings that are not the defaults, for the first line of the log."""
        defaults = Settings()
        pairs = [
            f"{name}={value}"
            for name, value in attrs.asdict(self).items()
            if value != getattr(defaults, name)
        ]
        return ", ".join(pairs) or "all defaults"
