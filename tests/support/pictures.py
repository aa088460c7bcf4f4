"""Draws docs/simulate.svg from what `simulate` prints in a terminal: `nox -s pictures`."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

TARGET: Final = Path(__file__).parents[2] / "docs/simulate.svg"
_WIDTH: Final = 112
_COMMAND: Final = "br-gpu-device-plugin simulate"
_REMOTE_FONTS: Final = r"@font-face \{.*?\}\s*"
"""A picture loads nothing from elsewhere."""


def main() -> None:
    """Runs the command that is installed beside this Python."""
    command = Path(sys.executable).with_name(_COMMAND.split()[0])
    printed = run_in_terminal([f"{command}", *_COMMAND.split()[1:]], _WIDTH)
    console = Console(record=True, width=_WIDTH, file=StringIO())
    console.print(Text(f"$ {_COMMAND}\n", style="bold"))
    for line in printed.splitlines():
        console.print(_with_indent_apart(Text.from_ansi(line)))
    picture = console.export_svg(title=_COMMAND, theme=MONOKAI)
    TARGET.write_text(re.sub(_REMOTE_FONTS, "", picture, flags=re.DOTALL))


def run_in_terminal(command: list[str], width: int, **environment: str) -> str:
    """What a command prints in a terminal of that many columns, colours included."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")
    }
    process = subprocess.Popen(
        command, stdout=terminal, env={**inherited, "TERM": "xterm-256color", **environment}
    )
    os.close(terminal)
    printed = bytearray()
    try:
        while piece := os.read(ours, 65_536):
            printed += piece
    except OSError:  # EIO: the terminal's last user has closed it
        pass
    finally:
        os.close(ours)
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return printed.decode().replace("\r\n", "\n")


def _with_indent_apart(line: Text) -> Text:
    """The line with its indent as a piece of its own: the picture then places the text by its column.

    Some viewers know no `textLength`, and blanks at the beginning of a text are narrower there.
    """
    indent = len(line.plain) - len(line.plain.lstrip())
    return Text.assemble(line[:indent], line[indent:]) if 0 < indent < len(line.plain) else line


if __name__ == "__main__":
    main()
