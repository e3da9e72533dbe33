"""Streamed text: whole characters only, stop strings exact even across token edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsd_cli.decoding.text import TextStream
from tests.tiny import vocabulary

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
BYTE_VOCABULARY = vocabulary(BYTES)


def streamed(data: bytes, **options: object) -> tuple[list[str], str, TextStream]:
    """Pushes ``data`` byte by byte; the text after each byte, the tail, and the stream."""
    stream = TextStream(BYTE_VOCABULARY, **options)  # type: ignore[arg-type]
    return [stream.push(1 + byte) for byte in data], stream.finish(), stream


@given(st.text())
def test_the_pieces_add_up_to_the_text(text: str) -> None:
    pieces, tail, _ = streamed(text.encode())
    assert "".join(pieces) + tail == text


@given(st.binary())
def test_broken_utf8_is_replaced_as_python_does(data: bytes) -> None:
    pieces, tail, _ = streamed(data)
    assert "".join(pieces) + tail == data.decode(errors="replace")


def test_no_half_character_is_ever_released() -> None:
    pieces, _, _ = streamed("é😀".encode())
    assert pieces == ["", "é", "", "", "", "😀"]


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    pieces, tail, stream = streamed(text.encode(), stops=stops)
    ends = [prefix for prefix in (text[:n] for n in range(len(text) + 1)) if any(s in prefix for s in stops)]
    if not ends:
        assert "".join(pieces) + tail == text
    else:
        # The shortest text that holds a stop string decides, and of the stops in it the one that begins first.
        cut = min(at for stop in stops if (at := ends[0].find(stop)) >= 0)
        assert "".join(pieces) + tail == text[:cut]
    assert stream.stopped == bool(ends)


def test_text_that_may_begin_a_stop_string_waits() -> None:
    stream = TextStream(BYTE_VOCABULARY, stops=["END"])
    assert [stream.push(1 + byte) for byte in b"xENxE"] == ["x", "", "", "ENx", ""]
    assert stream.finish() == "E"


@pytest.mark.parametrize(("drop", "text"), [(True, "hi"), (False, " hi")])
def test_the_tokenizers_own_leading_space_can_be_dropped(drop: bool, text: str) -> None:
    pieces, _, _ = streamed(b" hi", drop_leading_space=drop)
    assert "".join(pieces) == text
