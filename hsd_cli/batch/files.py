"""Files as prompts, one text for each, and where the texts go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hsd_cli.batch.records import Failure, Record, derived_seed, fingerprint
from hsd_cli.encoding import decoded
from hsd_cli.engine import Request
from hsd_cli.errors import UsageError

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}  # a shell's single quotes leave them as they are
PLACEHOLDER = re.compile(r"\{text\}|\{name\}|\\[nt\\]")


def check_template(template: str) -> None:
    """Raises ``UsageError`` for one without a place for the text."""
    if "{text}" not in template:
        raise UsageError("--template needs {text} where the file's text goes, as in --template 'Summarise:\\n{text}'")


def fill(template: str, text: str, name: str) -> str:
    """``template`` with the file's ``text`` and ``name`` put in, ``\\n`` a line end; other braces are as they are."""
    values = {"{text}": text, "{name}": name, **ESCAPES}
    return PLACEHOLDER.sub(lambda found: values[found[0]], template)


def file_records(
    files: Sequence[Path],
    prompt: str | None,
    template: str | None,
    base: Request,
    target: str,
    repairing: Callable[[str], None] | None,
) -> Iterator[Record | Failure]:
    """A record for each file: the template filled in, and what follows it: a blank line and the prompt.

    Without a template the file's text takes its place. Files are read one by one. What is no UTF-8 in them is replaced
    after ``repairing`` was told the file's name; without it the file fails. With a seed each file has its own, by its
    name.
    """
    for number, path in enumerate(files, 1):
        name = str(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            yield Failure(name, number, f"cannot read it: {error.strerror}")
            continue
        try:
            text = decoded(data)
        except UnicodeDecodeError:
            if repairing is None:
                yield Failure(name, number, "not valid UTF-8; convert it, as with iconv, or leave --strict out")
                continue
            repairing(name)
            text = decoded(data, "replace")
        filled = text if template is None else fill(template, text, path.name)
        parts = [filled.rstrip("\n"), prompt] if prompt else [filled]
        given = "\n\n".join(part for part in parts if part)
        if not given:
            yield Failure(name, number, "the file is empty")
            continue
        seed = None if base.seed is None else derived_seed(base.seed, name)
        request = replace(base, prompt=given, seed=seed)
        yield Record(number, name, request, fingerprint(request, target))


def destinations(files: Sequence[Path], folder: Path | None) -> list[Path]:
    """Where the text of each file goes: beside it as ``NAME.out``, or under ``folder`` by its own name.

    There the files lie as they do under the folder that they have in common. Raises ``UsageError`` where a text would
    take the place of one of the files, or would leave ``folder`` through a link.
    """
    if folder is None:
        places = [path.with_name(f"{path.name}.out") for path in files]
    else:
        common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in files])
        places = [folder / os.path.relpath(os.path.abspath(path), common) for path in files]
    inputs = set(map(os.path.realpath, files))
    for path, place in zip(files, places, strict=True):
        real = Path(os.path.realpath(place))
        if str(real) in inputs:
            raise UsageError(f"the text of {str(path)!r} would overwrite {str(place)!r}, which is an input too")
        if folder is not None and not real.is_relative_to(os.path.realpath(folder)):
            raise UsageError(f"{str(place)!r} is a link that leads out of {str(folder)!r}; remove it")
    return places
