"""The page about a run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hsd_cli.decoding.loop import Commit, Piece
from hsd_cli.drafting.registry import ALGORITHMS
from hsd_cli.ui import run_page
from hsd_cli.ui.run_page import bars_of, places_of, tokens_of
from tests.cli import checkpoint, hsd

COMMITS = [
    Commit((Piece(1, "a", True), Piece(2, "b", False)), "slem", drafted=3, accepted=1, seconds=1.0),
    Commit((Piece(3, "c", False),), "ar", drafted=0, accepted=0, seconds=1.5),
    Commit((Piece(4, "d", True), Piece(5, "", True)), "lookup", drafted=2, accepted=2, seconds=4.0, tail="e"),
]
VOID = {"meta", "br", "rect"}


class Page(HTMLParser):
    """Raises ``AssertionError`` where tags are not closed as they were opened; gathers texts and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_every_token_has_its_origin() -> None:
    origins = [(token.text, token.origin, token.iteration) for token in tokens_of(COMMITS, "abcde")]
    assert origins == [
        ("a", "slem", 1),
        ("b", "", 1),
        ("c", "", 2),
        ("d", "lookup", 3),
        ("", "lookup", 3),
        ("e", "", 3),
    ]
    assert tokens_of([], "") == []


def test_acceptance_is_counted_by_place_in_the_draft() -> None:
    assert [(place.accepted, place.drafted) for place in places_of(COMMITS)] == [(2, 2), (1, 2), (0, 1)]
    assert places_of([]) == []


def test_the_timeline_shows_time_to_scale() -> None:
    bars = bars_of(COMMITS)
    assert [(bar.x, bar.width) for bar in bars] == [(0, 250), (250, 125), (375, 625)]
    unit = bars[1].own  # one token
    heights = [(bar.own / unit, bar.accepted / unit, bar.refused / unit) for bar in bars]
    assert heights == [(1, 1, 2), (1, 0, 0), (0, 2, 0)]
    assert bars[0].title == "iteration 1: slem, 1 of 3 accepted, 1000.0 ms"


def test_a_page_needs_nothing_else_and_obeys_nothing_of_the_text(tmp_path: Path) -> None:
    hostile = ["a", "</pre><script>alert(1)</script>", "<img src=x onerror=y>", "\x1b[2J", "{{ 7*7 }}", "&amp;"]
    model = checkpoint(tmp_path / "model", hostile)
    page = tmp_path / "run.html"
    result = hsd("generate", "-q", "-t", model, "-n", 5, "-a", "ar", "--report", page, "a")
    assert (result.code, result.out) == (0, "".join(hostile[1:]))
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.tags.isdisjoint({"script", "img", "link", "iframe"})
    assert [name for name, _ in parsed.attributes if name in ("src", "href") or name.startswith("on")] == []
    assert re.findall(r"https?:|url\(|@import", text) == []
    assert "\x1b" not in text
    for shown in (*hostile[1:3], r"\x1b[2J", *hostile[4:]):
        assert shown in parsed.texts
    assert {"5", "the target's own"} <= {piece.strip() for piece in parsed.texts}


def test_a_run_with_drafts(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    assert hsd("generate", "-q", "-n", 40, "-a", "slem", "--report", page, "def read(path):\n").code == 0
    parsed = Page(page.read_text(encoding="utf-8"))
    assert {"drafted by slem", "Acceptance by place in the draft", "Iterations"} <= set(parsed.texts)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "ar"])
def test_every_algorithm_has_a_colour_by_day_and_by_night(algorithm: str) -> None:
    template = Path(run_page.__file__).with_suffix(".html").read_text(encoding="utf-8")
    assert len(re.findall(rf"--{algorithm}: #[0-9a-f]{{6}};", template)) == 2
    assert f'"{algorithm}"' in template


@pytest.mark.parametrize("place", ["none/page.html", ""])
def test_a_page_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, place: str) -> None:
    result = hsd("generate", "-t", "embedded:none", "--report", tmp_path / place, "x")
    assert (result.code, result.err.startswith("hsd: cannot write ")) == (1, True)
