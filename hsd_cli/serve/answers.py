"""Answers in the form of OpenAI's: whole ones, and the chunks of a stream.

Both endpoints give the same in other words. What OpenAI has no word for is under ``hsd``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from time import time
from typing import Any, Protocol

from hsd_cli.decoding.loop import Commit, FinishReason, Piece
from hsd_cli.decoding.sampling import Logprobs
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

    def __init__(self, model: str, vocabulary: Vocabulary, logprobs: int | None) -> None:
        self._vocabulary = vocabulary
        self._logprobs = logprobs
        self._common = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time()), "model": model}
        self._written: dict[int, int] = {}  # characters of each text that has begun

    def _envelope(self, kind: str, choices: list[Json], **more: Any) -> Json:
        return {"object": kind, **self._common, "choices": choices, **more}

    def _choice(self, index: int, finish_reason: FinishReason | None, pieces: Sequence[Piece], **content: Any) -> Json:
        reason = None if finish_reason is None else REASONS[finish_reason]
        at = self._written.get(index, 0)
        logprobs = None
        if self._logprobs is not None:
            logprobs = self._scores([piece for piece in pieces if self._spelled(piece.token)], at)
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

    def _spelled(self, token: int) -> bytes | None:
        """What the token writes: nothing if it ends the text."""
        token_bytes = self._vocabulary.token_bytes
        return token_bytes[token] if token < len(token_bytes) else None

    def _name(self, token: int) -> str:
        """Its text, with escapes for bytes that are no character by themselves; or what it is called."""
        spelled = self._spelled(token)
        if spelled is not None:
            return spelled.decode("utf-8", "backslashreplace")
        return self._vocabulary.name(token) if token < len(self._vocabulary) else ""

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
            "tokens": [self._name(piece.token) for piece in pieces],
            "token_logprobs": [_value(_told(piece).written) for piece in pieces],
            "text_offset": offsets,
            "top_logprobs": [self._likeliest(piece) for piece in pieces] if self._logprobs else None,
        }

    def _likeliest(self, piece: Piece) -> dict[str, float]:
        """With the token that was written, as OpenAI has it. Of tokens with the same text the likeliest one counts."""
        told = _told(piece)
        by_name: dict[str, float] = {}
        for token, logprob in (*told.likeliest, (piece.token, told.written)):
            by_name.setdefault(self._name(token), _value(logprob))
        return by_name


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
        told = _told(piece)
        likeliest = [self._token(token, logprob) for token, logprob in told.likeliest]
        return self._token(piece.token, told.written) | {"top_logprobs": likeliest}

    def _token(self, token: int, logprob: float) -> Json:
        spelled = self._spelled(token)
        return {
            "token": self._name(token),
            "logprob": _value(logprob),
            "bytes": None if spelled is None else list(spelled),
        }


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


def _told(piece: Piece) -> Logprobs:
    assert piece.logprobs is not None, "they were asked for"
    return piece.logprobs


def _value(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
