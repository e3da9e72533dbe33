"""The one exception that commands show to people, and the exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CANNOT_SERVE = 3
EXIT_INTERRUPTED = 130


def without_drafter(reason: str) -> str:
    """What is said, once, where a failure costs speed and nothing else."""
    return f"the drafter failed, so that it goes on without: {reason}"


def with_another_prompt(refusal: str) -> str:
    """What is said, once, where the drafter reads the prompt in another form than its template's."""
    return f"{refusal}; the drafter reads it in another form"


class HsdError(Exception):
    """Something the user can understand and act on: one line, shown without a traceback."""

    exit_code = EXIT_FAILURE


class OutOfMemoryError(HsdError):
    """A device's memory is too small for what it was asked to do."""


class UsageError(HsdError):
    """The command line itself asks for something impossible."""

    exit_code = EXIT_USAGE


class CannotServeError(HsdError):
    """Another engine cannot run a pair that `hsd` can."""

    exit_code = EXIT_CANNOT_SERVE


@contextmanager
def naming_panics() -> Iterator[None]:
    """Raises ``HsdError`` for a panic of a library in Rust (of tokenizers, above all): to Python it is no
    ``Exception``, and has a type that cannot be imported."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise HsdError(f"PanicException: {error}") from error
