"""From texts that are asked for to the response: whole, or a stream of events; over when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from json import dumps
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Request as TextRequest
from hsd_cli.serve.answers import Answer, Json, usage_of
from hsd_cli.serve.errors import ApiError, explained
from hsd_cli.serve.metrics import Metrics, TextWatch
from hsd_cli.serve.schema import Asked
from hsd_cli.serve.worker import Order, Worker

T = TypeVar("T")
CLIENT_GONE = 499  # nobody gets it; it is in the metrics
DONE = b"data: [DONE]\n\n"


async def reply(
    worker: Worker, metrics: Metrics, request: Request, asked: Asked, texts: Sequence[TextRequest], answer: Answer
) -> Response:
    """What fails before the first text has a status of its own: raises ``ApiError``."""
    order = worker.submit(texts, lambda: TextWatch(metrics))

    def end() -> None:
        worker.give_up(order)
        reason = "sibling_error" if any(job.failed for job in order.jobs) else "gone"
        metrics.texts.labels(reason).inc(sum(not job.ended for job in order.jobs))

    try:
        if asked.stream:
            first = await _unless_gone(request, _next(order))
            if first is not None:
                return _EventStream(_events(order, asked, first, answer), end)
        else:
            commits = await _unless_gone(request, _all(order))
            if commits is not None:
                return JSONResponse(answer.whole(commits, _usage(order, asked)))
    except BaseException:
        end()
        raise
    end()
    return Response(status_code=CLIENT_GONE)


async def _next(order: Order) -> tuple[int, Commit]:
    """Raises ``ApiError``."""
    try:
        return await order.next()
    except Exception as error:
        raise explained(error) from error


async def _all(order: Order) -> list[list[Commit]]:
    """The iterations of each text. Raises ``ApiError``."""
    texts: list[list[Commit]] = [[] for _ in order.jobs]
    unfinished = len(texts)
    while unfinished:
        index, commit = await _next(order)
        texts[index].append(commit)
        unfinished -= commit.finish_reason is not None
    return texts


async def _unless_gone(request: Request, result: Coroutine[Any, Any, T]) -> T | None:
    """``None`` if the client goes away before ``result`` is there."""
    wanted = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((wanted, gone), return_when=asyncio.FIRST_COMPLETED)
        return wanted.result() if wanted.done() else None
    finally:
        wanted.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _EventStream(StreamingResponse):
    """Server-sent events. ``end`` is called when all are sent, or the client has gone away."""

    def __init__(self, events: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _events(order: Order, asked: Asked, first: tuple[int, Commit], answer: Answer) -> AsyncIterator[bytes]:
    """Iterations of all texts as they come. A text that fails ends them with an event that says why."""
    index, commit = first
    unfinished = len(order.jobs)
    while True:
        for chunk in answer.chunk(index, commit):
            yield _event(chunk)
        unfinished -= commit.finish_reason is not None
        if not unfinished:
            break
        try:
            index, commit = await _next(order)
        except ApiError as error:
            yield _event(error.body)
            return
    if asked.stream_options.include_usage:
        yield _event(answer.ending(_usage(order, asked)))
    yield DONE


def _event(data: Json) -> bytes:
    return f"data: {dumps(data)}\n\n".encode()


def _usage(order: Order, asked: Asked) -> Json:
    return usage_of([job.generation.statistics for job in order.jobs if job.generation is not None], asked.n)
