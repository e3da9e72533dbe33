"""What is settled before a request is looked at: who asks, from where, and how much it is."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hsd_cli.serve.errors import ApiError

MOST_BYTES = 4 << 20  # of a body
BODY_SECONDS = 30.0  # until it has to be there
OPEN = ("/", "/page.js", "/page.css", "/health")  # nothing there is worth a key
Count = Callable[[str, int], None]  # of a path and a status


class Guard:
    """Wraps an application. With a key only those who know it get past the page and the health check.

    Without one the server is for this machine alone. A browser on it may be made to call it by a name of somebody
    else's (DNS rebinding), or on behalf of somebody else's page; so requests have to be addressed to this machine, and
    come from no page but its own.
    """

    def __init__(self, app: ASGIApp, key: str | None, count: Count) -> None:
        self._app = app
        self._key = key
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(path, message["status"])
            await send(message)

        try:
            self._admit(path, Headers(scope=scope))
            receive = _once(await _body(Headers(scope=scope), receive), receive)
        except ApiError as error:
            await error.response(scope, receive, counted)
            return
        try:
            await self._app(scope, receive, counted)
        except Exception:  # answered further out
            self._count(path, 500)
            raise

    def _admit(self, path: str, headers: Headers) -> None:
        if self._key is None:
            if not _is_this_machine(headers.get("host", "")):
                raise ApiError(403, "requests have to be addressed to localhost; others need a server with --api-key")
            if _is_of_another_page(headers):
                raise ApiError(403, "pages of other origins are not served; they need a server with --api-key")
        elif path not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.encode()):
                raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")


def _is_this_machine(host: str) -> bool:
    """Of a ``Host`` header, maybe with a port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_of_another_page(headers: Headers) -> bool:
    """Browsers say from where they post; programs need not."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


async def _body(headers: Headers, receive: Receive) -> bytes:
    """Raises ``ApiError`` for one that is too long, or too long in coming."""
    if int(headers.get("content-length", 0)) > MOST_BYTES:
        raise _too_large()
    try:
        return await asyncio.wait_for(_read(receive), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the request was not there after {BODY_SECONDS:.0f} seconds") from None


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise _too_large()
        if not message.get("more_body"):  # or the client has gone away
            return bytes(body)


def _too_large() -> ApiError:
    return ApiError(413, f"the request has more than {MOST_BYTES} bytes", code="request_too_large")


def _once(body: bytes, receive: Receive) -> Receive:
    """Gives ``body``, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed
