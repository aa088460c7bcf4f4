"""What README and docs/ point to is there, and no setting is left out."""

import re
from pathlib import Path

import pytest

from biren_plugin.core.health.probes import PROBES
from biren_plugin.core.setting_field import key_of
from biren_plugin.core.settings import SETTINGS
from tests.support.documents import DOCUMENTS, ROOT, anchors

NAMES = [document.name for document in DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{document.name}: {target}"


def test_every_setting_is_in_the_table_of_flags() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    missing = [field.name for field in SETTINGS if f"`--{key_of(field.name)}" not in text]
    assert not missing


def test_every_probe_is_in_the_table_of_verdicts() -> None:
    text = (ROOT / "docs/health.md").read_text()
    missing = [probe.name for probe in PROBES if f"`{probe.name}`" not in text]
    assert not missing
