"""Connections whose headers never end are closed; whatever else takes its time is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from hsd_cli.serve import connection
from hsd_cli.serve.connection import PunctualConnection

ALLOWED = 0.3  # seconds
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * ALLOWED)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def talk(monkeypatch: pytest.MonkeyPatch, what: Talk) -> None:
    """Has ``what`` speak to a server that allows little time."""
    monkeypatch.setattr(connection, "HEADER_SECONDS", ALLOWED)

    async def both() -> None:
        config = uvicorn.Config(app, http=PunctualConnection, lifespan="off", log_config=None)  # type: ignore[arg-type]
        state = uvicorn.server.ServerState()
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: PunctualConnection(config, state, {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await asyncio.wait_for(what(reader, writer), 20)
        writer.close()
        server.close()

    asyncio.run(both())


def test_one_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    talk(monkeypatch, mute)


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["new", "reused"])
def test_one_that_never_ends_its_headers_is_closed(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if before:
            writer.write(before)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(REQUEST[:-2] + b"X: ")
        with suppress(ConnectionError):  # which is another way to be told
            while not reader.at_eof():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(ALLOWED / 20)

    talk(monkeypatch, drip)


@pytest.mark.parametrize("path", [b"/", b"/slow"])
def test_an_answer_and_the_pause_before_the_next_request_may_take_longer(
    monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(REQUEST.replace(b"/", path, 1))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * ALLOWED)

    talk(monkeypatch, patient)
