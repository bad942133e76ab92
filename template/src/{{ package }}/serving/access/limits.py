"""HTTP as uvicorn reads it, with an end to what is read before the application sees a request."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 64 * 1024
"""Bytes of a request beside its body, at most: its path, its headers, what is between chunks."""


class Limited(HttpToolsProtocol):
    """Ends connections that send a path or headers without end, and those that send nothing more.

    A request may take as long to arrive as a connection may be idle.
    """

    _head = 0
    _arrival: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first request as long as for the next one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Counts what came; the callbacks below take off what is a body, which the Edge limits."""
        self._head += len(data)
        super().data_received(data)
        if self._head > HEAD and not self.transport.is_closing():
            self.send_400_response(f"path and headers: more than {HEAD} bytes; send fewer")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing arrives any more."""
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begins to count."""
        self._head = 0
        self._arrived()
        self._arrival = self.loop.call_later(self.timeout_keep_alive, self.transport.close)
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """All of the request is here."""
        self._arrived()
        super().on_message_complete()

    def _arrived(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()

    def on_body(self, body: bytes) -> None:
        """Takes off what is a body."""
        self._head -= len(body)
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        """Takes off what is between chunks."""
        self._head = 0
