"""README and docs/ as text, for tests that check it."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Each line of each shell block, without its comment."""
    blocks = [
        block
        for document in DOCUMENTS
        for block in re.findall(
            r"^```sh\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE
        )
    ]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(filter(None, lines)))


def anchors(document: Path) -> set[str]:
    """The anchors of a document, as GitHub derives them from its headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
