"""The command in a fork of this process, whose libraries are loaded: a process of its own in no time."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import sys
import termios
import warnings
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from types import TracebackType
from typing import NoReturn

from hsd_cli.app import main
from tests.cli import Result

LIMIT = 120.0  # seconds until waiting is given up: far more than a slow machine takes


class Fork:
    """``hsd`` (or another ``program``) with ``arguments`` and standard streams of its own (descriptors).

    ``prepare`` runs first, in the fork.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        stdin: int,
        stdout: int,
        stderr: int,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] = lambda: None,
        program: Callable[[], None] = main,
    ) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's threads: with one thread it uses none of them
            self.pid = os.fork()
        if self.pid == 0:
            _run(arguments, (stdin, stdout, stderr), environment or {}, prepare, program)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; ``None`` as long as it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, limit: float = LIMIT) -> int:
        """The exit code. Kills what does not end, and raises ``AssertionError``."""
        deadline = monotonic() + limit
        while self.poll() is None and monotonic() < deadline:
            sleep(0.002)
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise AssertionError("it did not end")
        assert self.returncode is not None
        return self.returncode


class PipedFork(Fork):
    """With pipes for its standard streams, as ``subprocess.Popen`` has them; leaving the context waits for its end."""

    def __init__(self, *arguments: object, stdout: int | None = None) -> None:
        (given, stdin), (out, into_out), (err, into_err) = os.pipe(), os.pipe(), os.pipe()
        super().__init__(arguments, given, into_out if stdout is None else stdout, into_err)
        for side in (given, into_out, into_err):
            os.close(side)
        self.stdin, self.stdout, self.stderr = os.fdopen(stdin, "wb"), os.fdopen(out, "rb"), os.fdopen(err, "rb")

    def __enter__(self) -> PipedFork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        self.wait()


def forked_hsd(*arguments: object, stdin: bytes = b"", prepare: Callable[[], None] = lambda: None) -> Result:
    """`hsd` in a fork, to its end; what it reads and writes is short."""
    (given, to), (out, from_out), (err, from_err) = os.pipe(), os.pipe(), os.pipe()
    os.write(to, stdin)
    os.close(to)
    process = Fork(arguments, given, from_out, from_err, prepare=prepare)
    for side in (given, from_out, from_err):
        os.close(side)
    with os.fdopen(out) as said, os.fdopen(err) as talked:
        texts = said.read(), talked.read()
    return Result(process.wait(), *texts)


class ForkedTerminal:
    """`hsd` in a fork, in a session with a terminal of its own, which can hang up. Leaving the context ends it."""

    def __init__(
        self, *arguments: object, stderr: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.sent = b""  # all that the command wrote
        self._seen = 0
        self._own, self.side = os.openpty()
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        before = {"TERM": "xterm-256color"} | dict(environment or {})
        self.process = Fork(
            arguments, self.side, self.side, self.side if stderr is None else stderr, before, _take_terminal
        )

    def send(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def wait_for(self, wanted: bytes) -> None:
        """Until the command has written this, after what was waited for before."""
        deadline = monotonic() + LIMIT
        while (found := self.sent.find(wanted, self._seen)) < 0:
            assert self._read() or self.process.poll() is None, self.sent
            assert monotonic() < deadline, self.sent
        self._seen = found + len(wanted)

    def hang_up(self) -> None:
        """As when the window is closed or the connection breaks."""
        os.close(self._own)
        self._own = -1

    def wait(self) -> int:
        """The exit code, after all that was written has been read."""
        deadline = monotonic() + LIMIT
        while self.process.poll() is None:
            self._read()
            assert monotonic() < deadline, self.sent
        while self._read():
            pass
        return self.process.wait()

    def is_sane(self) -> bool:
        """Whether typing is echoed line by line, the cursor is shown, and no escape sequence ended half-way."""
        modes = termios.tcgetattr(self.side)[3]
        shown = self.sent.rfind(b"\x1b[?25h") >= self.sent.rfind(b"\x1b[?25l")
        rest = re.sub(rb"\x1b(\[[0-9;?]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\\\)|[^\[\]])", b"", self.sent)
        return shown and b"\x1b" not in rest and bool(modes & termios.ECHO and modes & termios.ICANON)

    def _read(self) -> bool:
        if self._own < 0 or not select.select([self._own], [], [], 0.02)[0]:
            return False
        data = os.read(self._own, 1 << 16)
        self.sent += data
        if b"\x1b[6n" in data:  # line editors ask where the cursor is
            self.send("\x1b[1;1R")
        return True

    def __enter__(self) -> ForkedTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.side)
        if self._own >= 0:
            os.close(self._own)


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _run(
    arguments: Sequence[object],
    streams: tuple[int, int, int],
    environment: Mapping[str, str],
    prepare: Callable[[], None],
    program: Callable[[], None],
) -> NoReturn:
    code: object = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 64)  # what the parent has open for others would never end for them
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
        sys.argv = ["hsd", *map(str, arguments)]
        os.environ.update(environment)
        # As from a shell; a test run in the background ignores interrupts, and one under nohup hang-ups.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        warnings.simplefilter("default")
        prepare()
        program()
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    try:
        sys.stdout.flush()
    except OSError as error:  # as the interpreter has it
        print(f"Exception ignored while flushing sys.stdout: {error}", file=sys.stderr)
        code = 120
    os._exit(code if isinstance(code, int) else 1)
