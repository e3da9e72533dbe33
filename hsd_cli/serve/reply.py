"""From a text that is asked for to the response: whole, or a stream of events; over when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from json import dumps
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from hsd_cli.decoding.loop import Commit
from hsd_cli.engine import Request as TextRequest
from hsd_cli.serve.answers import Answer, Json, usage_of
from hsd_cli.serve.errors import explained
from hsd_cli.serve.metrics import Metrics, TextWatch
from hsd_cli.serve.schema import Asked
from hsd_cli.serve.worker import Job, Worker

T = TypeVar("T")
CLIENT_GONE = 499  # nobody gets it; it is in the metrics
DONE = b"data: [DONE]\n\n"


async def reply(
    worker: Worker, metrics: Metrics, request: Request, asked: Asked, text: TextRequest, answer: Answer
) -> Response:
    """What fails before the first text has a status of its own: raises ``ApiError``."""
    job = worker.submit(text, TextWatch(metrics))

    def end() -> None:
        worker.give_up(job)
        if not job.ended:
            metrics.texts.labels("gone").inc()

    try:
        commits = await _unless_gone(request, _commits(job, whole=not asked.stream))
    except BaseException:
        end()
        raise
    if commits is None:
        end()
        return Response(status_code=CLIENT_GONE)
    if asked.stream:
        return _EventStream(_events(job, commits[0], answer, asked.stream_options.include_usage), end)
    return JSONResponse(answer.whole(commits, _usage(job)))


async def _commits(job: Job, whole: bool) -> list[Commit]:
    """All, or the first. Raises ``ApiError``."""
    try:
        commits = [await job.next()]
        while whole and commits[-1].finish_reason is None:
            commits.append(await job.next())
    except Exception as error:
        raise explained(error) from error
    return commits


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


async def _events(job: Job, commit: Commit, answer: Answer, with_usage: bool) -> AsyncIterator[bytes]:
    """A text that fails ends with an event that says why."""
    for chunk in answer.beginning():
        yield _event(chunk)
    while True:
        for chunk in answer.chunk(commit):
            yield _event(chunk)
        if commit.finish_reason is not None:
            break
        try:
            commit = await job.next()
        except Exception as error:
            yield _event(explained(error).body)
            return
    if with_usage:
        yield _event(answer.ending(_usage(job)))
    yield DONE


def _event(data: Json) -> bytes:
    return f"data: {dumps(data)}\n\n".encode()


def _usage(job: Job) -> Json:
    assert job.generation is not None
    return usage_of(job.generation.statistics)
