"""Draws docs/simulate.svg from a real run of `simulate`: `nox -s pictures`."""

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

TARGET: Final = Path(__file__).parents[2] / "docs/simulate.svg"
_WIDTH: Final = 112
_COMMAND: Final = "br-gpu-device-plugin simulate"
_STYLES: Final = {
    r"^ +[0-9.]+ ms": "cyan",
    r"(?<= ms  ).*": "bold",
    r"Unhealthy.*|WARNING": "red",
    r"[0-9]+ of [0-9]+ healthy|INFO|Healthy again": "green",
}
_REMOTE_FONTS: Final = r"@font-face \{.*?\}\s*"
"""A picture loads nothing from elsewhere."""


def main() -> None:
    """Runs the command that is installed beside this Python."""
    command = Path(sys.executable).with_name(_COMMAND.split()[0])
    told = subprocess.run(
        [command, *_COMMAND.split()[1:]], check=True, capture_output=True, text=True
    ).stdout
    console = Console(record=True, width=_WIDTH, file=StringIO())
    console.print(Text(f"$ {_COMMAND}\n", style="bold"))
    for line in told.splitlines():
        text = Text(line)
        for pattern, style in _STYLES.items():
            text.highlight_regex(pattern, style)
        console.print(text)
    picture = console.export_svg(title=_COMMAND, theme=MONOKAI)
    TARGET.write_text(re.sub(_REMOTE_FONTS, "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
