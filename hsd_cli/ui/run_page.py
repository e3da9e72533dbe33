"""A page about one run: where every token came from, what the drafts were worth, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from hsd_cli.decoding.loop import PLAIN
from hsd_cli.ui.terminal import visible

if TYPE_CHECKING:
    from hsd_cli.decoding.loop import Commit
    from hsd_cli.ui.run_report import RunReport

HEIGHT = 90.0  # of the timeline, in units of its drawing; its width is 1000
WIDTH = 1000.0


@dataclass(frozen=True)
class Token:
    """A piece of the text. ``origin`` is the algorithm that drafted it, or empty for the target's own."""

    text: str
    origin: str
    iteration: int


@dataclass(frozen=True)
class Place:
    """A place in the drafts: how often something was drafted there, and accepted."""

    number: int
    drafted: int
    accepted: int

    @property
    def share(self) -> float:
        return self.accepted / self.drafted


@dataclass(frozen=True)
class Bar:
    """An iteration in the timeline: ``x`` and ``width`` are its time, the heights its tokens."""

    x: float
    width: float
    own: float
    accepted: float
    refused: float
    origin: str
    title: str


def render_page(report: RunReport, prompt: str, commits: Sequence[Commit]) -> str:
    """One HTML page that needs nothing but itself. Whatever the text holds is shown and never obeyed."""
    environment = Environment(
        loader=PackageLoader("hsd_cli", "ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["visible"] = visible
    return environment.get_template("run_page.html").render(
        report=report,
        prompt=prompt,
        tokens=tokens_of(commits, report.text),
        places=places_of(commits),
        bars=bars_of(commits),
        highest=max((len(commit.pieces) - commit.accepted + commit.drafted for commit in commits), default=0),
        seconds=commits[-1].seconds if commits else 0.0,
        origins=sorted({commit.algorithm for commit in commits} - {PLAIN}),
        width=WIDTH,
        height=HEIGHT,
    )


def tokens_of(commits: Sequence[Commit], text: str) -> list[Token]:
    """The pieces of ``text``, and at its end what had been held back for the rest of a character or a stop string."""
    tokens = [
        Token(piece.text, commit.algorithm if piece.drafted else "", iteration)
        for iteration, commit in enumerate(commits, 1)
        for piece in commit.pieces
    ]
    rest = text[sum(len(token.text) for token in tokens) :]
    return [*tokens, Token(rest, "", len(commits))] if rest else tokens


def places_of(commits: Sequence[Commit]) -> list[Place]:
    longest = max((commit.drafted for commit in commits), default=0)
    return [
        Place(
            place + 1,
            sum(commit.drafted > place for commit in commits),
            sum(commit.accepted > place for commit in commits),
        )
        for place in range(longest)
    ]


def bars_of(commits: Sequence[Commit]) -> list[Bar]:
    """The first iteration's bar begins with the reading of the prompt."""
    if not commits:
        return []
    times = [0.0, *(commit.seconds for commit in commits)]
    across = WIDTH / times[-1]
    up = HEIGHT / max(commit.drafted + 1 for commit in commits)
    return [
        Bar(
            x=begun * across,
            width=(ended - begun) * across,
            own=up * (len(commit.pieces) - commit.accepted),
            accepted=up * commit.accepted,
            refused=up * (commit.drafted - commit.accepted),
            origin="" if commit.algorithm == PLAIN else commit.algorithm,
            title=f"iteration {number}: {commit.algorithm}, {commit.accepted} of {commit.drafted} accepted, "
            f"{1000 * (ended - begun):.1f} ms",
        )
        for number, (commit, (begun, ended)) in enumerate(zip(commits, pairwise(times), strict=True), 1)
    ]
