"""``hsd serve`` in a process of its own, and ways to talk to it that are no proper client's."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import httpx2
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.cli import COMMAND
from tests.forks import Fork

FOREIGN = ("HSD_", "HF_", "PYTEST")  # of the caller's variables
OURS = {"HF_HUB_OFFLINE": "1"}
LIMIT = 60.0  # seconds until waiting is given up


class Server:
    """A context in which the command serves at ``url``. Leaving it ends the server, which has to be in good order.

    It runs in a process of its own, or where that would take too long in a fork of this one.
    """

    def __init__(self, *arguments: object, key: str = "none", fork: bool = False) -> None:
        self.key = key
        self.said = ""
        self.url = ""
        self._heard, err = os.pipe()
        arguments = ("serve", "--port", 0, *arguments)
        with open(os.devnull, "r+") as nothing, open(err, "w") as stderr:
            self.process = (
                Fork(arguments, nothing.fileno(), nothing.fileno(), err)
                if fork
                else subprocess.Popen(
                    [*COMMAND, *map(str, arguments)],
                    env={name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)} | OURS,
                    stdin=nothing, stdout=nothing, stderr=stderr,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
            )  # fmt: skip

    def __enter__(self) -> Server:
        while not (found := re.search(r"at (http://\S+) .*\n", self.said)):
            assert self._hear(), self.said
        self.url = found[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runs = self.process.poll() is None
        if runs:
            self.process.send_signal(signal.SIGTERM if error is None else signal.SIGKILL)
        code = self.wait()
        os.close(self._heard)
        if error is None:
            assert "Traceback" not in self.said, self.said
            assert not runs or code == 0

    def wait(self) -> int:
        """The exit code, once all is said."""
        while self._hear():
            pass
        return self.process.wait(LIMIT)

    def _hear(self) -> bool:
        heard = os.read(self._heard, 1 << 16).decode()
        self.said += heard
        return bool(heard)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=LIMIT)

    @property
    def model(self) -> str:
        return str(self.get("/v1/models").json()["data"][0]["id"])

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers={"Authorization": f"Bearer {self.key}"} | headers, timeout=LIMIT)

    def post(self, path: str, asked: Any, **headers: str) -> httpx2.Response:
        """``asked`` are bytes, or what JSON there is to be."""
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"} | headers
        return httpx2.post(self.url + path, content=body, headers=headers, timeout=LIMIT)

    def metric(self, name: str, **labels: str) -> float:
        """Zero where nothing was counted."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def until(self, name: str, value: float) -> None:
        """Waits until the metric ``name`` has ``value``."""
        deadline = monotonic() + LIMIT
        while self.metric(name) != value:
            assert monotonic() < deadline, (name, self.metric(name))
            sleep(0.01)

    def until_refused(self) -> None:
        """Waits until nobody listens any more."""
        deadline = monotonic() + LIMIT
        while monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), LIMIT).close()
            except ConnectionRefusedError:
                return
            sleep(0.01)
        raise AssertionError("it listens still")


def raw_request(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """As it goes over the wire; ``length`` is what the body is said to have."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body
