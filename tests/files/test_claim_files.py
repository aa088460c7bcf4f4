"""The CDI files of claims: what `write` returns is what a later reader finds."""

from pathlib import Path

from biren_plugin.core.cdi.spec import Spec
from biren_plugin.files.claim_files import ClaimFiles


def spec_of(*names: str) -> Spec:
    return {
        "cdiVersion": "0.6.0",
        "kind": "gpu.birentech.com/claim",
        "devices": [{"name": name, "containerEdits": {"env": ["A=é"]}} for name in names],
    }


def test_a_written_file_is_found_as_it_was_returned(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    written = files.write("uid-a", spec_of("uid-a:cards:gpu-0000-0c-00-0", "a foreign name"))
    assert files.read_all() == {"uid-a": written}
    assert [each.device for each in written.devices] == ["gpu-0000-0c-00-0"]


def test_a_file_that_was_written_again_is_not_the_earlier_one(tmp_path: Path) -> None:
    files = ClaimFiles(tmp_path)
    first = files.write("uid-a", spec_of())
    second = files.write("uid-a", spec_of())
    assert not files.remove_if("uid-a", first)
    assert files.remove_if("uid-a", second)
    assert files.read_all() == {}
