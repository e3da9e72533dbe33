"""JSONL records: what each line asks for, or why it cannot be served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from hsd_cli.decoding.settings import SAMPLING, VERIFICATIONS, SamplingSettings
from hsd_cli.drafting.names import ALGORITHM_NAMES
from hsd_cli.engine import Request
from hsd_cli.errors import UsageError

RecordId = str | int
SEED_BITS = 32
MOST = (1 << 63) - 1  # what tensors can count with
FIXING_THE_TEXT = ("prompt", "system", "chat", "max_new_tokens", "verification", "seed", "stops")
OTHERS = ("system", "chat", "algorithm", "lookahead", "max_new_tokens", "verification")


@dataclass(frozen=True)
class Record:
    """One text to write, with its own seed. ``fingerprint`` tells whether a result is of the same request."""

    line: int
    id: RecordId
    request: Request
    fingerprint: str


class Outcome:
    """What becomes of a record; its fields are what the line of results says."""

    def json(self) -> str:
        """One object on one line, in ASCII alone, which no terminal obeys and every encoding has."""
        return json.dumps(vars(self)) + "\n"


@dataclass(frozen=True)
class Failure(Outcome):
    """Why a record has no text, as it stands among the results. ``id`` is the record's, if it could be read."""

    id: RecordId | None
    line: int
    error: str


class _BadRecordError(Exception):
    """What is wrong with a record, in one line."""


def read_records(lines: Iterable[bytes], base: Request, run_seed: int, target: str) -> Iterator[Record | Failure]:
    """A record for each line that is not blank; what it does not say itself is as in ``base``. A ``null`` says nothing.

    Without an ``id`` the line's number (from 1) is one. Of equal ids only the first counts.
    """
    seen: set[RecordId] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name: RecordId | None = None
        try:
            fields = _fields(line, first=number == 1)
            name = _id(fields, number)
            if name in seen:
                raise _BadRecordError(f"the id {json.dumps(name)} was there before; ids must differ")
            seen.add(name)
            request = _request(fields, base)
            if request.seed is None:
                request = replace(request, seed=derived_seed(run_seed, name))
            yield Record(number, name, request, fingerprint(request, target))
        except _BadRecordError as bad:
            yield Failure(name, number, str(bad))


def derived_seed(run_seed: int, name: RecordId) -> int:
    """The seed of the text called ``name``: independent of every other's, and of the order of writing."""
    digest = hashlib.sha256(json.dumps([run_seed, name]).encode()).digest()
    return int.from_bytes(digest[: SEED_BITS // 8], "big")


def fingerprint(request: Request, target: str) -> str:
    """Of all that a text depends on. How it is drafted changes nothing but the time that it takes, except that under
    `rejection` it decides which of the possible texts it is."""
    names = [*FIXING_THE_TEXT, *(("algorithm", "lookahead") if request.verification == "rejection" else ())]
    asked = {name: getattr(request, name) for name in names} | asdict(request.sampling)
    return hashlib.sha256(json.dumps([asked, target], sort_keys=True).encode()).hexdigest()[:16]


def _fields(line: bytes, first: bool) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
        fields = json.loads(text.rstrip())
    except UnicodeDecodeError as error:
        raise _BadRecordError(f"not UTF-8: byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise _BadRecordError(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise _BadRecordError("not JSON that can be read: a number is too long, or it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise _BadRecordError('not an object such as {"prompt": "..."}')
    return {key: value for key, value in fields.items() if value is not None}


def _id(fields: Mapping[str, Any], number: int) -> RecordId:
    name = fields.get("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise _BadRecordError("id must be a string or a whole number")
    return name


def _request(fields: Mapping[str, Any], base: Request) -> Request:
    for key, value in fields.items():
        if key not in KINDS:
            raise _BadRecordError(f"unknown key {json.dumps(key)}; {_nearest(key)}")
        holds, kind = KINDS[key]
        if not holds(value):
            raise _BadRecordError(f"{key} must be {kind}")
    if ("prompt" in fields) == ("messages" in fields):
        raise _BadRecordError("needs a prompt or messages" + (", not both" if "prompt" in fields else ""))
    stops = fields.get("stop", base.stops)
    return replace(
        base,
        **{key: fields[key] for key in OTHERS if key in fields} | _conversation(fields, base),
        sampling=_sampling(fields, base.sampling),
        stops=(stops,) if isinstance(stops, str) else tuple(stops),
        seed=fields.get("seed"),
    )


def _conversation(fields: Mapping[str, Any], base: Request) -> dict[str, Any]:
    """The prompt, and what follows from it: the run's system message is for records that can take one."""
    chat, system = fields.get("chat", base.chat), fields.get("system", base.system)
    if "prompt" in fields:
        if chat is False and "system" in fields:
            raise _BadRecordError("system is part of a chat, and chat is false")
        return {"prompt": fields["prompt"], "system": None if chat is False else system}
    if fields.get("chat") is False:
        raise _BadRecordError("messages are a chat, and chat is false")
    if any(message["role"] == "system" for message in fields["messages"]):
        if "system" in fields:
            raise _BadRecordError("messages have a system message of their own; leave system out")
        system = None
    return {"prompt": fields["messages"], "system": system, "chat": True}


def _sampling(fields: Mapping[str, Any], base: SamplingSettings) -> SamplingSettings:
    try:
        return replace(base, **{key: fields[key] for key in SAMPLING if key in fields})
    except UsageError as error:
        option, _, rest = str(error).partition(" ")
        raise _BadRecordError(f"{option.removeprefix('--').replace('-', '_')} {rest}") from None


def _nearest(key: str) -> str:
    near = get_close_matches(key, KINDS, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(KINDS)}"


def _is_text(value: Any) -> bool:
    """JSON can spell halves of characters, which no tokenizer takes."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MOST <= value <= MOST


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and _is_text(value["role"])
        and (value["content"] == "" or _is_text(value["content"]))
    )


def _is_seed(value: Any) -> bool:
    return _is_whole(value) and 0 <= value < 1 << SEED_BITS


def _from_one(value: Any) -> bool:
    return _is_whole(value) and value >= 1


TEXT = (_is_text, "a string of whole characters that is not empty")
NUMBER = (_is_number, "a number")
ONE_OR_MORE = (_from_one, "a whole number from 1")
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (lambda value: True, ""),
    "prompt": TEXT,
    "messages": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_message, value)),
        'a list of {"role": "user", "content": "..."}',
    ),
    "system": TEXT,
    "chat": (lambda value: isinstance(value, bool), "true or false"),
    "seed": (_is_seed, f"a whole number from 0 to 2^{SEED_BITS} - 1"),
    "temperature": NUMBER,
    "top_k": (_is_whole, "a whole number"),
    "top_p": NUMBER,
    "min_p": NUMBER,
    "repetition_penalty": NUMBER,
    "max_new_tokens": ONE_OR_MORE,
    "stop": (
        lambda value: _is_text(value) or (isinstance(value, list) and all(map(_is_text, value))),
        "a string or a list of strings, none of them empty",
    ),
    "algorithm": (lambda value: value in ALGORITHM_NAMES, f"one of {', '.join(ALGORITHM_NAMES)}"),
    "lookahead": ONE_OR_MORE,
    "verification": (lambda value: value in VERIFICATIONS, " or ".join(VERIFICATIONS)),
}  # fmt: skip
