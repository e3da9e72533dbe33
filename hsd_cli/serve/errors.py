"""Errors in the form that OpenAI's clients know: a status and ``{"error": {...}}``."""

from __future__ import annotations

from json import dumps
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from hsd_cli.engine import PromptTooLongError
from hsd_cli.errors import HsdError, OutOfMemoryError, UsageError
from hsd_cli.serve.worker import BusyError
from hsd_cli.vocab.vocabulary import NoRowError

KINDS = {401: "authentication_error", 429: "rate_limit_error"}
RETRY_AFTER = "1"  # seconds


class Reason(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """What the body of an error is."""

    error: Reason


class ApiError(Exception):
    """A request that is not served. ``param`` is what is wrong with it, ``code`` a word for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return Failure(error=Reason(message=str(self), type=kind, param=self.param, code=self.code)).model_dump()

    @property
    def response(self) -> Response:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": RETRY_AFTER}}.get(self.status)
        # In ASCII: what it quotes may be no text that can be sent.
        return Response(dumps(self.body), self.status, headers, "application/json")


def explained(error: Exception) -> ApiError:
    """Why a text was not written, or not to its end. What is not for users to understand is not told."""
    if isinstance(error, BusyError):
        return ApiError(429, str(error), code="queue_full")
    if isinstance(error, PromptTooLongError):
        return ApiError(400, str(error), code="context_length_exceeded")
    if isinstance(error, UsageError | NoRowError):
        return ApiError(400, str(error))
    if isinstance(error, OutOfMemoryError):  # others may leave some
        return ApiError(503, str(error))
    return ApiError(500, str(error) if isinstance(error, HsdError) else "the text could not be written; see the log")
