"""What can go wrong, by whose fault it is. Each text says what happened and what to do, in a line.

Anything else that is raised is a bug of ours, and the only thing that is logged with a traceback.
"""


class PluginError(Exception):
    """The root of every error that this project raises on purpose."""


class UsageError(PluginError):
    """The fault of whoever wrote the command line: exit status 2."""


class BadSetting(UsageError):
    """A value that a setting cannot have; `at` says it of the source that the value came from."""

    def __init__(self, name: str, value: str, right: str) -> None:
        super().__init__(f"--{name.replace('_', '-')} {value}: {right}")
        self.name = name
        """The field of the setting."""
        self._said = f"{value}: {right}"

    def at(self, place: str) -> UsageError:
        """The same error, of a value that stands at `place`: `BR_GPU_PULSE`."""
        return UsageError(f"{place} {self._said}")


class RequestRefused(PluginError):
    """The fault of a call's content; its text reaches the pod's author."""


class InvalidRequest(RequestRefused):
    """No state of this node would make the request right: INVALID_ARGUMENT."""


class NotReady(RequestRefused):
    """The request is right, the node is not ready for it: FAILED_PRECONDITION."""


class NodeError(PluginError):
    """The fault of the node or the kubelet: the resource is started again."""


class HostUnreadable(NodeError):
    """Something other than absence keeps us from looking at the host: a permission, a limit."""


class NoThread(NodeError):
    """Processes have run out: what blocks cannot be called."""


class FeaturesUnwritable(NodeError):
    """The file for Node Feature Discovery cannot be written."""


class ReportTooSlow(NodeError):
    """The host's files cannot be read in time: there is no report."""


class PodResourcesUnknown(NodeError):
    """The kubelet does not tell which pod holds what."""


class KubeletRestarted(NodeError):
    """The kubelet stopped, or is a new one: what was registered is forgotten. Start again at once."""


class PluginSocketGone(NodeError):
    """Somebody deleted or replaced our socket: no new call can reach us."""


class RegistrationFailed(NodeError):
    """The kubelet did not take our registration, or did not open its stream."""


class StreamEnded(NodeError):
    """The kubelet ended the stream while its socket and ours still stand."""


class RegistrationLost(NodeError):
    """The kubelet listens to nobody, or to somebody who has gone, though our stream is open."""


class SocketUnusable(NodeError):
    """Our socket cannot be made: the folder is read-only, missing, or its path too long."""


class AddressUnusable(NodeError):
    """Metrics and probes cannot be served where they should be."""


class StatusUnavailable(PluginError):
    """No daemon tells its status here, or not to this user."""


class FolderDead(PluginError):
    """The kubelet's folder was deleted under our mount: only a new process can reach the new one."""


class StartTooSlow(NodeError):
    """A task of a subtree was not ready in time: the node is overloaded, or a part of it hangs."""


class LibraryUnusable(NodeError):
    """The management library is not there, cannot be loaded, or is another library."""


class LibraryMissing(LibraryUnusable):
    """There is none on the node, which is no fault."""


class LibraryCallFailed(NodeError):
    """A call of the management library failed without which nothing else can be asked."""

    def __init__(self, call: str, code: int, text: str | None) -> None:
        meaning = f"{text} (code {code})" if text else f"code {code}"
        super().__init__(f"{call}: {meaning}; see what `brsmi` says on the node")
        self.code = code
        """What the call returned: a `ReturnCode` of `core/parse/brml`, or another number."""


class CdiFileUnusable(NodeError):
    """The CDI file cannot be written or read, or what stands in its place is none."""


class CdiSpecInvalid(CdiFileUnusable):
    """What the CDI file holds breaks a rule, so that no runtime loads it."""

    def __init__(self, text: str, found: object = None) -> None:
        super().__init__(text)
        self.found = found
        """The part of the document that breaks the rule."""


def reason_of(error: OSError) -> str:
    """`Connection refused`, without the number and the path that its text has besides."""
    return error.strerror or str(error)
