"""The routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from time import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from hsd_cli import __version__
from hsd_cli.engine import Request as TextRequest
from hsd_cli.errors import HsdError
from hsd_cli.serve.answers import ChatAnswer, CompletionAnswer
from hsd_cli.serve.errors import ApiError, Failure, explained
from hsd_cli.serve.guard import Guard
from hsd_cli.serve.metrics import Metrics
from hsd_cli.serve.reply import reply
from hsd_cli.serve.schema import MOST_LOGPROBS, MOST_TEXTS, Asked, ChatRequest, CompletionRequest
from hsd_cli.serve.worker import Worker
from hsd_cli.vocab.tokenizer import ModelTokenizer

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
PATHS = {*PAGE, "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/completions", "/v1/chat/completions"}
# The page runs its own script and talks to this server, and that is all.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Documented = dict[int | str, dict[str, Any]]
ANSWERS: Documented = {200: {"description": "Whole, or as a stream", "content": {"text/event-stream": {}}}}
ERRORS: Documented = {
    "4XX": {"model": Failure, "description": "Why the request is not served"},
    "5XX": {"model": Failure, "description": "Why the text could not be written"},
}


@dataclass(frozen=True)
class Service:
    """What is served. ``base`` has what requests do not say; none gets more than ``most_tokens``.

    ``model`` is what it is called; ``given``, the name that it was loaded by, is understood as well.
    """

    worker: Worker
    model: str
    tokenizer: ModelTokenizer
    base: TextRequest
    most_tokens: int
    given: str | None = None


def create_app(service: Service, key: str | None) -> FastAPI:
    """The application, behind its guard."""
    metrics = Metrics(service.worker)
    card = _card(service)
    vocabulary = service.tokenizer.vocabulary
    app = FastAPI(title="hsd", version=__version__, docs_url=None, redoc_url=None)

    def count(path: str, status: int) -> None:
        metrics.requests.labels(path if path in PATHS else "other", str(status)).inc()

    app.add_middleware(Guard, key=key, count=count)
    for kind in (ApiError, HsdError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that there is."""
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model:path}", responses=ERRORS)
    async def model_card(model: str) -> dict[str, Any]:
        """What is known of a model."""
        _check_model(service, model)
        return card

    @app.post("/v1/completions", response_model=None, responses=ANSWERS | ERRORS)
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """Goes on with a text."""
        answer = CompletionAnswer(service.model, vocabulary, asked.likeliest)
        return await reply(service.worker, metrics, request, asked, _texts(service, asked, chat=False), answer)

    @app.post("/v1/chat/completions", response_model=None, responses=ANSWERS | ERRORS)
    async def chat_completions(asked: ChatRequest, request: Request) -> Response:
        """Answers a conversation."""
        answer = ChatAnswer(service.model, vocabulary, asked.likeliest)
        return await reply(service.worker, metrics, request, asked, _texts(service, asked, chat=True), answer)

    @app.get("/health")
    async def health() -> Response:
        """Whether texts are written."""
        alive = service.worker.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """For Prometheus."""
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    for path, (name, media) in PAGE.items():
        _add_page(app, path, (files("hsd_cli.serve") / "page" / name).read_bytes(), media)
    return app


def _add_page(app: FastAPI, path: str, content: bytes, media: str) -> None:
    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=media, headers=PAGE_HEADERS)


def _card(service: Service) -> dict[str, Any]:
    about = {"chat": service.tokenizer.has_chat_template, "most_tokens": service.most_tokens}
    return {"id": service.model, "object": "model", "created": int(time()), "owned_by": "hsd", "hsd": about}


def _check_model(service: Service, name: str) -> None:
    if name not in (service.model, service.given):
        message = f"there is no model {name!r}; there is {service.model!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


def _texts(service: Service, asked: Asked, chat: bool) -> list[TextRequest]:
    """What is asked for. Raises ``ApiError``, and ``UsageError`` for sampling that cannot be."""
    _check_model(service, asked.model)
    most = asked.most_tokens(service.most_tokens)
    if most > service.most_tokens:
        message = f"max_tokens is {most}, and this server writes {service.most_tokens} at most"
        raise ApiError(400, message, param="max_tokens")
    count, room = len(asked.prompts) * asked.n, min(MOST_TEXTS, service.worker.room)
    if count > room:
        message = f"these are {count} texts; a request may ask this server for {room}"
        raise ApiError(400, message, param="n")
    logprobs = 0 if asked.likeliest is None else count * most * (1 + asked.likeliest)
    if logprobs > MOST_LOGPROBS:
        message = f"these are up to {logprobs} log-probabilities, and a request may ask for {MOST_LOGPROBS}: "
        raise ApiError(400, f"{message}lower max_tokens, the number of texts or of alternatives", param="logprobs")
    common = replace(
        service.base,
        chat=chat,
        max_new_tokens=most,
        sampling=asked.sampling,
        stops=asked.stops,
        logprobs=asked.likeliest,
        template_kwargs=asked.template_kwargs,
    )
    return [
        replace(common, prompt=prompt, seed=asked.seed_of(choice))
        for prompt in asked.prompts
        for choice in range(asked.n)
    ]


def _refused(request: Request, error: Exception) -> Response:
    """Every error in OpenAI's form."""
    if isinstance(error, ApiError):
        return error.response
    if isinstance(error, RequestValidationError):
        return _blamed(error.errors()).response
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail)).response
    return explained(error).response


def _blamed(errors: Sequence[Any]) -> ApiError:
    """Of several errors the one that knows most of the request: others are of forms that it does not have."""
    worst = max(errors, key=lambda error: (not error["type"].endswith("_type"), len(error["loc"])))
    names = [str(part) for part in worst["loc"][1:] if re.fullmatch(r"\w+", str(part)) and part != "str"]
    param = ".".join(names) or None
    message = worst["msg"]
    if worst["type"] == "json_invalid":
        return ApiError(400, f"the request is not JSON: {worst['ctx']['error']} at character {param}")
    if worst["type"] == "model_attributes_type":
        return ApiError(400, "the body has to be a JSON object, sent with Content-Type: application/json")
    if param is None:  # of the request as a whole; then the message has the name
        return ApiError(400, message, param=worst.get("ctx", {}).get("name"))
    return ApiError(400, f"{param}: {message}", param=param)
