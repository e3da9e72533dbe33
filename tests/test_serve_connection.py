"""Connections whose headers never end, or that take nothing of their answer, are closed; what else is slow is not."""

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
LARGE = 1 << 25  # bytes: more than the system takes over from a server
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * ALLOWED)
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def talk(monkeypatch: pytest.MonkeyPatch, what: Talk) -> None:
    """Has ``what`` speak to a server that allows little time."""
    for name in ("HEADER_SECONDS", "STALLED_SECONDS"):
        monkeypatch.setattr(connection, name, ALLOWED)

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


def test_one_that_takes_nothing_of_its_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST.replace(b"/", b"/large", 1))
        await asyncio.sleep(3 * ALLOWED)
        taken = 0
        with suppress(ConnectionError):
            while some := await reader.read(1 << 20):
                taken += len(some)
        assert 0 < taken < LARGE

    talk(monkeypatch, deaf)


def test_one_that_takes_its_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST.replace(b"/", b"/large", 1))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(32):
            await reader.readexactly(LARGE // 32)
            await asyncio.sleep(ALLOWED / 6)

    talk(monkeypatch, slow)
