"""What a model's name stands for: an embedded model, a folder, a GGUF file, a repository on the hub or a file there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.adapter import has_adapter, not_a_model
from hsd_cli.models.gguf import model_folder
from hsd_cli.models.gguf_header import is_gguf
from hsd_cli.models.hub_file import HUB_ID, downloaded_file, hub_file
from hsd_cli.models.snapshots import described_snapshot, whole_snapshot

EMBEDDED = "embedded:"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
# The pair that runs when nothing else is asked for. `embedded:twin` is a drafter with the target's own tokenizer.
EMBEDDED_TARGET = EMBEDDED + "target"
EMBEDDED_DRAFTER = EMBEDDED + "drafter"


def embedded_folder(name: str) -> Path | None:
    """The folder of an embedded model, ``None`` for names of other kinds. Raises ``HsdError`` for an unknown one."""
    if not name.startswith(EMBEDDED):
        return None
    folder = EMBEDDED_FOLDER / name.removeprefix(EMBEDDED)
    if not (folder / "config.json").is_file():
        raise HsdError(f"no embedded model {name!r}; there are {', '.join(embedded_models())}")
    return folder


def own_name(name: str) -> str:
    """What to call a model: a folder or a file by its own name, wherever ``name`` leads to it from."""
    path = Path(name).expanduser()
    if name.startswith(EMBEDDED) or not path.exists():
        return name
    return (path.resolve() if path.is_dir() else path).name or name  # a file of a hub's cache is a link to a hash


def embedded_models() -> list[str]:
    """The names of all of them."""
    return sorted(EMBEDDED + path.parent.name for path in EMBEDDED_FOLDER.glob("*/config.json"))


def model_source(name: str, trust_remote_code: bool = False) -> str:
    """The folder with the configuration and the tokenizer; a model on the hub has these small files downloaded.

    Raises ``HsdError`` for what cannot be had, such as these of a GGUF file that is not downloaded.
    """
    if (folder := local_folder(name)) is not None:
        return str(folder)
    if hub_file(name) is not None:
        return weights_source(name, trust_remote_code)
    if (folder := described_snapshot(name, trust_remote_code)) is not None:
        return str(folder)

    from hsd_cli.models.pull import Pull

    return str(Pull.planned(name, tokenizer_only=True, trust_remote_code=trust_remote_code).run())


def weights_source(name: str, trust_remote_code: bool = False) -> str:
    """The folder with all that a run needs; nothing is downloaded. Raises ``HsdError``."""
    found = local_folder(name) or downloaded_folder(name, trust_remote_code)
    if found is None:
        raise not_downloaded(name, trust_remote_code)
    return str(found)


def downloaded_folder(name: str, with_code: bool = False, on_work: Callable[[], None] = lambda: None) -> Path | None:
    """That of a model on the hub, if nothing is missing that a run needs; ``with_code`` one that runs the checkpoint's
    own code. Raises ``HsdError`` for a GGUF file that is damaged, or that transformers cannot read."""
    if hub_file(name) is None:
        return whole_snapshot(name, with_code)
    path = downloaded_file(name)
    return None if path is None else model_folder(path, on_work)


def not_downloaded(name: str, trust_remote_code: bool, otherwise: str = "") -> HsdError:
    """Says what to type; ``otherwise`` is another way."""
    flag = " --trust-remote-code" if trust_remote_code else ""
    return HsdError(f"{name!r} is not downloaded; run: hsd pull {shlex.quote(name)}{flag}{otherwise}")


def local_folder(name: str, on_work: Callable[[], None] = lambda: None) -> Path | None:
    """The folder of an embedded model, the one that ``name`` is, or that of a GGUF file; ``None`` for one on the hub.

    ``on_work`` is ``model_folder``'s.

    Raises ``HsdError`` for what can be none of them.
    """
    if not name:
        raise UsageError("the name of a model is empty; give a folder or an id on the hub")
    folder = embedded_folder(name) or Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if has_adapter(folder):
                raise not_a_model(name, folder)
            raise HsdError(f"{name!r} is a folder without a config.json; give the folder of a Hugging Face model")
        return folder
    if folder.is_file():
        if not is_gguf(folder):
            raise HsdError(
                f"{name!r} is a file; give the folder of a Hugging Face model, a GGUF file, or an id on the hub"
            )
        return model_folder(folder, on_work)
    if not re.fullmatch(HUB_ID, name) and hub_file(name) is None:
        raise HsdError(
            f"no folder {name!r}; give the folder of a Hugging Face model, or an id on the hub (for a GGUF file "
            "there: owner/repo:file.gguf)"
        )
    return None
