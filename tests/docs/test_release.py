"""A release has one version, whoever reads it, and its changelog a form that users read."""

import re
from pathlib import Path

from biren_plugin import __version__

ROOT = Path(__file__).parents[2]
_HEADINGS = {"Upgrading", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
_IMAGE = re.compile(r"br-gpu-device-plugin:(\d+\.\d+\.\d+)")


def versions_in(path: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / path).read_text(), flags=re.MULTILINE))


def sections() -> list[tuple[str, str]]:
    """The changelog's headings of releases, each with its text."""
    parts = re.split(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_chart_image_and_documents_have_the_packages_version() -> None:
    assert versions_in("manifests/chart/Chart.yaml", r"^(?:version|appVersion): (.+)$") == {
        __version__
    }
    for path in (
        "manifests/base/daemonset.yaml",
        "manifests/br-gpu-device-plugin.yaml",
        "manifests/image/Containerfile",
        "README.md",
    ):
        assert versions_in(path, _IMAGE.pattern) == {__version__}, path
    assert versions_in("docs/operations.md", r"^br-gpu-device-plugin (\S+), process") == {
        __version__
    }


def test_the_newest_release_in_the_changelog_is_this_version() -> None:
    headings = [heading for heading, _ in sections()]
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", headings[1])


def test_a_release_has_the_groups_that_users_know_each_once() -> None:
    for heading, text in sections():
        groups = re.findall(r"^### (\w+)", text, flags=re.MULTILINE)
        assert set(groups) <= _HEADINGS, heading
        assert len(groups) == len(set(groups)), heading
    newest = dict(sections())[sections()[1][0]]
    assert re.search(r"^### Upgrading from \d+\.\d+\.\d+$", newest, flags=re.MULTILINE)


def test_an_entry_of_the_newest_release_is_short() -> None:
    _, newest = sections()[1]
    entries = re.findall(r"^- (.+(?:\n  .+)*)", newest, flags=re.MULTILINE)
    assert [entry for entry in entries if entry.count("\n") > 2] == []
