"""Every bound of the gRPC connections, by name.

Only root can reach the socket, but a peer that hangs or misbehaves must cost no more than this.
"""

from biren_plugin.records import frozen


@frozen
class Limits:
    """What one side allows the other. Sizes are bytes, times are seconds."""

    message_size: int = 1024 * 1024
    """The longest message in either direction; 256 cards make a list of 12 KiB."""
    unread_requests: int = 256
    """Messages of one call that a server has not read yet, however short; the
    windows bound a client's answers."""
    settings: int = 64
    """Different settings that a peer may send; HTTP/2 defines a dozen, h2 keeps every setting that it is sent."""
    calls: int = 256
    """Calls open at once on one connection."""
    connections: int = 32
    """Connections open at once on one socket; the kubelet holds one for each registration."""
    header_list_size: int = 16 * 1024
    """One decoded header list, counted as HTTP/2 does: 32 bytes for each field besides its text."""
    header_table_size: int = 4096
    """Bytes that the compression of our own header lists may remember, whatever the peer allows."""
    frame_size: int = 16 * 1024
    """The longest frame accepted; with CONTINUATION (64 at most in h2) a header block stays in 1 MiB."""
    connection_window: int = 4 * 1024 * 1024
    """Bytes of unread messages on one connection, all calls together."""
    unsent: int = 256 * 1024
    """Bytes that the peer has not read, beyond which calls and the reader of frames wait."""
    handshake: float = 10.0
    """From connecting to the peer's SETTINGS."""
    request: float = 10.0
    """From a call's headers to its whole request."""
    closing: float = 1.0
    """How long our own shutdown waits for the peer to close the connection."""
    answer: float = 30.0
    """From a unary call's whole request to its answer, including the sending."""
    unread: float = 20.0
    """How long a peer may leave a write of ours unread, or a window closed."""


DEFAULT_LIMITS = Limits()
