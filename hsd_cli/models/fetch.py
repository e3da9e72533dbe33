"""Brings one file of a repository into the hub's cache: resumed where it broke off, and checked."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import transport_error
from hsd_cli.models.hub_file import hub_name
from hsd_cli.models.repository import RemoteFile, Repository
from hsd_cli.models.snapshots import repository_folder

CHUNK = 1 << 20
ATTEMPTS = 5  # without a single new byte, until a broken connection is given up
PAUSE = 0.5  # seconds after the first of them, doubled every time
SHA256 = 64  # digits


def fetch(repository: Repository, file: RemoteFile, watch: Callable[[int], None]) -> Path:
    """The file in its snapshot; ``watch`` is told how many of its bytes are here.

    The hub's library would begin broken downloads anew. So what arrives is kept under a name of its own and becomes
    the blob of the cache once it is whole and right. Raises ``HsdError`` if it is not, and what the library raises.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    blob, partial = repository.blob(file), repository.partial(file)
    folder = repository_folder(repository.name)
    lock = folder.parent / ".locks" / folder.name / f"{file.digest}.lock"  # the library's own
    for needed in (repository.snapshot, blob.parent, lock.parent):
        needed.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not repository.has(file):
            _receive(repository, file, watch)
            _check(repository, file)
            os.replace(partial, blob)
    watch(file.size)
    return Path(hf_hub_download(repository.name, file.name, revision=repository.commit))


def _receive(repository: Repository, file: RemoteFile, watch: Callable[[int], None]) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    broken = transport_error()
    partial = repository.partial(file)
    partial.touch()
    failures = 0
    while (here := partial.stat().st_size) < file.size:
        try:
            return _continue(repository, file, here, watch)
        except HfHubHTTPError:  # an answer, which the next attempt would get again
            raise
        except broken:
            failures = failures + 1 if partial.stat().st_size == here else 1
            if failures == ATTEMPTS:
                raise
            time.sleep(PAUSE * 2 ** (failures - 1))


def _continue(repository: Repository, file: RemoteFile, here: int, watch: Callable[[int], None]) -> None:
    """Asks for what is missing after the first ``here`` bytes, and writes as much of it as comes."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # ranges of a packed body would not fit
    if here:
        headers["Range"] = f"bytes={here}-"
    url = hf_hub_url(repository.name, file.name, revision=repository.commit)
    with get_session().stream("GET", url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        resumed = response.status_code == 206
        with repository.partial(file).open("ab" if resumed else "wb", buffering=0) as sink:
            for chunk in response.iter_bytes():  # of no set size: what has arrived must not wait for more in memory
                while chunk := chunk[sink.write(chunk) :]:  # a disk that is nearly full takes a part
                    pass
                watch(sink.tell())


def _check(repository: Repository, file: RemoteFile) -> None:
    """Deletes what is not the file that the hub lists."""
    partial = repository.partial(file)
    digest = hashlib.sha256() if len(file.digest) == SHA256 else hashlib.sha1(f"blob {file.size}\0".encode())
    with partial.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != file.digest:
        partial.unlink()
        raise HsdError(
            f"{file.name} of {repository.name!r} arrived damaged (its checksum is not the hub's) and was deleted; "
            f"run again: hsd pull {shlex.quote(hub_name(repository.name, file.name))}"
        )
