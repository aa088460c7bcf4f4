"""Every expected error, by whose fault it is. Each text says what happened and what to do, in one line.

Any other exception is a bug; only bugs are logged with a traceback.
"""

import errno
from pathlib import Path
from typing import Final


class PluginError(Exception):
    """The base of every error that this project raises on purpose."""


class UsageError(PluginError):
    """An error in the command line or the settings: exit status 2."""


class BadSetting(UsageError):
    """A value that a setting cannot have; `at` gives the same error for another source of the value."""

    def __init__(self, name: str, value: str, right: str) -> None:
        self._problem = f"{value or repr(value)}: {right}"
        super().__init__(f"--{name.replace('_', '-')} {self._problem}")
        self.name = name
        """The field of the setting."""

    def at(self, place: str) -> UsageError:
        """Return the same error for a value set at `place`, such as `BR_GPU_PULSE`."""
        return UsageError(f"{place} {self._problem}")


class RequestRefused(PluginError):
    """An error in a call's content; the pod's author sees the text."""


class InvalidRequest(RequestRefused):
    """The request is wrong in any state of this node: INVALID_ARGUMENT."""


class NotReady(RequestRefused):
    """The request is right, the node is not ready for it: FAILED_PRECONDITION."""


class NodeError(PluginError):
    """A fault of the node or the kubelet: the subtree is restarted."""


class HostUnreadable(NodeError):
    """The host cannot be read, for a reason other than absence: a permission, a limit."""


class NoThread(NodeError):
    """No thread can be started for a blocking call: processes have run out."""


class DiskHangs(NodeError):
    """A command's call did not end in time."""


class FeaturesUnwritable(NodeError):
    """The file for Node Feature Discovery cannot be written."""


class ReportTooSlow(NodeError):
    """The host's files could not be read in time, so there is no report."""


class PodResourcesUnknown(NodeError):
    """The kubelet does not report which pod holds what."""


class KubeletRestarted(NodeError):
    """The kubelet stopped or restarted: it has forgotten the registration. Start again at once."""


class PluginSocketGone(NodeError):
    """The plugin's socket was deleted or replaced: no new call can reach the plugin."""


class RegistrationFailed(NodeError):
    """The kubelet did not accept the registration, or did not open its stream."""


class StreamEnded(NodeError):
    """The kubelet ended the stream while its socket and the plugin's still exist."""


class RegistrationLost(NodeError):
    """The kubelet no longer uses the registration, though the stream is open."""


class SocketUnusable(NodeError):
    """A socket cannot be created: its directory is read-only or missing, or its path too long."""


class AddressUnusable(NodeError):
    """Metrics and probes cannot be served on the configured address."""


class StatusUnavailable(PluginError):
    """No daemon reports its status here, or not to this user."""


class FolderDead(PluginError):
    """The kubelet's directory was deleted under the mount: only a new process can reach the new one."""


class StartTooSlow(NodeError):
    """A task of a subtree was not ready in time: the node is overloaded, or a part of it hangs."""

    def __init__(self, subtree: str, seconds: float) -> None:
        super().__init__(
            f"{subtree} did not start in {seconds:g} s, as when the node is overloaded or a disk hangs; "
            "see `uptime` and `dmesg` on the node"
        )


class LibraryUnusable(NodeError):
    """The management library is missing, cannot be loaded, or is a different library."""


class LibraryMissing(LibraryUnusable):
    """The node has no management library, which is not a fault."""


class LibraryCallFailed(NodeError):
    """A call of the management library failed that all other calls need."""

    def __init__(self, call: str, code: int, text: str | None) -> None:
        meaning = f"{text} (code {code})" if text else f"code {code}"
        super().__init__(f"{call}: {meaning}; see `brsmi gpu query -d health` on the node")
        self.code = code
        """The code that the call returned: a `ReturnCode` of `core/parse/brml`, or another number."""


class CdiFileUnusable(NodeError):
    """The CDI file cannot be written or read, or is not a regular file."""


class CdiSpecInvalid(CdiFileUnusable):
    """The content of the CDI file breaks a rule, so that no runtime loads the file."""

    def __init__(self, text: str, found: object = None, key: str | None = None) -> None:
        super().__init__(text)
        self.found = found
        """The part of the document that breaks the rule."""
        self.key = key
        """Its entry that does; None if the whole part does."""


ENOUGH_DESCRIPTORS: Final = 128
"""Open files: the daemon has about 20 of its own, and one for each connection."""
MORE_DESCRIPTORS: Final = f"raise the limit (ulimit -n) to {ENOUGH_DESCRIPTORS} at least"
_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_limit(error: BaseException) -> bool:
    """Return whether open files or memory have run out, which any call may meet: an import opens a file too."""
    return isinstance(error, OSError) and error.errno in _LIMITS


def why_no_thread(error: RuntimeError) -> str:
    """Return why no thread was started: `error` is Python's form of EAGAIN, a limit of the node and not a bug."""
    return f"{error}: processes have run out on the node, or in the pod's cgroup (pids.max)"


def reason_of(error: OSError) -> str:
    """Return the reason alone, `Connection refused`, without the number and the path in the text."""
    return error.strerror or str(error)


def too_slow(doing: str, seconds: float, cause: str = "disk") -> str:
    """Return that `doing` has taken `seconds`, its likely cause, and what to do."""
    return (
        f"{doing} takes more than {seconds:g} s, as when a {cause} hangs; see `dmesg` on the node"
    )


def printable(text: str) -> str:
    """Return `text` in one line that a terminal shows as it is.

    Control characters, and bytes that are not UTF-8, as names of files and arguments may hold them, become
    escapes.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


_CURES: Final = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room in its owner's quota",
    errno.EROFS: "mount its directory for writing, in a container too",
    errno.EACCES: "run it as root, or as the owner of the directory",
    errno.EPERM: "its file system or security policy forbids it, to root too",
    errno.EISDIR: "it is a directory, and a file is needed",
    errno.EAGAIN: "another process is writing it; try again",
    errno.EIO: "its disk is at fault; see `dmesg` on the node",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ETIMEDOUT: "see `dmesg` on the node",
    errno.EMFILE: MORE_DESCRIPTORS,
    errno.ENFILE: "raise fs.file-max on the node",
    errno.ENOMEM: "free memory on the node, or raise the pod's limit",
    errno.ESTALE: "mount its file system again, in a container too",
    errno.ENOLCK: "its file system has no locks: use a local one",
}


def cure_of(error: OSError, otherwise: str = "") -> str:
    """Return what to do about an error with a file: `otherwise`, if its reason leaves that open."""
    return _CURES.get(error.errno or 0, otherwise)


def reason_and_cure(error: OSError, otherwise: str = "") -> str:
    """Return the reason, and what `cure_of` does."""
    return "; ".join(filter(None, [reason_of(error), cure_of(error, otherwise)]))


def why_unwritable(path: Path, error: OSError, flag: str, doing: str = "write") -> str:
    """Return why `path`, which `flag` leads to, cannot be written, and what to do."""
    is_missing = error.errno == errno.ENOENT
    cure = f"create {path.parent}, or correct {flag}" if is_missing else f"see {flag}"
    cure = _CURES.get(error.errno or 0, cure)
    if error.errno == errno.EEXIST:  # of mkdir
        cure = f"{path.parent} is not a directory, correct {flag}"
    return f"cannot {doing} {path}: {reason_of(error)}; {cure}"


class ApiError(NodeError):
    """The API server did not carry out a request."""


class ApiUnreachable(ApiError):
    """The API server cannot be reached, or cannot answer for now: try again later."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds that the server asks to wait; None if it does not ask."""


class ApiForbidden(ApiError):
    """A right is missing, or an admission policy refused: only an administrator can change that."""


class ApiNotFound(ApiError):
    """There is no such object, or no such API."""


class ApiConflict(ApiError):
    """Another client has changed the object: read it and decide again."""


class ApiExpired(ApiError):
    """A watch began at a version that the server has forgotten: list again."""


class ApiInvalid(ApiError):
    """The sent object is invalid: a bug of the plugin, or an API server that is too old."""


class ClaimRefused(RequestRefused):
    """A claim that this driver can never prepare, whatever happens on the node."""


class ClaimNotReady(RequestRefused):
    """A claim that cannot be prepared now: its card is missing, unhealthy or still held."""


class ClaimFileUnusable(NodeError):
    """The CDI file of a claim cannot be written, read or removed."""
