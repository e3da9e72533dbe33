"""From a model's name to weights on a device."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.hub import extract_commit_hash

from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.adapter import has_adapter, merging, not_a_model
from hsd_cli.models.failures import explain_failure
from hsd_cli.models.gguf import gguf_in
from hsd_cli.models.hub_file import downloaded_file
from hsd_cli.models.locate import weights_source
from hsd_cli.models.snapshots import has_weights
from hsd_cli.runtime.compiling import Compilation, Compile
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.device import device_kind, resolve_device, resolve_dtype
from hsd_cli.runtime.following import LeadingModel
from hsd_cli.runtime.gguf_weights import load_gguf
from hsd_cli.runtime.joint import JointPasses
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.packing import is_slower, one_token_dtype, pack
from hsd_cli.runtime.placement import in_parts, is_whole, shared_out
from hsd_cli.runtime.quantization import (
    quantization_config,
    quantization_method,
    silence_bitsandbytes,
    stored_bytes,
    weight_bytes,
    without_outlier_columns,
)
from hsd_cli.runtime.ranks import Ranks
from hsd_cli.runtime.threads import Threads

_log = logging.getLogger(__name__)
LARGE = 1 << 24  # weights: so many are read from memory, and their number format tells in a pass's time


@dataclass(frozen=True)
class LoadedModel:
    """Weights, and what the checkpoint says about itself. ``revision`` is the hub's commit hash, if there is one.

    Its texts end at ``eos_ids``, and before ``stop_strings``. ``quantization``, ``attention`` and ``trust_remote_code``
    are what ``load_model`` was asked for.
    """

    name: str
    model: PreTrainedModel
    revision: str | None
    eos_ids: tuple[int, ...]
    stop_strings: tuple[str, ...] = ()
    quantization: str | None = None
    attention: str = "auto"
    trust_remote_code: bool = False
    ranks: Ranks | None = None
    compilation: Compilation | None = None
    threads: Threads | None = None

    def cached(self, capacity: int, joint: JointPasses | None = None) -> CachedModel:
        """The model with a cache of its own, as ``CachedModel`` has it."""
        if self.ranks is not None:
            return LeadingModel(self.model, capacity, self.ranks)
        return CachedModel(self.model, capacity, joint, self.compilation, self.threads)

    def endless(self) -> LoadedModel:
        """The same for texts of fixed lengths: an end of text is a token as any other."""
        return replace(self, eos_ids=(), stop_strings=())

    @property
    def rows(self) -> int:
        """How many ids it has embeddings for."""
        embeddings: Any = self.model.get_input_embeddings()
        return int(embeddings.weight.shape[0])

    @cached_property
    def bytes_per_token(self) -> int:
        """Bytes of weights that a forward pass over text reads: not what sees images, and of embeddings, which are
        looked up, none but those that are the head's too."""
        decoder, head = self.model.get_decoder(), self.model.get_output_embeddings()
        embeddings = {module.weight for module in decoder.modules() if isinstance(module, nn.Embedding)}
        looked_up = embeddings - set(head.parameters())
        return stored_bytes(decoder, head) - sum(map(weight_bytes, looked_up))


def load_model(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str | None = None,
    attention: str = "auto",
    packed: bool = True,
    trust_remote_code: bool = False,
    device_map: str | dict[str, Any] | None = None,
    ranks: Ranks | None = None,
    compile: Compile = "auto",
    threads: int | None = None,
    drafts: bool = False,
) -> LoadedModel:
    """``quantization`` is ``int8`` or ``int4``, ``attention`` one of the library's implementations. ``packed`` lays the
    weights out for the processor; the library's own way is without. ``trust_remote_code`` runs the checkpoint's own
    code, if it has any. ``device_map`` puts its parts on several devices: ``auto``, or the device of each by its name.
    Of ``ranks`` each gets its share. ``compile`` says when passes are compiled: where they pay for it, now, or not.
    ``threads`` of the CPU, else as many as are quickest. A model that ``drafts`` has, with the ``auto`` dtype, the one
    that is fastest for one token at a time; others have float32 on a CPU.

    Raises ``HsdError`` with the reason where there is no such model, or no causal language model, and for what the
    model or the machine does not support.
    """
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    source = weights_source(name, trust_remote_code)
    _silence_transformers()
    if threads is not None and where.type == "cpu":
        torch.set_num_threads(threads)
    try:
        with naming_lack_of_memory():
            config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
            if (Path(source) / GENERATION_CONFIG_NAME).exists():
                GenerationConfig.from_pretrained(source)  # a damaged one the library does without, and never ends
            loader = model_class(name, config)
            if where.type == "cpu" and quantization is None and _is_large(config):
                if drafts and dtype == "auto":
                    number = one_token_dtype()
                elif not drafts and number != torch.float32 and is_slower(number):
                    _log.warning("%s checks drafts more slowly in %s than in float32 on this CPU", name, dtype)
            adapted = has_adapter(Path(source))
            if adapted and not has_weights(Path(source)):
                raise not_a_model(name, Path(source))
            load = loader.from_pretrained if gguf_in(source) is None else partial(load_gguf, loader, name)
            loaded: Any = load(
                source,
                config=config,
                dtype=number,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
                **_quantized(name, config, quantization, where, number),
                **({} if device_map is None else in_parts(device_map)),
                **({} if ranks is None else shared_out(name, config, ranks.size)),
                **_attention(attention, where, number),
            )
            model, report = loaded
            if missing := sorted(report["missing_keys"]):  # the library would fill them with random numbers
                raise _lacking(name, missing)
            if adapted and not getattr(model, "_hf_peft_config_loaded", False):  # the library peft is not there
                _log.warning("%r has an adapter beside its weights, which is left out; to use it, %s", name, merging())
            if device_map is None and ranks is None and quantization_method(model.config) is None:
                model.to(where)  # quantized weights were made where they are to stay
            model.eval()
            # The lean pass lays out the maps that it reads; those of other models are laid out here.
            if packed and where.type == "cpu" and is_whole(model) and dense_decoder(model) is None:
                pack(model)
            if loader is AutoModelForMultimodalLM or not type(model).__module__.startswith("transformers."):
                _try_on_text(name, model)
    except torch.OutOfMemoryError:
        raise HsdError(
            f"{name!r} does not fit into the memory of {where}; try "
            + ("--quant int8 or a smaller model" if where.type == "cpu" else "--device cpu or a smaller model")
        ) from None
    except HsdError:
        raise
    except Exception as error:  # the library reports missing, foreign and damaged files in many ways
        if attention != "auto" and re.search("attention|flash|sdpa", str(error), re.IGNORECASE):
            raise HsdError(f"{name!r} cannot run with --attention {attention} here; try --attention auto") from error
        raise explain_failure(name, "model", error) from error
    # The folder of a download has the commit's name.
    described = downloaded_file(name) or f"{source}/config.json"
    revision = extract_commit_hash(str(described), getattr(config, "_commit_hash", None))
    result = LoadedModel(
        name,
        model,
        revision,
        _eos_ids(model),
        _stop_strings(model),
        quantization,
        attention,
        trust_remote_code,
        ranks,
        Compilation(compile, f"{device_kind(where)} {number} {model.config.to_json_string()}"),
    )
    if where.type == "cpu" and device_map is None and ranks is None:
        result = replace(result, threads=Threads(result.bytes_per_token, threads))
    if compile == "always":
        result.cached(1).compile()
    return result


def _lacking(name: str, missing: Sequence[str]) -> HsdError:
    if list(missing) == ["lm_head.weight"]:
        return HsdError(
            f"{name!r} has no lm_head.weight; if its head is its embeddings, its config.json has to say "
            '"tie_word_embeddings": true; else download it again'
        )
    return HsdError(f"{name!r} lacks {len(missing)} of its weights ({missing[0]}, ...); download it again")


def model_class(name: str, config: PreTrainedConfig) -> Any:
    """Which of the library's classes makes the model. Those that see or hear, too, are given text alone.

    Raises ``HsdError`` if it is no causal language model.
    """
    if config.is_encoder_decoder:
        raise HsdError(f"{name!r} is an encoder-decoder ({config.model_type}); hsd needs a causal language model")
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or ()
    ):
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return AutoModelForMultimodalLM
    raise HsdError(f"{name!r} is a {config.model_type} model; hsd needs a causal language model")


def _try_on_text(name: str, model: PreTrainedModel) -> None:
    """Raises ``HsdError`` for what cannot do without images, and for code that was written for another library."""
    try:
        with torch.inference_mode():
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device))
        if model.get_output_embeddings() is None:
            raise HsdError(f"{name!r} does not tell which weights its head has; choose another model")
        CachedModel(model, capacity=1)
    except (HsdError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever its code stumbles over
        reason = f"{type(error).__name__}: {error}"
        raise HsdError(
            f"{name!r} does not run on text alone with transformers {transformers.__version__} ({reason}); choose "
            "another model"
        ) from error


def _quantized(
    name: str, config: PreTrainedConfig, quantization: str | None, where: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """What the library is told about a model that is quantized, or is to be."""
    method = quantization_method(config)
    if quantization is None:
        if method == "bitsandbytes":
            without_outlier_columns(config)
        return {} if method is None else {"device_map": {"": where}}
    if method is not None:
        raise UsageError(f"{name!r} is quantized already, by {method}; leave --quant {quantization} out")
    return {"quantization_config": quantization_config(quantization, where, dtype), "device_map": {"": where}}


def _is_large(config: PreTrainedConfig) -> bool:
    text = config.get_text_config(decoder=True)
    layers, size = getattr(text, "num_hidden_layers", 0), getattr(text, "hidden_size", 0)
    return 12 * int(layers) * int(size) ** 2 >= LARGE


def _attention(implementation: str, where: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    if implementation.startswith("flash"):
        if where.type != "cuda":
            raise UsageError(f"--attention {implementation} needs a CUDA GPU; leave it out on {where}")
        if dtype not in (torch.float16, torch.bfloat16):
            raise UsageError(f"--attention {implementation} needs half precision; add --dtype bfloat16")
    return {} if implementation == "auto" else {"attn_implementation": implementation}


def _eos_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """The ids at which ``generate`` would stop: one, several, or none."""
    generation = model.generation_config
    ids = None if generation is None else generation.eos_token_id
    if ids is None:
        ids = getattr(model.config.get_text_config(decoder=True), "eos_token_id", None)
    ids = () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)
    if not all(isinstance(index, int) for index in ids):
        raise HsdError(f"{model.name_or_path!r} has {list(ids)} for eos_token_id, which are not ids; correct it")
    return ids


def _stop_strings(model: PreTrainedModel) -> tuple[str, ...]:
    """Before which ``generate`` would stop, if it were given a tokenizer."""
    stops = getattr(model.generation_config, "stop_strings", None) or ()
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    if not all(isinstance(stop, str) for stop in stops):
        raise HsdError(f"{model.name_or_path!r} has {list(stops)} for stop_strings, which are not strings; correct it")
    return tuple(filter(None, stops))


def _silence_transformers() -> None:
    """No warnings and no bars."""
    silence_bitsandbytes()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # code may come from another repository
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
