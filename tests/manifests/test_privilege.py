"""What the pods may do: a line that is not here was not needed."""

import re
import subprocess

import pytest

from tests.e2e.daemon import run_command
from tests.manifests.overlays import CHOICES, UNPRIVILEGED
from tests.manifests.render import container_of, overlay, pod_of

ALLOWED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsGroup": 0,
    "runAsUser": 0,
    "seLinuxOptions": {"type": "container_device_plugin_t"},
    "seccompProfile": {"type": "RuntimeDefault"},
}
WRITABLE = {"device-plugins", "status"}
ALSO_WRITABLE = {
    "cdi": {"cdi"},
    "talos": {"cdi"},
    "node-labels": {"features"},
    "dra": {"plugin", "plugins-registry", "claim-cdi"},
}
"""Volumes by overlay."""


@pytest.fixture(scope="module")
def help_text() -> str:
    """`--help`, wide enough that no flag is broken."""
    done: subprocess.CompletedProcess[str] = run_command("--help")
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("name", UNPRIVILEGED)
def test_the_container_has_no_power_of_root(name: str) -> None:
    expected = dict(ALLOWED)
    match name:
        case "selinux-spc":
            expected["seLinuxOptions"] = {"type": "spc_t"}
        case "talos":
            del expected["seLinuxOptions"]
    assert container_of(overlay(name))["securityContext"] == expected


def test_what_the_management_library_needs_is_in_its_own_overlay_only() -> None:
    container = container_of(overlay("management-library"))
    assert container["securityContext"]["privileged"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("name", CHOICES)
def test_the_pod_has_no_namespace_of_the_host_and_a_token_where_it_is_needed_only(
    name: str,
) -> None:
    pod = pod_of(overlay(name))
    assert pod["automountServiceAccountToken"] is (name in ("dra", "hami"))
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()


@pytest.mark.parametrize("name", UNPRIVILEGED)
def test_only_folders_of_its_own_files_can_be_written(name: str) -> None:
    mounts = container_of(overlay(name))["volumeMounts"]
    writable = {mount["name"] for mount in mounts if not mount.get("readOnly")}
    assert writable == WRITABLE | ALSO_WRITABLE.get(name, set())


@pytest.mark.parametrize("name", CHOICES)
def test_every_volume_is_mounted_and_every_mount_has_a_volume(name: str) -> None:
    objects = overlay(name)
    volumes = [each["name"] for each in pod_of(objects)["volumes"]]
    assert {each["name"] for each in container_of(objects)["volumeMounts"]} == set(volumes)


@pytest.mark.parametrize("name", CHOICES)
def test_every_flag_and_variable_is_one_of_the_command(name: str, help_text: str) -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", help_text))
    container = container_of(overlay(name))
    assert {word.partition("=")[0] for word in container["args"]} <= known
    variables = {each["name"] for each in container["env"]}
    assert variables <= {f"BR_GPU_{flag[2:].upper().replace('-', '_')}" for flag in known}


@pytest.mark.parametrize("name", CHOICES)
def test_probes_ask_the_port_that_the_daemon_serves(name: str) -> None:
    container = container_of(overlay(name))
    [port] = container["ports"]
    assert f"--metrics-address=:{port['containerPort']}" in container["args"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]


@pytest.mark.parametrize("name", CHOICES)
def test_doctor_in_the_container_has_the_settings_of_what_it_looks_at(name: str) -> None:
    # `kubectl exec ... doctor` gets the daemon's variables, and none of its flags.
    flags = {word.partition("=")[0] for word in container_of(overlay(name))["args"]}
    assert flags <= {"--metrics-address", "--log-format"}
