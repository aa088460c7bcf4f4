"""The Helm chart: the same objects as the overlays, and values that are checked."""

import json

import pytest

from tests.manifests.overlays import CHOICES
from tests.manifests.render import (
    CHART,
    Object,
    chart_flags,
    container_of,
    helm_template,
    of_kind,
    overlay,
    pod_of,
)
from tests.manifests.tools import try_tool


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """The objects that both make (with Helm, the namespace is the caller's), lists in one order."""
    container = container_of(objects)
    for each in (pod_of(objects)["volumes"], container["volumeMounts"], container["env"]):
        each.sort(key=lambda item: (item["name"], item.get("mountPath")))
    return {
        (each["kind"], each["metadata"]["name"]): each
        for each in objects
        if each["kind"] != "Namespace"
    }


def refusal(*values: str) -> str:
    """What helm prints when it refuses the values."""
    done = try_tool("helm", "template", "biren", str(CHART), *chart_flags(values))
    assert done.returncode != 0, f"{values} were accepted"
    return done.stderr


@pytest.mark.parametrize(("name", "values"), CHOICES.items())
def test_the_chart_gives_the_objects_of_the_overlay(name: str, values: tuple[str, ...]) -> None:
    assert by_name(helm_template(*values)) == by_name(overlay(name))


@pytest.mark.parametrize("values", CHOICES.values())
def test_the_chart_is_clean_for_helms_linter(values: tuple[str, ...]) -> None:
    done = try_tool("helm", "lint", "--strict", str(CHART), *chart_flags(values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout
    assert "symbolic link" not in done.stderr


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("cdl=true", "cdl"),
        ("cdi=maybe", "cdi"),
        ("containerRuntime=docker", "containerRuntime"),
        ("offerBy=both", "offerBy"),
        ("image.tags=1", "tags"),
    ],
)
def test_a_wrong_value_is_named(value: str, complaint: str) -> None:
    assert complaint in refusal(value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["image=null"], "image is null: give a value, or leave it out for the default"),
        (["hami=null"], "hami is null: give a value"),
        (["cdiDir=null"], "cdiDir is null: give a value"),
        (["logLevel=null"], "logLevel is null: give a value"),
        (["config.node 7.pulse=300"], 'config "node 7": give the name of a node, or default'),
        (["kubeletRoot=var/lib"], 'kubeletRoot "var/lib": give an absolute path'),
        (["devicePluginsDir=/"], 'devicePluginsDir "/": give an absolute path'),
        (
            ["cdi=true", "cdiDir="],
            'cdiDir "": give an absolute path of a directory, such as /etc/cdi',
        ),
        (["extraArgs={pulse}"], 'extraArgs "pulse": give flags of the daemon'),
        (
            ["image.digest=sha256:1"],
            'image.digest "sha256:1": give sha256: and 64 hexadecimal digits',
        ),
        (["env[0].name=BR_GPU_HOST_ROOT"], "already sets BR_GPU_HOST_ROOT"),
        (["cdi=true", "containerRuntime=kata"], "choose one of the two"),
        (["hostPath=true", "containerRuntime=kata"], "choose one of the two"),
        (["offerBy=dra", "cdi=true"], "choose one of the two"),
        (["offerBy=dra", "serviceAccountName=default"], "give an account of its own"),
        (
            ["offerBy=dra", "--kube-version=1.33"],
            "offerBy=dra needs Kubernetes 1.34, and this is v1.33",
        ),
        (["hami=true", "offerBy=dra"], "choose one of the two"),
        (["hami=true", "containerRuntime=kata"], "not VFIO groups; choose one of the two"),
        (["hami=true", "serviceAccountName=default"], "give an account of its own"),
        (["cdi=true", "--kube-version=1.27"], "cdi=true needs Kubernetes 1.28, and this is v1.27"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(values: list[str], sentence: str) -> None:
    assert sentence in refusal(*values)


def test_values_that_are_no_overlay_reach_the_pod() -> None:
    objects = helm_template(
        "image.repository=registry.example/plugin",
        "image.tag=1.2.3",
        "imagePullSecrets[0].name=ours",
        "logLevel=debug",
        "extraArgs={--health-mode=observe}",
        "env[0].name=BR_GPU_DISABLE_PROBE",
        "env[0].value=sysfs",
        "serviceAccountName=ours",
        "priorityClassName=ours",
        "podAnnotations.team=ours",
        "affinity.nodeAffinity.some=thing",
    )
    container = container_of(objects)
    assert container["image"] == "registry.example/plugin:1.2.3"
    assert container["args"][-2:] == ["--log-level=debug", "--health-mode=observe"]
    assert container["env"][-1] == {"name": "BR_GPU_DISABLE_PROBE", "value": "sysfs"}
    pod = pod_of(objects)
    assert pod["imagePullSecrets"] == [{"name": "ours"}]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("ours", "ours")
    assert pod["affinity"] == {"nodeAffinity": {"some": "thing"}}
    template = of_kind(objects, "DaemonSet")["spec"]["template"]
    assert template["metadata"]["annotations"] == {"team": "ours"}


def test_a_text_that_looks_like_another_type_or_a_comment_reaches_the_pod_as_it_is() -> None:
    for text in ("123", "true", "a #b", "*a: 'b\""):
        values = {
            "serviceAccountName": text,
            "priorityClassName": text,
            "seLinuxType": text,
            "cdi": True,
            "cdiDir": f"/{text}",
            "kubeletRoot": f"/{text}",
            "devicePluginsDir": f"/{text}",
            "image": {"repository": text, "tag": text},
        }
        objects = helm_template(
            *(f"--set-json={name}={json.dumps(values[name])}" for name in values)
        )
        pod, container = pod_of(objects), container_of(objects)
        assert pod["serviceAccountName"] == pod["priorityClassName"] == text
        assert container["image"] == f"{text}:{text}"
        assert container["securityContext"]["seLinuxOptions"] == {"type": text}
        paths = {
            each["name"]: each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each
        }
        assert (paths["cdi"], paths["device-plugins"]) == (f"/{text}", f"/{text}")
        assert paths["pod-resources"] == f"/{text}/pod-resources"
        given = {each["name"]: each["value"] for each in container["env"]}
        assert given["BR_GPU_CDI_DIR"] == f"/{text}"


def test_lists_and_maps_reach_the_daemon_as_its_variables() -> None:
    container = container_of(
        helm_template(
            "exclude={card_3,0000:3b:00.0}",
            "probes.link-width=false",
            "probes.sysfs=observe",
            "visibleDevices=index",
            "monitoringResource=true",
        )
    )
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given["BR_GPU_EXCLUDE"] == "card_3,0000:3b:00.0"
    assert given["BR_GPU_VISIBLE_DEVICES"] == "index"
    assert given["BR_GPU_MONITORING_RESOURCE"] == "true"
    assert given["BR_GPU_PROBE"] == "link-width=off,sysfs=observe"


def test_settings_by_node_are_a_config_map_that_the_daemon_reads() -> None:
    objects = helm_template("config.node-7.pulse=300", "config.node-7.exclude={card_3}")
    files = of_kind(objects, "ConfigMap")["data"]
    assert files == {
        "default.yaml": "{}\n",
        "node-7.yaml": "exclude:\n- card_3\npulse: 300\n",
    }
    container = container_of(objects)
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "config"]
    given = {each["name"]: each for each in container["env"]}
    assert given["BR_GPU_CONFIG_DIR"]["value"] == mount["mountPath"]
    node = given["BR_GPU_NODE_NAME"]["valueFrom"]
    assert node == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    changed = helm_template("config.node-7.pulse=301", "config.node-7.exclude={card_3}")
    annotations = [
        of_kind(each, "DaemonSet")["spec"]["template"]["metadata"]["annotations"]
        for each in (objects, changed)
    ]
    assert annotations[0] != annotations[1], "a change restarts the pods"


def test_a_digest_takes_precedence_over_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    container = container_of(helm_template(f"image.digest={digest}", "image.tag=1.2.3"))
    assert container["image"] == f"br-gpu-device-plugin@{digest}"


def test_the_root_of_the_kubelet_does_not_move_its_device_plugins_directory() -> None:
    def directories(*values: str) -> dict[str, str]:
        volumes = pod_of(helm_template(*values))["volumes"]
        return {each["name"]: each.get("hostPath", {}).get("path") for each in volumes}

    moved = directories("kubeletRoot=/data/kubelet/")
    assert moved["pod-resources"] == "/data/kubelet/pod-resources"
    assert moved["device-plugins"] == "/var/lib/kubelet/device-plugins"
    patched = directories("devicePluginsDir=/data/kubelet/device-plugins")
    assert patched["pod-resources"] == "/var/lib/kubelet/pod-resources"
    assert patched["device-plugins"] == "/data/kubelet/device-plugins"


def test_the_cdi_directory_moves_flag_mount_and_volume_together() -> None:
    objects = helm_template("cdi=true", "cdiDir=/var/cdi/dynamic")
    container = container_of(objects)
    assert {"name": "BR_GPU_CDI_DIR", "value": "/var/cdi/dynamic"} in container["env"]
    mounts = [each for each in container["volumeMounts"] if each["name"] == "cdi"]
    assert [each["mountPath"] for each in mounts] == ["/var/cdi/dynamic"]
    volumes = [each for each in pod_of(objects)["volumes"] if each["name"] == "cdi"]
    assert [each["hostPath"]["path"] for each in volumes] == ["/var/cdi/dynamic"]


def test_on_openshift_a_privileged_pod_is_allowed_only_with_the_management_library() -> None:
    def constraints(*values: str) -> Object:
        return of_kind(helm_template("openshift=true", *values), "SecurityContextConstraints")

    assert constraints()["allowPrivilegedContainer"] is False
    assert constraints("managementLibrary=true")["allowPrivilegedContainer"] is True


def test_the_constraints_admit_the_account_that_is_named_and_no_other_is_created() -> None:
    objects = helm_template("openshift=true", "serviceAccountName=ours")
    users = of_kind(objects, "SecurityContextConstraints")["users"]
    assert users == ["system:serviceaccount:biren-gpu:ours"]
    assert "ServiceAccount" not in {each["kind"] for each in objects}
