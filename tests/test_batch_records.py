"""What the lines of a batch ask for, and what is wrong with those that ask for nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.batch.records import Failure, Record, derived_seed, read_records
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.engine import Request

BASE = Request(
    prompt="", max_new_tokens=7, sampling=SamplingSettings(0.5, top_k=9), stops=("end",), algorithm="slem", lookahead=3
)


def read(*lines: object, base: Request = BASE, run_seed: int = 1, target: str = "model") -> list[Record | Failure]:
    """Records from lines: bytes as they are, anything else as JSON."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return list(read_records([line + b"\n" for line in encoded], base, run_seed, target))


def request(fields: dict[str, Any], base: Request = BASE) -> Request:
    (record,) = read(fields, base=base)
    assert isinstance(record, Record), record
    return record.request


def error(line: object, base: Request = BASE) -> str:
    (record,) = read(line, base=base)
    assert isinstance(record, Failure)
    return record.error


# What they ask for


def test_what_a_record_does_not_say_is_as_for_the_whole_run() -> None:
    asked = request({"prompt": "x"})
    assert asked == Request(
        prompt="x",
        max_new_tokens=7,
        sampling=SamplingSettings(0.5, top_k=9),
        stops=("end",),
        algorithm="slem",
        lookahead=3,
        seed=derived_seed(1, 1),
    )
    assert request({"prompt": "x", "seed": None, "top_k": None, "system": None}) == asked  # null says nothing


def test_a_record_has_its_own_settings() -> None:
    fields = {
        "id": "a",
        "prompt": "x",
        "system": "s",
        "chat": True,
        "seed": 5,
        "temperature": 1,
        "top_k": 4,
        "top_p": 0.5,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "max_new_tokens": 3,
        "stop": ["a", "b"],
        "algorithm": "tli",
        "lookahead": 2,
        "verification": "rejection",
    }
    assert request(fields) == Request(
        prompt="x",
        system="s",
        chat=True,
        algorithm="tli",
        lookahead=2,
        max_new_tokens=3,
        sampling=SamplingSettings(1, 4, 0.5, 0.25, 1.5),
        verification="rejection",
        seed=5,
        stops=("a", "b"),
    )
    assert request({"prompt": "x", "stop": "a"}).stops == ("a",)
    assert request({"prompt": "x", "stop": []}).stops == ()


def test_messages_are_a_chat_and_take_the_runs_system_message_only_if_they_have_none() -> None:
    user = {"role": "user", "content": "hello"}
    own = {"role": "system", "content": "mine"}
    raw, ours = Request(prompt="", chat=False), Request(prompt="", system="ours")
    asked = request({"messages": [user]}, raw)
    assert (asked.prompt, asked.chat, asked.system) == ([user], True, None)
    assert request({"messages": [user]}, ours).system == "ours"
    assert request({"messages": [own, user]}, ours).system is None
    assert request({"messages": [user], "system": "theirs"}, ours).system == "theirs"
    assert request({"prompt": "x", "chat": False}, ours).system is None


def test_ids_are_the_lines_numbers_unless_given_and_blank_lines_count_for_nothing_else() -> None:
    records = read(
        {"prompt": "x"}, b"", b" \t\r", {"prompt": "x", "id": "a"}, {"prompt": "x", "id": 0}, {"prompt": "x"}
    )
    assert [(record.line, record.id) for record in records] == [(1, 1), (4, "a"), (5, 0), (6, 6)]


def test_a_byte_order_mark_and_line_ends_of_other_systems_are_no_error() -> None:
    records = read(b'\xef\xbb\xbf{"prompt": "x"}\r', b'{"prompt": "y"}\r')
    assert [isinstance(record, Record) and record.request.prompt for record in records] == ["x", "y"]


# Seeds


def seeds(records: Iterable[Record | Failure]) -> dict[object, int | None]:
    return {record.id: record.request.seed for record in records if isinstance(record, Record)}


@given(
    st.permutations([{"id": name, "prompt": "the same"} for name in ("a", "b", 1, "1", 2)]), st.integers(0, 2**32 - 1)
)
def test_seeds_depend_on_the_runs_seed_and_the_id_alone(records: list[dict[str, Any]], run_seed: int) -> None:
    found = seeds(read(*records, run_seed=run_seed))
    assert found == {record["id"]: derived_seed(run_seed, record["id"]) for record in records}
    assert len(set(found.values())) == len(records)


def test_a_derived_seed_is_the_same_tomorrow() -> None:
    assert (derived_seed(0, "a"), derived_seed(7, 1)) == (1244231897, 3420106801)


def test_fingerprints_tell_texts_apart_and_nothing_else() -> None:
    def fingerprint(fields: dict[str, Any], **run: Any) -> str:
        (record,) = read({"id": "a", "prompt": "x", **fields}, **run)
        assert isinstance(record, Record)
        return record.fingerprint

    same = fingerprint({})
    for faster in ({"algorithm": "ar"}, {"lookahead": 9}):
        assert fingerprint(faster) == same
    others = [
        fingerprint({"prompt": "y"}),
        fingerprint({"temperature": 1}),
        fingerprint({"seed": 1}),
        fingerprint({"stop": []}),
        fingerprint({"max_new_tokens": 1}),
        fingerprint({}, target="another model"),
        fingerprint({}, run_seed=2),
    ]
    assert len({same, *others}) == 1 + len(others)


# What is wrong

USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "not JSON: Expecting value at column 1"),
        (b'{"prompt": "x"', "not JSON: Expecting ',' delimiter at column 15"),
        (b'{"prompt": "\xff"}', "not UTF-8: byte 13 of the line"),
        (b"[" * 100_000, "not JSON that can be read: a number is too long, or it is nested too deeply"),
        (b"1" * 10_000, "not JSON that can be read: a number is too long, or it is nested too deeply"),
        (["x"], 'not an object such as {"prompt": "..."}'),
        ({}, "needs a prompt or messages"),
        ({"prompt": None}, "needs a prompt or messages"),
        ({"prompt": "x", "messages": [USER]}, "needs a prompt or messages, not both"),
        ({"prompt": "x", "temprature": 1}, 'unknown key "temprature"; did you mean temperature?'),
        ({"prompt": "x", "max_tokens": 1}, 'unknown key "max_tokens"; did you mean max_new_tokens?'),
        ({"prompt": "x", "user\n": 1}, 'unknown key "user\\n"; known are id, prompt, messages, system, chat, seed, '),
        ({"prompt": 3}, "prompt must be a string of whole characters that is not empty"),
        ({"prompt": ""}, "prompt must be a string of whole characters that is not empty"),
        ({"prompt": "\ud800"}, "prompt must be a string of whole characters that is not empty"),
        ({"messages": []}, 'messages must be a list of {"role": "user", "content": "..."}'),
        ({"messages": ["x"]}, 'messages must be a list of {"role": "user", "content": "..."}'),
        ({"messages": [{**USER, "name": "n"}]}, 'messages must be a list of {"role": "user", "content": "..."}'),
        ({"messages": [{"role": "user", "content": "\udfff"}]}, "messages must be a list of "),
        ({"messages": [USER], "chat": False}, "messages are a chat, and chat is false"),
        (
            {"messages": [{"role": "system", "content": "s"}, USER], "system": "t"},
            "messages have a system message of their own; leave system out",
        ),
        ({"prompt": "x", "chat": False, "system": "s"}, "system is part of a chat, and chat is false"),
        ({"prompt": "x", "id": 1.5}, "id must be a string or a whole number"),
        ({"prompt": "x", "id": True}, "id must be a string or a whole number"),
        ({"prompt": "x", "seed": -1}, "seed must be a whole number from 0 to 2^32 - 1"),
        ({"prompt": "x", "seed": 1 << 32}, "seed must be a whole number from 0 to 2^32 - 1"),
        ({"prompt": "x", "seed": True}, "seed must be a whole number from 0 to 2^32 - 1"),
        ({"prompt": "x", "temperature": "1"}, "temperature must be a number"),
        ({"prompt": "x", "temperature": -1}, "temperature must be 0 (greedy) or at least 1e-5, not -1"),
        ({"prompt": "x", "temperature": float("nan")}, "temperature must be 0 (greedy) or at least 1e-5, not nan"),
        ({"prompt": "x", "temperature": 10**400}, "temperature must be a number"),
        ({"prompt": "x", "top_k": 10**30}, "top_k must be a whole number"),
        ({"prompt": "x", "top_p": 2}, "top_p must be above 0 and at most 1 (off), not 2"),
        ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty must be from 1e-5 to 1e5"),
        ({"prompt": "x", "top_k": 1.0}, "top_k must be a whole number"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens must be a whole number from 1"),
        ({"prompt": "x", "lookahead": 0}, "lookahead must be a whole number from 1"),
        ({"prompt": "x", "stop": ""}, "stop must be a string or a list of strings, none of them empty"),
        ({"prompt": "x", "stop": ["a", ""]}, "stop must be a string or a list of strings, none of them empty"),
        ({"prompt": "x", "algorithm": "magic"}, "algorithm must be one of auto, ar, lookup, sd, "),
        ({"prompt": "x", "algorithm": []}, "algorithm must be one of auto, ar, lookup, sd, "),
        ({"prompt": "x", "verification": []}, "verification must be rejection or coupled"),
        ({"prompt": "x", "chat": 1}, "chat must be true or false"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:40],
)
def test_a_bad_record_says_what_is_wrong(line: object, reason: str) -> None:
    found = error(line)
    assert found.startswith(reason)
    assert found.isprintable()


@given(
    st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["id", "prompt", "stop", "seed", "x"]),
        st.none() | st.text() | st.floats() | st.lists(st.integers()),
    )
)
def test_every_line_is_a_record_or_a_failure(line: object) -> None:
    if isinstance(line, bytes):
        line = line.replace(b"\n", b"")
    for record in read(line):
        assert record.line == 1
        assert isinstance(record, Record | Failure)


def test_of_equal_ids_the_first_counts_even_if_nothing_else_is_right_with_it() -> None:
    good = {"prompt": "x", "id": "a"}
    first, second = read(good, good)
    assert isinstance(first, Record)
    assert second == Failure("a", 2, 'the id "a" was there before; ids must differ')
    assert [type(record) for record in read({"id": "a"}, good)] == [Failure, Failure]
    assert [type(record) for record in read({**good, "id": 2}, {"prompt": "y"})] == [Record, Failure]
    assert [type(record) for record in read(b"nonsense", {**good, "id": 1})] == [Failure, Record]


def test_a_failure_has_the_id_if_it_could_be_read() -> None:
    assert [record.id for record in read({"id": "a"}, {"prompt": 1}, b"nonsense", {"id": []})] == ["a", 2, None, None]
