"""How containerd's configuration and the kubelet's version affect CDI."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.commands.doctor.kubelet_checks import kubelet_passes_cdi
from biren_plugin.commands.doctor.runtime_checks import (
    RuntimeFacts,
    containerd_facts,
    containerd_reads_cdi,
)
from biren_plugin.core.cdi.spec import RUNTIME_CDI_DIRS

OLD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
enable_cdi = true
cdi_spec_dirs = ["/etc/cdi", "/opt/cdi"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.biren]
runtime_type = "io.containerd.runc.v2"
"""
NEW = """
version = 3
[plugins.'io.containerd.cri.v1.runtime']
enable_cdi = false
"""


def test_facts_are_read_from_both_versions_of_the_configuration() -> None:
    assert containerd_facts(tomllib.loads(OLD)) == RuntimeFacts(
        enable_cdi=True, cdi_dirs=("/etc/cdi", "/opt/cdi"), runtimes=("runc", "biren")
    )
    assert containerd_facts(tomllib.loads(NEW)) == RuntimeFacts(enable_cdi=False)


def test_an_imported_file_counts() -> None:
    facts = containerd_facts(tomllib.loads(NEW), tomllib.loads(OLD), tomllib.loads("version = 3"))
    assert facts.enable_cdi is True
    assert facts.runtimes == ("runc", "biren")


def test_an_empty_configuration_gives_the_defaults() -> None:
    facts = containerd_facts({})
    assert (facts.enable_cdi, facts.cdi_dirs, facts.runtimes) == (None, RUNTIME_CDI_DIRS, ())


tables = st.recursive(
    st.sampled_from([None, True, 0, "text", ["text", 1]]),
    lambda inner: st.dictionaries(
        st.sampled_from(
            ["plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes", "enable_cdi",
             "cdi_spec_dirs", "other"]
        ),
        inner,
        max_size=4,
    ),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["plugins", "other"]), tables))
def test_no_odd_configuration_is_an_error(config: dict[str, object]) -> None:
    assert containerd_facts(config).enable_cdi in (None, True, False)


@pytest.mark.parametrize(
    ("enabled", "version", "reads"),
    [
        (True, (1, 7, 0), True),
        (False, (2, 1, 0), False),
        (None, (1, 7, 28), False),
        (None, (2, 0, 0), True),
        (None, None, None),
        (True, None, True),
    ],
)
def test_containerd_reads_cdi_as_configured_or_from_2_0_on(
    enabled: bool | None, version: tuple[int, ...] | None, reads: bool | None
) -> None:
    assert containerd_reads_cdi(RuntimeFacts(enable_cdi=enabled), version) is reads


@pytest.mark.parametrize(
    ("version", "gate", "passes"),
    [
        ((1, 27, 9), True, False),
        ((1, 28, 0), None, False),
        ((1, 28, 0), True, True),
        ((1, 29, 0), None, True),
        ((1, 36, 0), False, False),
        (None, None, None),
        (None, True, True),
        (None, False, False),
    ],
)
def test_the_kubelet_passes_cdi_names_on_from_1_28_with_the_gate_and_from_1_29_by_default(
    version: tuple[int, ...] | None, gate: bool | None, passes: bool | None
) -> None:
    assert kubelet_passes_cdi(version, gate) is passes
