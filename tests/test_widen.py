"""A widened model says what the model said, at the cost of a larger one."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.widen import widened
from tests.architectures import CONFIGS, random_model


@pytest.mark.parametrize("layers", [2, 5])
@torch.inference_mode()
def test_what_is_added_adds_nothing(layers: int) -> None:
    model = cast(LlamaForCausalLM, random_model(CONFIGS["llama"]))
    wide = widened(model, hidden=80, intermediate=100, layers=layers)
    assert (wide.config.hidden_size, wide.config.num_hidden_layers) == (80, layers)
    assert wide.num_parameters() > 2 * model.num_parameters()
    text = torch.tensor([list(b"the same text")])
    expected = model(input_ids=text).logits
    torch.testing.assert_close(wide(input_ids=text).logits, expected, rtol=1e-4, atol=1e-4)
