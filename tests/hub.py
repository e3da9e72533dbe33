"""A hub on this machine: a real HTTP server that speaks the protocol for small repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, TracebackType
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".bin", ".gguf")  # kept apart from git, under their SHA-256


@dataclass
class Repository:
    """``files`` by name. ``refused`` is the status that every request gets, with headers about the reason."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    refused: tuple[int, dict[str, str]] | None = None
    claimed_sizes: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)  # arrive with a wrong byte
    breaking: dict[str, list[int]] = field(default_factory=dict)  # after so many bytes each next answer breaks off
    without_ranges: bool = False  # every answer begins with the first byte
    stalling: dict[str, int] = field(default_factory=dict)  # after so many bytes nothing more comes

    @classmethod
    def of_folder(cls, folder: str | Path, **files: bytes) -> Repository:
        return cls({path.name: path.read_bytes() for path in Path(folder).iterdir()} | files)

    commit_claimed: str | None = None

    @property
    def commit(self) -> str:
        """As with git, a name for the content."""
        return self.commit_claimed or hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def digest(self, name: str) -> str:
        data = self.files[name]
        if name.endswith(LARGE):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()

    def describe(self, name: str) -> dict[str, object]:
        size = self.claimed_sizes.get(name, len(self.files[name]))
        described: dict[str, object] = {"rfilename": name, "size": size, "blobId": self.digest(name)}
        if name.endswith(LARGE):
            described |= {"blobId": "0" * 40, "lfs": {"sha256": self.digest(name), "size": size, "pointerSize": 134}}
        return described


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Message


class Hub:
    """Serves ``repositories`` by id for as long as the context lasts, and remembers what it was asked for."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self._leaving = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def downloads(self) -> list[tuple[str, str | None]]:
        """Names of the files whose content was asked for, with the range that was."""
        return [
            (unquote(request.path.split("/", 5)[5]), request.headers.get("Range"))
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path and not request.path.startswith("/cdn/")
        ]

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self) -> None:
                hub.requests.append(Request(self.command, self.path, self.headers))
                parts = unquote(urlsplit(self.path).path).strip("/").split("/")
                kind = parts[0] if parts[0] in ("api", "cdn") else "pages"
                rest = parts[{"api": 2, "cdn": 1, "pages": 0}[kind] :]
                name, rest = "/".join(rest[:2]), rest[2:]
                file = "/".join(rest[2:])
                repository = hub.repositories.get(name)
                if repository is None:
                    self._send(404, headers={"X-Error-Code": "RepoNotFound"})
                elif repository.refused:
                    status, reasons = repository.refused
                    self._send(status, headers=reasons)
                elif rest[1] not in (*repository.revisions, repository.commit):
                    self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
                elif kind == "api":
                    siblings = [repository.describe(file) for file in repository.files]
                    described = {"id": name, "sha": repository.commit, "siblings": siblings}
                    self._send(200, json.dumps(described).encode(), {"Content-Type": "application/json"})
                elif file not in repository.files:
                    self._send(404, headers={"X-Error-Code": "EntryNotFound"})
                elif kind == "pages" and file.endswith(LARGE):
                    self._redirect(repository, file)
                else:
                    self._send_file(repository, file)

            def _redirect(self, repository: Repository, name: str) -> None:
                """To another host, which must not see the token."""
                self._send(
                    302,
                    headers={
                        "Location": f"http://localhost:{hub._server.server_port}/cdn{self.path}",
                        "X-Repo-Commit": repository.commit,
                        "X-Linked-Etag": f'"{repository.digest(name)}"',
                        "X-Linked-Size": str(len(repository.files[name])),
                    },
                )

            def _send_file(self, repository: Repository, name: str) -> None:
                data = repository.files[name]
                headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{repository.digest(name)}"'}
                if name in repository.damaged:
                    data = bytes([data[0] ^ 1]) + data[1:]
                wanted = "bytes=0-" if repository.without_ranges else self.headers.get("Range", "bytes=0-")
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                stalls = name in repository.stalling
                breaks = repository.breaking.get(name) if self.command == "GET" else None
                end = repository.stalling[name] if stalls else breaks.pop(0) if breaks else None
                self._send(206 if start else 200, data[start:], headers, end)
                if stalls:
                    hub.stalled.set()
                    hub._leaving.wait()

            def _send(
                self, status: int, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({}),
                end: int | None = None,
            ) -> None:  # fmt: skip
                """``end`` is the place in ``body`` where the connection breaks."""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-HF-Warning", "unauthenticated; Please set a HF_TOKEN")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[:end])
                self.close_connection = self.close_connection or end is not None

        return Handler


def use(hub: Hub, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Makes it the hub of commands in this process, whose library has read the environment long ago, and empties the
    cache. Returns the folder of the models in it."""
    cache = folder / "home" / "hub"
    pages = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", pages)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("HSD_CACHE", str(folder / "notes"))
    return cache
