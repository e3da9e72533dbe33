"""The command in processes of its own, without the seconds that its libraries take to load.

``python -m tests.ready_hsd SOCKET`` loads them once and becomes, for each client, a fork that runs the command with
the client's arguments, environment, folder and standard streams.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    fork = int.from_bytes(server.recv(4), "big")
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(fork, number))
    sys.exit(int.from_bytes(server.recv(1) or b"\\1", "big"))
"""


class ReadyHsd:
    """``folder / "bin"`` has such an ``hsd`` for as long as the context lasts."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        address = str(folder / "socket")
        self.bin = folder / "bin"
        self.bin.mkdir()
        program = self.bin / "hsd"
        program.write_text(CLIENT.format(python=sys.executable, address=address))
        program.chmod(0o755)
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, address], env=environment, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def __enter__(self) -> ReadyHsd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def serve(address: str) -> None:
    import hsd_cli.bench.lossless.check
    import hsd_cli.bench.measure_plan
    import hsd_cli.engine
    import hsd_cli.runtime.loading  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = listening.accept()
            if os.fork() == 0:
                run(client)
            client.close()


def run(client: socket.socket) -> None:
    from hsd_cli.app import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(client, 4, 3)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        data += client.recv(1 << 16)
    sys.argv, environment, folder = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    client.sendall(os.getpid().to_bytes(4, "big"))
    code: object = 1
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        client.sendall(bytes([code if isinstance(code, int) else 1]))
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
