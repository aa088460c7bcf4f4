"""Access to the API server: from the files of the pod's service account, or from a kubeconfig.

Blocking: files are read. Tokens expire after an hour and the kubelet renews them in place, so
`load` is called again after `FRESH`, and at once after a refusal; a CA may change the same way.
Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""

import base64
import binascii
import json
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from biren_plugin.core.parse.api_shapes import Shape, shaped
from biren_plugin.errors import ApiUnreachable
from biren_plugin.host.bounded_file import read_bounded
from biren_plugin.records import frozen

FRESH: Final = 60.0
"""Seconds after which credentials are read again, as client-go does."""
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HTTPS: Final = 443
_LONGEST: Final = 1024 * 1024
"""Bytes of a file; a CA bundle has some 200 KiB."""
_NAMED: Final[Shape] = {"name": str, "uid": str}
_CLAIMS: Final[Shape] = {
    "kubernetes.io": {
        "namespace": str, "node": _NAMED, "pod": _NAMED, "serviceaccount": {"name": str},
    },
}  # fmt: skip


@frozen
class Access:
    """The API server's address and the client's credentials, at one moment."""

    host: str
    port: int
    tls: ssl.SSLContext
    token: str | None = None
    """A bearer token; None if `tls` has a client certificate."""


Load = Callable[[], Access]
"""Blocking. Raises `ApiUnreachable`."""


class PodCredentials:
    """Reads the service account of this pod. Keeps one TLS context while the CA stays the same."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, files: Path = SERVICE_ACCOUNT
    ) -> None:
        self._environment = environment
        self._files = files
        self._tls: tuple[bytes, ssl.SSLContext] | None = None

    def load(self) -> Access:
        """Return the access by the current files. Raises `ApiUnreachable`."""
        try:
            host = self._environment["KUBERNETES_SERVICE_HOST"]
            port = int(self._environment["KUBERNETES_SERVICE_PORT"])
        except (KeyError, ValueError):
            raise ApiUnreachable(
                "no API server: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; "
                "run in a pod, or give --kubeconfig"
            ) from None
        try:
            authority = _read(self._files / "ca.crt")
            token = _token_of(_read(self._files / "token").decode("ascii"))
        except (OSError, ValueError) as error:
            raise ApiUnreachable(
                f"cannot read the service account in {self._files}: {_reason(error)}; "
                "set automountServiceAccountToken: true"
            ) from error
        return Access(host, port, self._context(authority), token)

    def _context(self, authority: bytes) -> ssl.SSLContext:
        if self._tls is None or self._tls[0] != authority:
            self._tls = authority, context_for(authority, str(self._files / "ca.crt"))
        return self._tls[1]


def context_for(authority: bytes, where: str) -> ssl.SSLContext:
    """Return a context that trusts only `authority` (PEM). Raises `ApiUnreachable`."""
    try:
        return ssl.create_default_context(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ApiUnreachable(f"{where} is not a certificate authority: {_reason(error)}") from error


def load_kubeconfig(path: Path) -> Access:
    """Return the access of a kubeconfig's current context. Raises `ApiUnreachable`."""
    try:
        text = _read(path).decode()
        document = json.loads(text) if text.startswith("{") else _parse_yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ApiUnreachable(f"cannot use the kubeconfig {path}: {_reason(error)}") from error
    try:
        return _access(document, path)
    except (OSError, ssl.SSLError, binascii.Error) as error:
        raise ApiUnreachable(f"cannot use the kubeconfig {path}: {_reason(error)}") from error
    except (
        KeyError, StopIteration, TypeError, AttributeError, ValueError,
    ) as error:  # fmt: skip
        raise ApiUnreachable(
            f"the kubeconfig {path} has no usable current context: {_reason(error)}"
        ) from error


def _parse_yaml(text: str) -> Any:
    from ruamel.yaml import YAML  # imports 60 modules, which a kubeconfig in JSON does not need
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error


def load_from(kubeconfig: Path | None) -> Load:
    """What reads a kubeconfig, or without one the service account of this pod."""
    return PodCredentials().load if kubeconfig is None else partial(load_kubeconfig, kubeconfig)


def _access(document: Any, path: Path) -> Access:
    context = _named(document, "contexts", document["current-context"])["context"]
    cluster = _named(document, "clusters", context["cluster"])["cluster"]
    user = _named(document, "users", context["user"])["user"]
    server = urlsplit(cluster["server"])
    if server.scheme != "https" or not server.hostname:
        raise ValueError(f"its server is {cluster['server']!r}; give an https address")
    authority = _data(cluster, "certificate-authority", path)
    tls = ssl.create_default_context() if authority is None else context_for(authority, str(path))
    certificate, key = (_data(user, f"client-{each}", path) for each in ("certificate", "key"))
    if certificate is not None and key is not None:
        with tempfile.NamedTemporaryFile() as file:  # 0600; ssl reads files only
            file.write(certificate + b"\n" + key)
            file.flush()
            # Without a password an encrypted key would ask for one on the terminal.
            tls.load_cert_chain(file.name, password="")
    token = user.get("token")
    if token is None and "tokenFile" in user:
        token = _read(path.parent.joinpath(user["tokenFile"])).decode()
    if token is not None:
        token = _token_of(token)
    elif certificate is None or key is None:
        raise ValueError(
            "its user has neither a token nor a client certificate with its key; other ways to "
            "authenticate, such as exec, are not supported"
        )
    return Access(server.hostname, server.port or _HTTPS, tls, token)


def _named(document: Any, kind: str, name: str) -> Any:
    return next(each for each in document[kind] if each["name"] == name)


def _data(section: Any, key: str, path: Path) -> bytes | None:
    """Return a file's content, embedded in the kubeconfig or from its path."""
    if f"{key}-data" in section:
        return base64.b64decode(section[f"{key}-data"])
    if key in section:
        return _read(path.parent.joinpath(section[key]))
    return None


def _read(path: Path) -> bytes:
    """Return the content of a small file. Raises `OSError`, and `ValueError` if it is a large one."""
    content = read_bounded(path, _LONGEST)
    if len(content) > _LONGEST:
        raise ValueError(f"{path} has more than {_LONGEST} bytes")
    return content


def _token_of(text: object) -> str:
    """Return a token as a header may have it. Raises `ValueError`."""
    token = text.strip() if isinstance(text, str) else ""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is not ASCII text of one word")
    return token


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


@frozen
class WhoAmI:
    """The place of a pod according to its own token."""

    node: str
    node_uid: str
    pod: str
    pod_uid: str
    namespace: str
    account: str


def who_am_i(token: str) -> WhoAmI:
    """Read a projected service account token; the API server checks its signature.

    Since Kubernetes 1.30 the token names the node. Raises `ApiUnreachable`.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        about = shaped(claims, _CLAIMS, "a token")["kubernetes.io"]
        return WhoAmI(
            node=about["node"]["name"],
            node_uid=about["node"]["uid"],
            pod=about["pod"]["name"],
            pod_uid=about["pod"]["uid"],
            namespace=about["namespace"],
            account=about["serviceaccount"]["name"],
        )
    except (IndexError, ValueError, RecursionError, ApiUnreachable) as error:
        raise ApiUnreachable(
            "the service account's token does not name its pod and node; "
            "use the projected token of a pod, Kubernetes 1.30 or newer"
        ) from error
