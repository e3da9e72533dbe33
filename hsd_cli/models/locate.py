"""What a model's name stands for: an embedded model, a folder, or a repository on the hub."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from hsd_cli.errors import HsdError, UsageError

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


def embedded_models() -> list[str]:
    """The names of all of them."""
    return sorted(EMBEDDED + path.parent.name for path in EMBEDDED_FOLDER.glob("*/config.json"))


def model_source(name: str) -> str:
    """What the loading functions of transformers take for ``name``. Raises ``HsdError`` for what cannot exist."""
    if not name:
        raise UsageError("the name of a model is empty; give a folder or an id on the hub")
    folder = embedded_folder(name) or Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise HsdError(f"{name!r} is a folder without a config.json; give the folder of a Hugging Face model")
        return str(folder)
    if folder.is_file():
        raise HsdError(f"{name!r} is a file; give the folder of a Hugging Face model, or an id on the hub")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HsdError(f"no folder {name!r}; give the folder of a Hugging Face model, or an id on the hub")
    return _hub_source(name)


@lru_cache
def _hub_source(name: str) -> str:
    """The id itself while the hub answers, else the folder of what was downloaded before.

    Asked once: the loading functions would wait half a minute for an unreachable hub, for every file again.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        try:
            HfApi().model_info(name, timeout=10)
        except (HFValidationError, RepositoryNotFoundError):
            raise
        except Exception:  # no network, offline mode, a proxy's refusal, the hub's own trouble
            return snapshot_download(name, local_files_only=True)
    except Exception as error:
        raise explain_failure(name, "model", error) from error
    return name


def explain_failure(name: str, what: str, error: Exception) -> HsdError:
    """One sentence for what the hub or the library reports about ``what`` (``model``, ``tokenizer``) of ``name``."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def caused_by(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if caused_by(GatedRepoError):
        return HsdError(f"{name!r} is gated: accept its terms on its hub page, then run `hf auth login`")
    if caused_by(RepositoryNotFoundError):
        return HsdError(f"no model {name!r} on the hub, and no such folder; check the spelling, or run `hf auth login`")
    if caused_by(LocalEntryNotFoundError) or caused_by(ConnectionError):
        return HsdError(f"{name!r} is neither a folder nor downloaded, and the hub cannot be reached")
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return HsdError(f"cannot load the {what} of {name!r}: {first_line}")
