"""The thread that owns the engine: what it does when texts, engines and clients fail."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import uvicorn

from hsd_cli.batch_engine import BatchEngine, Happening
from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Engine, Request
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.runtime.loading import LoadedModel, load_model
from hsd_cli.serve import connection, guard
from hsd_cli.serve.app import Service, create_app
from hsd_cli.serve.connection import PunctualConnection
from hsd_cli.serve.guard import Guard
from hsd_cli.serve.worker import BusyError, Order, Worker
from hsd_cli.vocab.tokenizer import ModelTokenizer
from tests.serving import raw_request

TEXT = "bcdefghijk"


class Fragile(BatchEngine):
    """Breaks when it is told to."""

    broken: Exception | None = None

    def step(self) -> list[Happening]:
        happened = super().step()
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        return happened


class Workshop:
    """A worker, its engine, and what it said."""

    def __init__(self, model: LoadedModel, drafter_failure: str | None = None, trial: str = "auto") -> None:
        self.said: list[str] = []
        self.engine = Fragile(Engine(model, None, strict=False, drafter_failure=drafter_failure), 2)
        self.request = Request("a", chat=False, algorithm=trial, max_new_tokens=len(TEXT))
        self.worker = Worker(lambda: self.engine, self.request, 1, self.said.append)

    def submit(self, texts: int = 1) -> Order:
        return self.worker.submit([self.request] * texts, lambda: lambda job, event: None)


@pytest.fixture(scope="module")
def model(letters: str) -> LoadedModel:
    return load_model(letters, "cpu", "float32", None, "auto")


@contextmanager
def at_work(workshop: Workshop) -> Iterator[Workshop]:
    workshop.worker.start()
    try:
        workshop.worker.ready.result(60)
        yield workshop
    finally:
        workshop.worker.stop()


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


async def text_of(order: Order) -> str:
    commits: list[Commit] = []
    while not commits or commits[-1].finish_reason is None:
        commits.append((await order.next())[1])
    return "".join(commit.text for commit in commits)


def test_an_engine_that_fails_ends_its_texts_and_goes_on_with_others(model: LoadedModel) -> None:
    async def scene() -> None:
        with at_work(Workshop(model)) as shop:
            shop.engine.broken = RuntimeError("out of luck")
            orders = [shop.submit(), shop.submit()]
            ended = await asyncio.gather(*map(text_of, orders), return_exceptions=True)
            assert [str(error) for error in ended if isinstance(error, RuntimeError)]
            assert await asyncio.gather(*(text_of(shop.submit()) for _ in range(3))) == [TEXT] * 3
            assert (shop.worker.running, shop.worker.waiting, shop.engine.free) == (0, 0, 2)
        assert set(shop.said) == {"a text failed: RuntimeError: out of luck (HSD_DEBUG=1 shows where)"}

    run(scene)


def test_what_waits_too_long_a_line_is_refused_and_what_is_given_up_is_not_written(model: LoadedModel) -> None:
    async def scene() -> None:
        with at_work(Workshop(model)) as shop:
            with shop.worker._changed:  # nobody gets a seat meanwhile
                orders = [shop.submit() for _ in range(3)]
                with pytest.raises(BusyError):
                    shop.submit()
                shop.worker.give_up(orders[0])
                orders.append(shop.submit())
            assert [await text_of(job) for job in orders[1:]] == [TEXT] * 3
            assert orders[0].jobs[0].generation is None
            shop.worker.give_up(orders[1])  # no harm

    run(scene)


def test_of_an_order_all_texts_have_a_place_or_none_has(model: LoadedModel) -> None:
    async def scene() -> None:
        with at_work(Workshop(model)) as shop:
            with shop.worker._changed:
                shop.submit()
                with pytest.raises(BusyError):
                    shop.submit(3)
                assert shop.worker.waiting == 1
                order = shop.submit(2)
            texts = ["", ""]
            while any(len(text) < len(TEXT) for text in texts):
                index, commit = await order.next()
                texts[index] += commit.text
            assert texts == [TEXT] * 2

    run(scene)


def test_a_trial_that_fails_is_what_ready_says(model: LoadedModel) -> None:
    with pytest.raises(UsageError, match="sd needs a drafter"), at_work(Workshop(model, trial="sd")):
        raise AssertionError("it cannot be ready")


def test_a_lost_drafter_is_told_of_once(model: LoadedModel) -> None:
    async def scene() -> None:
        with at_work(Workshop(model, drafter_failure="no such file")) as shop:
            assert [await text_of(shop.submit()) for _ in range(2)] == [TEXT] * 2
        assert shop.said == ["the drafter failed, so that it goes on without: no such file"]

    run(scene)


def test_nobody_waits_for_a_worker_that_has_stopped(model: LoadedModel) -> None:
    async def scene() -> None:
        with at_work(Workshop(model)) as shop:
            with shop.worker._changed:
                order = shop.submit()
                shop.worker._stopping = True
            with pytest.raises(HsdError, match="ending"):
                await text_of(order)
            assert not shop.worker.alive
            with pytest.raises(HsdError, match="ending"):
                shop.submit()

    run(scene)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_fails_tells_its_client_and_no_secrets(model: LoadedModel, stream: bool) -> None:
    async def scene() -> None:
        with at_work(Workshop(model)) as shop:
            service = Service(shop.worker, "letters", ModelTokenizer.of(model), shop.request, 100)
            transport = httpx2.ASGITransport(create_app(service, None))
            asked: dict[str, Any] = {"model": "letters", "prompt": "a", "max_tokens": 60, "temperature": 0}
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                if stream:  # in the middle
                    step = shop.engine.step

                    def breaking() -> list[Happening]:
                        happened = step()
                        shop.engine.broken = OSError("/secret/place")
                        return happened

                    shop.engine.step = breaking  # type: ignore[method-assign]
                else:
                    shop.engine.broken = OSError("/secret/place")
                answer = await client.post("/v1/completions", json=asked | {"stream": stream})
            assert answer.status_code == (200 if stream else 500)
            lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
            assert json.loads(lines[-1])["error"]["message"] == "the text could not be written; see the log"
            assert "secret" not in answer.text
            assert len(lines) == (2 if stream else 1)

    run(scene)


def test_a_client_that_takes_nothing_of_its_stream_frees_its_seat(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.1)

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with at_work(Workshop(model)) as shop, socket.create_server(("127.0.0.1", 0)) as listening:
            app = create_app(Service(shop.worker, "letters", ModelTokenizer.of(model), shop.request, 2000), None)
            config = uvicorn.Config(app, http=PunctualConnection, ws="none", lifespan="off", log_config=None)
            config.load()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full, as what it accepts has it, too
            state = uvicorn.server.ServerState()
            server = await loop.create_server(lambda: PunctualConnection(config, state, {}), sock=listening)
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.setblocking(False)
                await loop.sock_connect(deaf, listening.getsockname())
                asked = {"model": "letters", "prompt": "a", "max_tokens": 2000, "temperature": 0, "stream": True}
                await loop.sock_sendall(deaf, raw_request("/v1/completions", json.dumps(asked).encode()))
                for texts in (1, 0):
                    while shop.worker.running != texts:
                        await asyncio.sleep(0.001)
            server.close()
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
                counted = (await client.get("/metrics")).text
            assert 'hsd_texts_total{reason="gone"} 1.0' in counted
            assert not state.connections

    run(scene)


def test_a_request_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.01)
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def scene() -> None:
        scope = {"type": "http", "path": "/v1/completions", "headers": [(b"host", b"localhost")]}
        await Guard(never, None, lambda path, status: None)(scope, never, send)  # type: ignore[arg-type]

    run(scene)
    assert sent[0]["status"] == 408
