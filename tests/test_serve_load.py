"""``hsd serve`` under hundreds of requests, some of them from bad clients, and under a fuzzer that knows its schema."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openai import AsyncOpenAI
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving import LIMIT, Server, raw_request

MODEL = "embedded:target"
PROMPTS = ["import os\n", "class Stack:\n", "def fibonacci(n):\n", "for i in range(", "from typing import"]
REQUESTS = 200
AT_ONCE = 24
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--batch-size", 4, "--max-new-tokens", 200, fork=True) as running:
        yield running


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": 4, "temperature": 0} | more


class Client:
    """A connection that does as it likes."""

    def __init__(self, server: Server) -> None:
        self._port = server.port

    async def open(self) -> None:
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full
        wire.setblocking(False)
        await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=wire, limit=4096)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        return await self.reader.read(-1)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def proper(client: AsyncOpenAI, number: int) -> str:
    """The text that a request gets, from a stream or whole."""
    prompt = PROMPTS[number % len(PROMPTS)]
    if number % 2:
        return (await client.completions.create(**asked(prompt))).choices[0].text
    stream = await client.completions.create(**asked(prompt), stream=True)
    return "".join([chunk.choices[0].text async for chunk in stream])


async def improper(server: Server, number: int) -> bytes:
    """What the server says to somebody who sends nonsense, or leaves as soon as a text begins."""
    wire = Client(server)
    await wire.open()
    if number % 2:
        wire.send(raw_request("/v1/completions", b'{"model": ', "Connection: close"))
        answer = await wire.rest()
    else:
        body = json.dumps(asked(PROMPTS[0], max_tokens=200, stream=True)).encode()
        wire.send(raw_request("/v1/completions", body))
        answer = await wire.reader.read(15)
    await wire.close()
    return answer


async def under_load(server: Server, expected: dict[str, str]) -> None:
    """While some read nothing and others never finish what they say, all the others get their texts."""
    slow, mute, halting = Client(server), Client(server), Client(server)
    for wire in (slow, mute, halting):
        await wire.open()
    body = json.dumps(asked(PROMPTS[0], max_tokens=200, stream=True)).encode()
    slow.send(raw_request("/v1/completions", body, "Connection: close"))
    halting.send(raw_request("/v1/completions", body[:20], length=len(body)))
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(client: AsyncOpenAI, number: int) -> None:
        async with gate:
            if number % 10 < 8:
                assert await proper(client, number) == expected[PROMPTS[number % len(PROMPTS)]]
            else:
                status = b"400" if number % 2 else b"200"
                assert (await improper(server, number)).startswith(b"HTTP/1.1 " + status)

    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=LIMIT) as client:
        await asyncio.gather(*(one(client, number) for number in range(REQUESTS)))
    answer = await slow.rest()
    assert b"data: [DONE]" in answer
    pieces = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith(b"data: {")]
    assert "".join(chunk["choices"][0]["text"] for chunk in pieces) == expected["long"]
    for wire in (slow, mute, halting):
        await wire.close()


def test_everybody_gets_the_right_text_whatever_others_do(server: Server) -> None:
    expected = {prompt: server.openai.completions.create(**asked(prompt)).choices[0].text for prompt in PROMPTS}
    expected["long"] = server.openai.completions.create(**asked(PROMPTS[0], max_tokens=200)).choices[0].text
    asyncio.run(asyncio.wait_for(under_load(server, expected), LIMIT))
    server.until("hsd_texts_running", 0)
    assert server.metric("hsd_texts_waiting") == 0
    assert server.metric("hsd_texts_total", reason="error") == 0
    assert server.metric("hsd_texts_total", reason="length") >= len(PROMPTS) + 1 + REQUESTS * 0.8
    assert server.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/models/{model}", "/metrics"])
def test_nothing_that_the_schema_allows_or_forbids_is_an_error_of_the_server(server: Server, path: str) -> None:
    """Schemathesis makes requests of the server's own description; half of them are wrong on purpose."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operation = next(found.ok() for found in schema.get_all_operations() if found.ok().path == path)
    statuses = set()

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def run(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict) and case.body.get("model"):
            case.body["model"] = MODEL
            if isinstance(case.body.get("max_tokens"), int):
                case.body["max_tokens"] = min(case.body["max_tokens"], 8)
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    run()
    assert path == "/metrics" or statuses & {400, 404}
    assert path != "/v1/completions" or 200 in statuses


def test_the_server_lives_after_all_that(server: Server) -> None:
    with pytest.raises(openai.NotFoundError):
        server.openai.completions.create(**asked("a") | {"model": "none"})
    assert server.openai.completions.create(**asked(PROMPTS[0])).choices[0].finish_reason == "length"
