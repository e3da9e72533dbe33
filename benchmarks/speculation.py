"""What drafting on during verification can bring: a simulation over acceptance, the drafter's cost and target devices.

``python -m benchmarks.speculation FILE.svg`` draws it in seconds. The model is that of arXiv 2405.14105: a target
pass takes 1, over however many tokens; a drafter step takes ``cost``; every drafted token is accepted with the same
probability, whatever became of others; the drafter has a device of its own, and so has every copy of the target;
handing over costs nothing, and a refusal ends at once whatever was in the making behind it.
"""

from __future__ import annotations

import heapq
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from hsd_cli.planner.speedup import RelativeCosts, speed_up

ACCEPTANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
COSTS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
TARGETS = (1, 2, 4, 8)
WAITED_FOR = (0, 1, 2, 3, 4, 6, 8)  # tokens drafted after a refusal before the first pass begins
BLOCKS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 25, 50)  # tokens drafted before another device checks them
FURTHEST = 400  # drafted tokens behind a refusal that are looked at
LONGEST_LOOKAHEAD = 100
DRAFTED, CHECKED = 0, 1  # what happens first of what happens at once

WIDTH, HEIGHT = 30.0, 22.0  # of a cell
MARGIN, PANEL_WIDTH, PANEL_HEIGHT = 70.0, 450.0, 320.0
DARKEST = 1.6  # times as fast
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ 2 * panel_width + margin }} {{ 2 * panel_height + 100 }}" \
font-family="sans-serif" font-size="11" text-anchor="middle">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{{ panel_width }}" y="24" font-size="15">Drafting on while the target checks: times as fast as the faster of \
speculation in turns and plain decoding, simulated</text>
{% for panel in panels %}
<g transform="translate({{ panel.x }} {{ panel.y }})">
<text x="{{ costs|length * width / 2 }}" y="-8" font-weight="bold">{{ panel.title }}</text>
{% for cell in panel.cells %}
<rect x="{{ cell.x }}" y="{{ cell.y }}" width="{{ width }}" height="{{ height }}" fill="{{ cell.colour }}">\
<title>{{ cell.title }}</title></rect>
<text x="{{ cell.x + width / 2 }}" y="{{ cell.y + height / 2 + 3 }}" font-size="9" fill="{{ cell.ink }}">\
{{ cell.label }}</text>
{% endfor %}
<rect width="{{ costs|length * width }}" height="{{ acceptances|length * height }}" fill="none" stroke="#888"/>
{% for acceptance in acceptances %}
<text x="-18" y="{{ loop.index0 * height + height / 2 + 4 }}">{{ acceptance }}</text>
{% endfor %}
{% for cost in costs %}
<text x="{{ loop.index0 * width + width / 2 }}" y="{{ acceptances|length * height + 15 }}">{{ cost }}</text>
{% endfor %}
<text x="{{ costs|length * width / 2 }}" y="{{ acceptances|length * height + 32 }}">a drafter step, in target passes\
</text>
<text transform="translate(-44 {{ acceptances|length * height / 2 }}) rotate(-90)">acceptance of a drafted token</text>
</g>
{% endfor %}
<g transform="translate({{ margin }} {{ 2 * panel_height + 55 }})">
{% for times, colour in legend %}
<rect x="{{ loop.index0 * width }}" width="{{ width }}" height="14" fill="{{ colour }}" stroke="#ccc"/>
<text x="{{ loop.index0 * width + width / 2 }}" y="28">{{ "%.1f" % times }}</text>
{% endfor %}
</g>
</svg>
"""


@dataclass(frozen=True)
class Checked:
    """At ``time`` after a refusal the fate of the first ``tokens`` drafted since then is known."""

    time: float
    tokens: int


@dataclass(frozen=True)
class Setting:
    """``cost``: of a drafter step. ``targets``: copies of the target. After a refusal ``first`` tokens are drafted
    before the first pass begins; another target begins as soon as ``block`` more are there, or when none is at work.
    """

    cost: float
    targets: int
    first: int = 0
    block: int = 1


@cache
def run(setting: Setting) -> tuple[Checked, ...]:
    """What happens after a refusal for as long as nothing else is refused, event by event.

    A pass over ``n`` drafted tokens also tells the fate of the one after them, if it was drafted by then: the target's
    own token is known. If it was not, the text goes on from the target's token, and drafting begins anew.
    """
    events = [(setting.cost, DRAFTED, 1)]
    drafted = read = known = busy = 0
    found: list[Checked] = []

    def begin_passes(now: float) -> None:
        nonlocal read, busy
        while busy < setting.targets and _is_due(setting, drafted, read, busy, begun=bool(found) or busy > 0):
            read, busy = max(drafted, known), busy + 1
            heapq.heappush(events, (now + 1, CHECKED, read))

    begin_passes(0.0)
    while known < FURTHEST:
        now, kind, count = heapq.heappop(events)
        if kind == DRAFTED:
            drafted = count
            heapq.heappush(events, (setting.cost * (count + 1), DRAFTED, count + 1))
        else:
            busy -= 1
            known = count + 1
            found.append(Checked(now, known))
            if drafted < known:
                break
        begin_passes(now)
    return tuple(found)


def _is_due(setting: Setting, drafted: int, read: int, busy: int, begun: bool) -> bool:
    """Whether another target has to begin. ``read``: how many drafted tokens passes were begun over."""
    if not begun:
        return drafted >= setting.first
    return not busy or drafted - read >= setting.block


def rate(setting: Setting, acceptance: float) -> float:
    """Tokens per unit of time, which is the speed-up over plain decoding: in expectation, over where refusals are."""
    passes = run(setting)
    time, known = 0.0, 0
    for checked in passes:
        # Refused among these tokens; the last pass is the end in any case.
        here = acceptance**known - (acceptance**checked.tokens if checked is not passes[-1] else 0.0)
        time += here * checked.time
        known = checked.tokens
    return (1 - acceptance**known) / (1 - acceptance) / time


def best_parallel(cost: float, targets: int, acceptance: float) -> float:
    """The speed-up over plain decoding with the best of many settings."""
    firsts = {*WAITED_FOR, best_lookahead(cost, acceptance)}
    blocks = BLOCKS if targets > 1 else (1,)
    return max(rate(Setting(cost, targets, *choice), acceptance) for choice in product(firsts, blocks))


def best_sequential(cost: float, acceptance: float) -> float:
    """The same where drafting and checking take turns; at the worst, plain decoding's."""
    return speed_up(acceptance, best_lookahead(cost, acceptance), _flat(cost))


@cache
def best_lookahead(cost: float, acceptance: float) -> int:
    return max(range(LONGEST_LOOKAHEAD), key=lambda lookahead: speed_up(acceptance, lookahead, _flat(cost)))


def _flat(cost: float) -> RelativeCosts:
    return RelativeCosts(cost, [1.0] * LONGEST_LOOKAHEAD)


@dataclass(frozen=True)
class Cell:
    x: float
    y: float
    colour: str
    ink: str
    label: str
    title: str


@dataclass(frozen=True)
class Panel:
    """The speed-up for one number of targets, with where it is drawn."""

    title: str
    x: float
    y: float
    cells: tuple[Cell, ...]


def panels() -> Iterator[Panel]:
    for number, targets in enumerate(TARGETS):
        title = "1 target device" if targets == 1 else f"{targets} target devices"
        x, y = MARGIN + number % 2 * PANEL_WIDTH, MARGIN + number // 2 * PANEL_HEIGHT
        yield Panel(title, x, y, tuple(_cells(targets)))


def _cells(targets: int) -> Iterator[Cell]:
    for (row, acceptance), (column, cost) in product(enumerate(reversed(ACCEPTANCES)), enumerate(COSTS)):
        times = best_parallel(cost, targets, acceptance) / best_sequential(cost, acceptance)
        title = f"acceptance {acceptance:g}, cost {cost:g}: x{times:.2f}"
        ink = "#000" if times < (1 + DARKEST) / 2 else "#fff"
        yield Cell(column * WIDTH, row * HEIGHT, colour(times), ink, f"{times:.2f}", title)


def colour(times: float) -> str:
    """From white at 1 to dark blue at ``DARKEST`` and above."""
    share = min(1.0, max(0.0, (times - 1) / (DARKEST - 1)))
    return "#" + "".join(f"{round(255 + share * (dark - 255)):02x}" for dark in (8, 48, 107))


def draw() -> str:
    """The plot as SVG, which needs nothing but itself."""
    legend = [1 + (DARKEST - 1) * step / 6 for step in range(7)]
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(TEMPLATE).render(
        panels=list(panels()),
        acceptances=tuple(reversed(ACCEPTANCES)),
        costs=COSTS,
        legend=[(times, colour(times)) for times in legend],
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
        panel_width=PANEL_WIDTH,
        panel_height=PANEL_HEIGHT,
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
