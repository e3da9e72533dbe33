"""``hsd generate -f … --template``: one text for each file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import fsencode
from pathlib import Path
from typing import TYPE_CHECKING

from hsd_cli.commands.many_texts import Writer, write_many
from hsd_cli.commands.models import say
from hsd_cli.commands.prompts import REPAIRED
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.ui.output import Output, write_whole
from hsd_cli.ui.terminal import escape

if TYPE_CHECKING:
    from hsd_cli.batch.results import Result
    from hsd_cli.engine import Request


def generate_each(
    files: Sequence[Path],
    prompt: str | None,
    base: Request,
    *,
    template: str | None,
    beside: bool,
    folder: Path | None,
    output: Path | None,
    as_json: bool,
    strict: bool,
    target: str,
    start: Callable[[], Writer],
    stats: bool,
    quiet: bool,
) -> None:
    """A text of its own for each of ``files``, which are paths and patterns: from ``template``, then ``prompt``.

    It goes ``beside`` the file as ``NAME.out``, into ``folder`` under the file's name, or, one after another with the
    names above them as `head` has it, into ``output`` or standard output. ``as_json``: objects as `hsd generate -i`
    writes them, with the file's name as ``id``. ``strict``: a file that is not UTF-8 fails. Raises ``UsageError`` for
    what cannot be right, before ``start`` is called, and ``HsdError`` at the end if files failed.
    """
    from hsd_cli.batch.files import check_template, destinations, file_records
    from hsd_cli.batch.paths import expand
    from hsd_cli.batch.records import Failure
    from hsd_cli.batch.survey import Survey

    if sum([beside, folder is not None, output is not None]) > 1:
        raise UsageError("--beside, --output-dir and --output say three places for the text; choose one")
    if template is not None:
        check_template(template)
    paths = expand(files)
    apart = beside or folder is not None
    places = dict(zip(map(str, paths), destinations(paths, folder) if apart else [], strict=False))
    _make_folders(places.values())
    with Output(None if apart else output) as sink:
        write = _apart(places) if apart else _together(sink, headings=len(paths) > 1)

        def put(outcome: Result | Failure) -> None:
            if isinstance(outcome, Failure):
                say(f"{outcome.id}: {outcome.error}")
            if as_json and not apart:
                sink.write(outcome.json())
            elif not isinstance(outcome, Failure):
                write(str(outcome.id), outcome.json() if as_json else outcome.text)

        def repairing(name: str) -> None:
            if not quiet:
                say(f"{name}: {REPAIRED}")

        failures = write_many(
            file_records(paths, prompt, template, base, target, None if strict else repairing),
            put,
            start,
            survey=Survey(len(paths), 0, len(paths)),
            run_seed=base.seed,
            prints=not apart and output is None,
            stats=stats,
            quiet=quiet,
        )
    if failures.failed:
        raise HsdError(f"{failures.failed} of {failures.seen} files failed")


def _make_folders(places: Iterable[Path]) -> None:
    for folder in {place.parent for place in places}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HsdError(f"cannot make the folder {str(folder)!r}: {error.strerror}") from error


def _apart(places: Mapping[str, Path]) -> Callable[[str, str], None]:
    """Writes a file's text to its own place."""
    return lambda name, text: write_whole(places[name], text)


def _together(sink: Output, headings: bool) -> Callable[[str, str], None]:
    """Writes one text after another, below the names of their files."""
    begun = False

    def write(name: str, text: str) -> None:
        nonlocal begun
        gap = "\n" if begun else ""
        end = "" if text.endswith("\n") else "\n"
        sink.write(f"{gap}==> {escape(fsencode(name))} <==\n{text}{end}" if headings else text)
        begun = True

    return write
