"""The command line: flags, environment, exit statuses. What a subcommand needs is imported by it."""

import gc
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import cyclopts
from cyclopts import App, Parameter

from biren_plugin import __version__, pflag
from biren_plugin.core.allocation import Placement
from biren_plugin.core.health import HealthMode
from biren_plugin.core.settings import ContainerRuntime, LogLevel, Settings, UnhealthyOn
from biren_plugin.errors import PluginError, UsageError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def _read_int(_type: Any, tokens: Sequence[Any]) -> int:
    """Digits only: left alone, cyclopts rounds 1.5, and int() takes 1_0."""
    text = str(tokens[0].value)
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(text)
    return int(text)


def _read_seconds(_type: Any, tokens: Sequence[Any]) -> float:
    """Decimal digits only: float() takes nan, inf, 1e9 and 1_0."""
    text = str(tokens[0].value)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError(text)
    return float(text)


Switch = Annotated[bool, Parameter(negative="")]
Whole = Annotated[int, Parameter(converter=_read_int)]
Seconds = Annotated[float, Parameter(converter=_read_seconds)]

app = App(
    name="br-gpu-device-plugin",
    help="Offers the Biren GPUs of this node to Kubernetes. Without a command: runs as the node's daemon.",
    version=f"br-gpu-device-plugin {__version__}",
    version_flags=["--version"],
    help_flags=["--help", "-h"],
)


@app.default
def daemon(
    *,
    cdi_feature: Switch = False,
    container_runtime: ContainerRuntime = "runc",
    mount_host_path: Switch = False,
    overwrite_cdi_config: Switch = False,
    pulse: Whole = 0,
    mount_dri_device: Switch = False,
    host_root: Path = Path("/"),
    device_plugin_dir: Path = Path("/var/lib/kubelet/device-plugins"),
    cdi_dir: Path = Path("/etc/cdi"),
    log_level: LogLevel = "info",
    health_interval: Seconds = 1.0,
    health_mode: HealthMode = "enforce",
    recover_after: Seconds = 30.0,
    unhealthy_on: UnhealthyOn = "critical",
    disable_probe: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    pod_resources_dir: Path = Path("/var/lib/kubelet/pod-resources"),
    placement: Placement = "packed",
) -> int:
    """Run as the node's daemon.

    Parameters
    ----------
    cdi_feature
        Answer the kubelet with CDI device names instead of device nodes (not yet acted on).
    container_runtime
        What runs the node's containers. runc: they get the driver's cards. kata: their virtual machines
        get the IOMMU groups of Biren functions that are bound to vfio-pci.
    mount_host_path
        Mount the driver's library and tool into each container, below /opt/birentech.
    overwrite_cdi_config
        Write the CDI file anew at each start (not yet acted on).
    pulse
        Seconds between heartbeats, each a fresh look at the host and a list sent again; 0: only
        what changed is sent.
    mount_dri_device
        Give each container the render node of vgem (on the host: modprobe vgem).
    host_root
        Where the host's /sys, /dev and /usr are found.
    device_plugin_dir
        The kubelet's folder of device plugin sockets.
    cdi_dir
        The folder of the CDI file.
    log_level
        The least important lines to log.
    health_interval
        Seconds between looks at the cards, fractions allowed; the management library is asked every
        fifth time, device nodes tell by themselves.
    health_mode
        enforce: what the probes find counts. observe: it is logged and shown, and only a card that is
        not there is Unhealthy. off: nothing else is looked at.
    recover_after
        Seconds that a card must be well before it returns to service; longer if it flaps.
    unhealthy_on
        The health status of the management library from which on a card is Unhealthy.
    disable_probe
        A probe that is not looked at; may be repeated. One of: driver-module, sysfs, vfio-binding,
        pci-config, aer-fatal, aer-nonfatal, link-width, library-hang, library-status, library-ecc,
        library-temperature, library-split, library-presence.
    pod_resources_dir
        The kubelet's folder with the socket that tells which pod holds which card.
    placement
        packed: the instances of split GPUs that a pod asks for share a GPU, the one most in use.
        spread: each comes from another GPU, the one least in use.
    """
    settings = Settings(
        cdi_feature=cdi_feature,
        container_runtime=container_runtime,
        mount_host_path=mount_host_path,
        overwrite_cdi_config=overwrite_cdi_config,
        pulse=pulse,
        host_root=host_root,
        device_plugin_dir=device_plugin_dir,
        cdi_dir=cdi_dir,
        mount_dri_device=mount_dri_device,
        log_level=log_level,
        health_interval=health_interval,
        health_mode=health_mode,
        recover_after=recover_after,
        unhealthy_on=unhealthy_on,
        disable_probe=disable_probe,
        pod_resources_dir=pod_resources_dir,
        placement=placement,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the daemon listens itself. A container's first process has no default that ends it.
        signal.signal(number, lambda _number, _frame: os._exit(0))
    gc.disable()  # what is imported stays: looking through it for garbage costs a tenth of the start
    import trio

    from biren_plugin.daemon import run_until_signal
    from biren_plugin.operate import logs

    logs.configure(settings.log_level)
    # Without the modules a full collection has little to look at, so it runs early and costs little,
    # and the garbage of a restart does not pile up to a share of them.
    gc.freeze()
    gc.enable()
    trio.run(run_until_signal, settings)
    return 0


@app.command
def simulate(
    *,
    gpus: Whole = 8,
    svi: str = "",
    keep_running: Switch = False,
) -> int:
    """Show the whole story on a simulated host, without hardware, root or Kubernetes.

    Parameters
    ----------
    gpus
        How many GPUs the simulated host has.
    svi
        Which GPUs are split, and into how many instances: 6:2,7:4 splits GPU 6 in 2 and 7 in 4.
    keep_running
        Stay until Ctrl-C when the story is told.
    """
    import trio

    from biren_plugin.simulate.host import read_splits
    from biren_plugin.simulate.story import tell_story

    splits = read_splits(gpus, svi)
    right = trio.run(tell_story, splits, keep_running)
    return 0 if right else EXIT_FAILED


@app.command
def devices(
    *,
    json: Switch = False,
    topology: Switch = False,
    container_runtime: ContainerRuntime = "runc",
    host_root: Path = Path("/"),
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
        from biren_plugin.operate.topology import show_topology

        show_topology(host_root, groups=container_runtime == "kata", as_json=json)
    elif container_runtime == "kata":
        from biren_plugin.operate.groups import show_groups

        show_groups(host_root, as_json=json)
    else:
        from biren_plugin.operate.devices import show_devices

        show_devices(host_root, as_json=json)
    return 0


_COMMANDS: Final = ("devices", "simulate")
_SWITCHES: Final = frozenset(
    f"--{name}"
    for name in [
        "cdi-feature",
        "mount-host-path",
        "overwrite-cdi-config",
        "mount-dri-device",
        "keep-running",
        "json",
        "topology",
        "help",
        "version",
    ]
)


def main() -> NoReturn:
    """The console script. Exits with 0, 1 (failed) or 2 (a wrong command line)."""
    try:
        status = app(
            pflag.rewrite(sys.argv[1:], _SWITCHES, repeatable={"--disable-probe"}),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()  # a full disk is noticed here, not by the interpreter's last breath
    except cyclopts.CycloptsError as error:
        _complain(f"{_explain(error)}; see br-gpu-device-plugin --help", EXIT_USAGE)
    except UsageError as error:
        _complain(str(error), EXIT_USAGE)
    except PluginError as error:
        _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        _drop_output()
        _complain(f"{error.strerror}: {error.filename or 'standard output'}", EXIT_FAILED)
    sys.exit(status)


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: cyclopts.CycloptsError) -> str:
    """What is wrong, and what would be right."""
    match error:
        case cyclopts.CoercionError(token=token, target_type=wanted) if token and wanted is int:
            return f"{token.keyword} {token.value}: give a whole number"
        case cyclopts.CoercionError(token=token, target_type=wanted) if token and wanted is float:
            return f"{token.keyword} {token.value}: give seconds, as in 1.5"
        case cyclopts.UnusedCliTokensError(unused_tokens=words) if words:
            if words[0] in _COMMANDS:
                return f"put the command first: br-gpu-device-plugin {words[0]} ..."
            if words[0] in pflag.TRUE + pflag.FALSE:
                return f"{words[0]}: join it to its flag by =, as in --cdi-feature={words[0]}"
            return f"there is no command {words[0]!r}"
        case _:
            return str(error).strip().rstrip(".")


def _complain(text: str, status: int) -> NoReturn:
    print(f"br-gpu-device-plugin: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(status)
