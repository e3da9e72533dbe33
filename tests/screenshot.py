"""A picture of a command at work.

``python -m tests.screenshot [--rows N] [--columns N] [--when REGEX] OUT.svg COMMAND…``: the command runs in a real
terminal. The picture is of the first screen that ``--when`` is found on, or of the last one.
"""

from __future__ import annotations

import argparse
import re
import shlex
from io import StringIO
from pathlib import Path

from pyte.screens import Char
from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.style import Style
from rich.text import Text

from tests.terminal import Screen, Terminal

# Rich's frame loads its font from the network; any font with cells of one width will do.
FRAME = re.sub(r"@font-face {{.*?}}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")

# pyte's names for colours where Rich has others.
NAMES = {"brown": "yellow", "brightbrown": "bright_yellow"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, metavar="OUT.svg")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--columns", type=int, default=96)
    parser.add_argument("--when", type=re.compile, metavar="REGEX")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    title = shlex.join([Path(options.command[0]).name, *options.command[1:]])
    with Terminal(*options.command, rows=options.rows, columns=options.columns) as terminal:

        def taken() -> bool:  # while waiting, for the screen does not change then
            if found := options.when.search(terminal.text):
                options.picture.write_text(picture(terminal.screen, title), encoding="utf-8")
            return bool(found)

        if options.when is not None:
            terminal.wait_for(taken)
        else:
            terminal.wait()
            options.picture.write_text(picture(terminal.screen, title), encoding="utf-8")


def picture(screen: Screen, title: str) -> str:
    """The screen as an SVG image in a window with a title."""
    console = Console(
        file=StringIO(),
        record=True,
        width=screen.columns,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    for y in range(screen.lines):
        cells = (screen.buffer[y][x] for x in range(screen.columns))
        console.print(Text.assemble(*((cell.data, style_of(cell)) for cell in cells)), soft_wrap=True, highlight=False)
    return console.export_svg(title=title, code_format=FRAME, unique_id="screen")


def style_of(cell: Char) -> Style:
    return Style(
        color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, italic=cell.italics,
        underline=cell.underscore, reverse=cell.reverse,
    )  # fmt: skip


def colour(name: str) -> str:
    """For Rich: pyte has names like `brightred` and bare hexadecimal digits."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return NAMES.get(name, re.sub("^bright", "bright_", name))


if __name__ == "__main__":
    main()
