"""Bytes on their way to the peer: any task queues them, one task writes them, waiting bounds them."""

import trio

from biren_plugin.wire.unix_grpc.limits import Limits


class Outbox:
    """Bytes queued for `stream`. `put` never waits; a task that may wait awaits `room` first."""

    def __init__(self, stream: trio.abc.Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._queued = bytearray()
        self._in_flight = 0
        self._filled = trio.Event()
        self._written = trio.Event()
        self._closed = False

    @property
    def is_torn(self) -> bool:
        """Whether a write was cut short: nothing valid can follow it."""
        return self._in_flight > 0

    def put(self, data: bytes) -> None:
        """Queue `data`; one write sends everything that is queued."""
        if data:
            self._queued += data
            self._filled.set()

    def take(self) -> bytes:
        """Remove and return the queued bytes, for a caller that writes them instead of `run`."""
        data, self._queued = bytes(self._queued), bytearray()
        return data

    async def room(self) -> None:
        """Wait while more than `limits.unsent` bytes are unread by the peer."""
        while len(self._queued) + self._in_flight > self._limits.unsent and not self._closed:
            await self._written.wait()

    async def drained(self) -> None:
        """Wait until everything that is queued was written."""
        while (self._queued or self._in_flight) and not self._closed:
            await self._written.wait()

    def close(self) -> None:
        """Stop: nothing more is written, and waiting tasks return."""
        self._closed = True
        self._announce()

    async def run(self) -> None:
        """Write until cancelled.

        Raises `trio.TooSlowError` when the peer leaves a write unread for `limits.unread`, and the
        stream's own errors.
        """
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            data = self.take()
            self._in_flight = len(data)
            with trio.fail_after(self._limits.unread):
                await self._stream.send_all(data)
            self._in_flight = 0
            self._announce()

    def _announce(self) -> None:
        self._written.set()
        self._written = trio.Event()
