"""A hub on this machine: a real HTTP server that speaks the protocol for small repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")  # kept apart from git, under their SHA-256


@dataclass
class Repository:
    """``files`` by name. ``refused`` is the status and error code that every request gets."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    refused: tuple[int, str] | None = None
    claimed_sizes: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)  # arrive with a wrong byte
    breaking: dict[str, list[int]] = field(default_factory=dict)  # after so many bytes each next answer breaks off

    @classmethod
    def of_folder(cls, folder: str | Path, **files: bytes) -> Repository:
        return cls({path.name: path.read_bytes() for path in Path(folder).iterdir()} | files)

    @property
    def commit(self) -> str:
        """As with git, a name for the content."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

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
    headers: Mapping[str, str]


class Hub:
    """Serves ``repositories`` by id for as long as the context lasts, and remembers what it was asked for."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def downloads(self) -> list[tuple[str, str | None]]:
        """Names of the files whose content was asked for, with the range."""
        return [
            (request.path.rsplit("/", 1)[1], request.headers.get("Range"))
            for request in self.requests
            if request.method == "GET" and "/resolve/" in request.path
        ]

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                hub.requests.append(Request(self.command, self.path, dict(self.headers)))
                parts = unquote(urlsplit(self.path).path).strip("/").split("/")
                if parts[:2] == ["api", "models"]:
                    name, rest = "/".join(parts[2:4]), parts[4:]
                else:
                    name, rest = "/".join(parts[:2]), parts[2:]
                repository = hub.repositories.get(name)
                if repository is None:
                    self._refuse(404, "RepoNotFound")
                elif repository.refused:
                    self._refuse(*repository.refused)
                elif rest[1:2] and rest[1] not in (*repository.revisions, repository.commit):
                    self._refuse(404, "RevisionNotFound")
                elif rest[:1] == ["resolve"]:
                    self._send_file(repository, "/".join(rest[2:]))
                else:
                    siblings = [repository.describe(file) for file in repository.files]
                    body = json.dumps({"id": name, "sha": repository.commit, "siblings": siblings}).encode()
                    self._send(200, body, {"Content-Type": "application/json"})

            def _send_file(self, repository: Repository, name: str) -> None:
                if name not in repository.files:
                    self._refuse(404, "EntryNotFound")
                    return
                data = repository.files[name]
                headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{repository.digest(name)}"'}
                if name.endswith(LARGE):
                    headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data))}
                if name in repository.damaged:
                    data = bytes([data[0] ^ 1]) + data[1:]
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                breaks = repository.breaking.get(name) if self.command == "GET" else None
                self._send(206 if start else 200, data[start:], headers, breaks.pop(0) if breaks else None)

            def _refuse(self, status: int, code: str) -> None:
                self._send(status, b"{}", {"X-Error-Code": code} if code else {})

            def _send(
                self, status: int, body: bytes, headers: Mapping[str, str], breaks_after: int | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[:breaks_after])
                self.close_connection = self.close_connection or breaks_after is not None

        return Handler
