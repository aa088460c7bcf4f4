"""The console script: what reads the command line, exit statuses, and errors in one line.

An ordinary command line of the daemon is read by `commands/plain_settings`, one of `status` and `devices` by
`commands/plain_command`; both are quick. Any other one, or one with an error in it, is read by cyclopts in
`commands/command_line`.
"""

import errno
import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from biren_plugin.errors import MORE_DESCRIPTORS, PluginError, UsageError, cure_of, printable

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2
"""Descriptors."""
_OF_A_WRITE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of writing standard output; unlike other errors, they have no file name."""
_LONGEST: Final = 1000
"""Characters of an error."""


def main() -> NoReturn:
    """The console script. Exits with the command's status, 1 (failed) or 2 (a wrong command line)."""
    _fill_closed_streams()
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()  # a full disk is noticed here, and not while the interpreter ends
    except UsageError as error:
        _complain(str(error), EXIT_USAGE)
    except PluginError as error:
        _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:  # the reader has closed the pipe
        _drop_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is None and error.errno in _OF_A_WRITE:
            _drop_output()
        _complain(_explain_system_error(error), EXIT_FAILED)
    sys.exit(status)


def _run(words: Sequence[str]) -> int:
    # Each imports only what it needs: cyclopts is a sixth of a start, the settings half of a `status`.
    if words and not words[0].startswith("-"):
        from biren_plugin.commands.plain_command import plain_command

        command = plain_command(words, os.environ)
        if command is not None:
            _collect_no_modules()
            return command()
    else:
        from biren_plugin.commands.plain_settings import plain_settings
        from biren_plugin.commands.run_daemon import daemon

        settings = plain_settings(words, os.environ)
        if settings is not None:
            return daemon(settings)
    from biren_plugin.commands.command_line import run

    _collect_no_modules()
    return run(words)


def _collect_no_modules() -> None:
    """Collect garbage again, but not among what was imported so far: the end of a command would take 10 ms for it."""
    gc.freeze()
    gc.enable()


def _fill_closed_streams() -> None:
    """Open /dev/null for streams that the caller closed, so that no socket gets their descriptors."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)
    sys.stdout = sys.stdout or os.fdopen(_STANDARD_OUTPUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STANDARD_ERROR, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack characters that a text has
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain_system_error(error: OSError) -> str:
    """Return the system's error, its file, and advice if there is any."""
    text = error.strerror or f"{error}"
    if error.errno == errno.EMFILE:
        allowed = os.sysconf("SC_OPEN_MAX")
        return f"{text}: this process may open {allowed}; {MORE_DESCRIPTORS}"
    if error.errno == errno.ENFILE:
        return f"{text}: this is the limit of the whole node; raise fs.file-max on it"
    if error.filename is not None:
        cure = cure_of(error)
        return f"{text}: {error.filename}{'; ' if cure else ''}{cure}"
    return f"{text}: standard output" if error.errno in _OF_A_WRITE else text


def _complain(text: str, status: int) -> NoReturn:
    line = printable(" ".join(text.split()))
    if len(line) > _LONGEST:  # a value that is quoted in it: what to do comes at the end
        line = f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 2 :]}"
    print(f"br-gpu-device-plugin: {line}", file=sys.stderr)
    sys.exit(status)
