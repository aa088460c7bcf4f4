"""What the documents point to is there, and no setting is left out."""

import re
from pathlib import Path

import pytest

from biren_plugin.commands.show_devices import devices
from biren_plugin.core.health.probes import PROBES
from biren_plugin.core.setting_field import key_of
from biren_plugin.core.settings import SETTINGS
from tests.cluster import tried
from tests.support.documents import DOCUMENTS, ROOT, anchors

OTHERS = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "manifests/chart/README.md"]
LINKED = [*DOCUMENTS, *(ROOT / other for other in OTHERS)]
NAMES = [str(document.relative_to(ROOT)) for document in LINKED]


@pytest.mark.parametrize("document", LINKED, ids=NAMES)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.exists(), f"{document.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{document.name}: {target}"


def table_with(path: str, heading: str) -> set[str]:
    """What stands in backquotes in the first column of the table below that heading's row."""
    text = (ROOT / path).read_text()
    rows = text[text.index(heading) :].partition("\n\n")[0].splitlines()
    return {name for row in rows for name in re.findall(r"`(.*?)`", row.split(" | ")[0])}


def test_the_table_of_flags_has_exactly_the_settings() -> None:
    flags = {flag.partition(" ")[0] for flag in table_with("docs/configuration.md", "| flag |")}
    settings = {f"--{key_of(field.name)}" for field in SETTINGS}
    assert flags == settings | {"--config", "--config-dir"}, "docs/configuration.md, table of flags"


def test_the_table_of_verdicts_has_exactly_the_probes() -> None:
    probes = table_with("docs/health.md", "| probe |")
    assert probes == {probe.name for probe in PROBES}, "docs/health.md, table of verdicts"


def test_the_map_of_the_code_has_each_module_and_room_of_the_package() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = page[page.index("| room |") :].partition("\n\n")[0]
    package = ROOT / "biren_plugin"
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    parts = {f"{path.parent.name}/" for path in package.glob("core/*/__init__.py")}
    assert (modules | rooms | parts) - set(re.findall(r"`(\S+?)`", rows)) == set()


def test_the_table_of_what_was_tried_names_each_module_of_the_cluster_session_once() -> None:
    there = {path.stem.removeprefix("test_") for path in (ROOT / "tests/cluster").glob("test_*.py")}
    assert sorted(tried.modules(tried.TABLE.read_text())) == sorted(there)


def test_a_session_writes_the_numbers_of_its_own_modules_into_the_table() -> None:
    row = "| a part | a tool | `nox -s cluster`: 3 of `here`, 4 of `elsewhere` |\n"
    assert tried.with_counts(row, {"here": 5}) == row.replace("3 of", "5 of")


def test_the_documented_list_of_vfio_groups_is_what_devices_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs/containers.md").read_text()
    before = "On the recorded host of `tests/hosts/sriov_mixed` it prints, among others:\n\n```\n"
    documented = page.partition(before)[2].partition("```")[0].splitlines()
    devices(container_runtime="kata", host_root=ROOT / "tests/hosts/sriov_mixed")
    printed = capsys.readouterr().out.splitlines()
    assert documented
    assert [line for line in documented if line not in printed] == []


def test_the_vendors_command_for_a_split_has_a_number_that_it_takes() -> None:
    """0, 1 and 2 make 1, 2 and 4 instances of the GPU that `-i` names."""
    said = "\n".join(document.read_text() for document in DOCUMENTS)
    commands = re.findall(r"`brsmi gpu set -s ([^`]+)`", said)
    assert commands
    assert [each for each in commands if not re.fullmatch(r"[0-2] -i \w+", each)] == []
