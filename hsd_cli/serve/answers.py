"""Answers in the form of OpenAI's: whole ones, and the chunks of a stream.

Both endpoints give the same in other words. What OpenAI has no word for is under ``hsd``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from time import time
from typing import Any, Protocol

from hsd_cli.decoding.loop import Commit, FinishReason, Piece
from hsd_cli.decoding.statistics import Statistics
from hsd_cli.vocab.vocabulary import Vocabulary

REASONS: dict[FinishReason, str] = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}
LEAST_LOGPROB = -9999.0  # JSON knows no infinity
Json = dict[str, Any]


class Answer(Protocol):
    """The answer of one endpoint, as it grows: one text or several, each with its index."""

    def whole(self, texts: Sequence[Sequence[Commit]], usage: Json) -> Json:
        """All of it at once."""

    def chunk(self, index: int, commit: Commit) -> list[Json]:
        """The chunks of one iteration of a text."""

    def ending(self, usage: Json) -> Json:
        """The chunk that says what it took."""


class _Answer:
    kind: str
    chunk_kind: str
    prefix: str

    def __init__(self, model: str, vocabulary: Vocabulary, logprobs: bool) -> None:
        self._vocabulary = vocabulary
        self._logprobs = logprobs
        self._common = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time()), "model": model}
        self._written: dict[int, int] = {}  # characters of each text that has begun

    def _envelope(self, kind: str, choices: list[Json], **more: Any) -> Json:
        return {"object": kind, **self._common, "choices": choices, **more}

    def _choice(self, index: int, finish_reason: FinishReason | None, pieces: Sequence[Piece], **content: Any) -> Json:
        reason = None if finish_reason is None else REASONS[finish_reason]
        at = self._written.get(index, 0)
        logprobs = self._scores([piece for piece in pieces if self._spelled(piece)], at) if self._logprobs else None
        self._written[index] = at + sum(len(piece.text) for piece in pieces)
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def whole(self, texts: Sequence[Sequence[Commit]], usage: Json) -> Json:
        choices = [
            self._choice(index, commits[-1].finish_reason, _pieces(commits), **self._content(_text(commits)))
            for index, commits in enumerate(texts)
        ]
        return self._envelope(self.kind, choices, usage=usage)

    def _content(self, text: str) -> Json:
        raise NotImplementedError

    def _spelled(self, piece: Piece) -> bytes | None:
        """What the token writes: nothing if it ends the text."""
        token_bytes = self._vocabulary.token_bytes
        return token_bytes[piece.token] if piece.token < len(token_bytes) else None

    def _name(self, piece: Piece) -> str:
        return (self._spelled(piece) or b"").decode("utf-8", "replace")

    def _scores(self, pieces: Sequence[Piece], at: int) -> Json:
        raise NotImplementedError

    def ending(self, usage: Json) -> Json:
        return self._envelope(self.chunk_kind, [], usage=usage)


class CompletionAnswer(_Answer):
    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def chunk(self, index: int, commit: Commit) -> list[Json]:
        choice = self._choice(index, commit.finish_reason, commit.pieces, text=commit.text)
        return [self._envelope(self.kind, [choice], hsd=_origins(commit))]

    def _content(self, text: str) -> Json:
        return {"text": text}

    def _scores(self, pieces: Sequence[Piece], at: int) -> Json:
        offsets = []
        for piece in pieces:
            offsets.append(at)
            at += len(piece.text)
        return {
            "tokens": [self._name(piece) for piece in pieces],
            "token_logprobs": [_logprob(piece) for piece in pieces],
            "text_offset": offsets,
            "top_logprobs": None,
        }


class ChatAnswer(_Answer):
    kind, chunk_kind = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def chunk(self, index: int, commit: Commit) -> list[Json]:
        chunks = []
        if index not in self._written:
            chunks = [self._part(index, None, (), {"role": "assistant", "content": ""})]
        chunks.append(self._part(index, None, commit.pieces, {"content": commit.text}, hsd=_origins(commit)))
        if commit.finish_reason is not None:
            chunks.append(self._part(index, commit.finish_reason, (), {}))
        return chunks

    def _part(
        self, index: int, finish_reason: FinishReason | None, pieces: Sequence[Piece], delta: Json, **more: Any
    ) -> Json:
        return self._envelope(self.chunk_kind, [self._choice(index, finish_reason, pieces, delta=delta)], **more)

    def _content(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _scores(self, pieces: Sequence[Piece], at: int) -> Json:
        return {"content": [self._score(piece) for piece in pieces], "refusal": None}

    def _score(self, piece: Piece) -> Json:
        spelled = list(self._spelled(piece) or b"")
        return {"token": self._name(piece), "logprob": _logprob(piece), "bytes": spelled, "top_logprobs": []}


def usage_of(texts: Sequence[Statistics], choices: int) -> Json:
    """What ``texts`` took, ``choices`` of each prompt: those count once."""
    read = sum(text.prompt_tokens for text in texts[::choices])
    written = sum(text.tokens for text in texts)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(text.cached_prompt_tokens for text in texts[::choices])},
        "hsd": {
            "drafted_tokens": sum(text.drafted for text in texts),
            "accepted_tokens": sum(text.accepted for text in texts),
            "target_passes": sum(text.iterations for text in texts),
        },
    }


def _origins(commit: Commit) -> Json:
    """Where the text of an iteration comes from: pieces with whether they were drafted."""
    pieces = [[piece.text, piece.drafted] for piece in commit.pieces] + ([[commit.tail, False]] if commit.tail else [])
    return {
        "pieces": pieces,
        "tokens": len(commit.pieces),
        "algorithm": commit.algorithm,
        "drafted": commit.drafted,
        "accepted": commit.accepted,
    }


def _text(commits: Sequence[Commit]) -> str:
    return "".join(commit.text for commit in commits)


def _pieces(commits: Sequence[Commit]) -> list[Piece]:
    return [piece for commit in commits for piece in commit.pieces]


def _logprob(piece: Piece) -> float:
    assert piece.logprob is not None, "they were asked for"
    return max(piece.logprob, LEAST_LOGPROB)
