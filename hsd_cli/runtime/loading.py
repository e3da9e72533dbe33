"""From a model's name to weights on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils.hub import extract_commit_hash

from hsd_cli.errors import HsdError
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.locate import weights_source
from hsd_cli.runtime.device import resolve_device, resolve_dtype


@dataclass(frozen=True)
class LoadedModel:
    """Weights, and what the checkpoint says about itself. ``revision`` is the hub's commit hash, if there is one."""

    name: str
    model: PreTrainedModel
    revision: str | None
    eos_ids: tuple[int, ...]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that a forward pass reads: all but the input embeddings, unless they are the head's too."""
        everything = sum(weights.nbytes for weights in self.model.parameters())
        embeddings, head = self.model.get_input_embeddings().weight, self.model.get_output_embeddings()
        assert isinstance(embeddings, torch.Tensor)
        tied = head is not None and head.weight is embeddings
        return everything if tied else everything - embeddings.nbytes


def load_model(name: str, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Raises ``HsdError`` with the reason where there is no such model, or no causal language model."""
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    source = weights_source(name)
    _silence_transformers()
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise HsdError(f"{name!r} is a {config.model_type} model; hsd needs a causal language model")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=number, output_loading_info=True
        )
        model, report = loaded
        if missing := sorted(report["missing_keys"]):  # the library would fill them with random numbers
            raise HsdError(f"{name!r} lacks {len(missing)} of its weights ({missing[0]}, ...); download it again")
        model.to(where).eval()
    except torch.OutOfMemoryError:
        raise HsdError(
            f"{name!r} does not fit into the memory of {where}; try --device cpu or a smaller model"
        ) from None
    except HsdError:
        raise
    except Exception as error:  # the library reports missing, foreign and damaged files in many ways
        raise explain_failure(name, "model", error) from error
    # The folder of a download has the commit's name.
    revision = extract_commit_hash(f"{source}/config.json", getattr(config, "_commit_hash", None))
    return LoadedModel(name, model, revision, _eos_ids(model))


def _eos_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids at which ``generate`` would stop: one, several, or none."""
    generation = model.generation_config
    ids = None if generation is None else generation.eos_token_id
    if ids is None:
        ids = getattr(model.config.get_text_config(decoder=True), "eos_token_id", None)
    return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)


def _silence_transformers() -> None:
    """No warnings and no bars."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
