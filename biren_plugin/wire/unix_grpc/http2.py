"""Sets up h2 within our limits."""

from typing import Final

import h2.config
import h2.connection
import h2.settings

from biren_plugin.wire.unix_grpc.limits import Limits

_CLOSED_STREAMS_REMEMBERED: Final = 1024


class H2Connection(h2.connection.H2Connection):  # type: ignore[misc]  # h2 3.2 has no types
    """One end of an HTTP/2 connection, without I/O."""

    # h2 remembers 65,536 closed streams, 6 MiB, on a connection that lives for months.
    MAX_CLOSED_STREAMS = _CLOSED_STREAMS_REMEMBERED


def new_h2(limits: Limits, *, client_side: bool) -> H2Connection:
    """Return a connection whose opening frames are ready to be sent."""
    codes = h2.settings.SettingCodes
    connection = H2Connection(
        h2.config.H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_inbound_headers=False,  # `headers` checks them for each call
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    # h2 has no public way to choose the settings of the first SETTINGS frame.
    connection.local_settings = h2.settings.Settings(
        client=client_side,
        initial_values={
            codes.MAX_CONCURRENT_STREAMS: limits.calls,
            # One message with its 5-byte prefix always fits, so that a message arrives whole even
            # while no task reads.
            codes.INITIAL_WINDOW_SIZE: limits.message_size + 5,
            codes.MAX_FRAME_SIZE: limits.frame_size,
            codes.MAX_HEADER_LIST_SIZE: limits.header_list_size,
            codes.ENABLE_PUSH: 0,
        },
    )
    connection.decoder.max_header_list_size = limits.header_list_size
    connection.initiate_connection()
    connection.increment_flow_control_window(limits.connection_window - 65_535)
    return connection


def bound_header_table(connection: H2Connection, limits: Limits) -> None:
    """Bound our header table after the peer's SETTINGS, which allow any size; the table would stay full."""
    table = min(connection.encoder.header_table_size, limits.header_table_size)
    connection.encoder.header_table_size = table
    changes = connection.encoder.table_size_changes
    if len(changes) > 2:  # hpack would write every change; RFC 7541, 4.2: the smallest and the last
        changes[:] = [min(changes), changes[-1]]
