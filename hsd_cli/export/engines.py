"""The engines, by the names that people type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hsd_cli.export import llama_cpp, sglang, transformers, vllm
from hsd_cli.export.pair import ExportedPair
from hsd_cli.export.recipe import Recipe, Refusal

ENGINES: Mapping[str, Callable[[ExportedPair], Recipe | Refusal]] = {
    "vllm": vllm.export,
    "sglang": sglang.export,
    "llama.cpp": llama_cpp.export,
    "transformers": transformers.export,
}
