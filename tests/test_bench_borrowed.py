"""The library's own model, with the weights of ours."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from itertools import chain
from typing import get_args

import pytest
import torch
from transformers import PreTrainedModel

from hsd_cli.bench.borrowed import Borrowed
from hsd_cli.runtime.dense import dense_decoder
from hsd_cli.runtime.loading import LoadedModel
from hsd_cli.runtime.packing import Layout, PackedLinear, pack
from tests.architectures import CONFIGS, RECURRENT, random_model
from tests.breadth import breadth
from tests.test_packing import TEXT, everything_is

KNOWN = CONFIGS | RECURRENT
TIED = deepcopy(CONFIGS["qwen2"])
TIED.tie_word_embeddings = True
MODELS = {"tied head, biases": TIED} | {name: KNOWN[name] for name in ("llama", "phi3", "gpt2", "mixtral", "jamba")}


@pytest.fixture
def plain(architecture: str) -> PreTrainedModel:
    return random_model(MODELS[architecture])


@pytest.fixture
def lender(plain: PreTrainedModel, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """The same model, laid out for our passes."""
    everything_is(layout, monkeypatch)
    model = deepcopy(plain)
    if dense_decoder(model) is None:
        pack(model)
    return LoadedModel("lender", model, revision=None, eos_ids=())


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TEXT[None]).logits


def size(models: Iterable[PreTrainedModel]) -> int:
    """Bytes of all weights, those that several models have once."""
    weights = [each for model in models for each in chain(model.parameters(), model.buffers())]
    packed = [part for model in models for part in model.modules() if isinstance(part, PackedLinear)]
    weights += [part.bias for part in packed if part.bias is not None]
    once = {each if each.is_mkldnn else each.untyped_storage().data_ptr(): each for each in weights}
    return sum(each.nbytes if each.is_mkldnn else each.untyped_storage().nbytes() for each in once.values())


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("architecture", breadth(MODELS, quick=["tied head, biases", "gpt2"]))
def test_the_library_writes_with_its_own_pass_and_no_second_copy(plain: PreTrainedModel, lender: LoadedModel) -> None:
    before, alone = logits(lender.model), size([lender.model])
    library = Borrowed(lender)
    both = [lender.model, library.model.model]
    columns = sum(each.nbytes for each in lender.model.parameters() if not each.is_mkldnn and not each.is_contiguous())
    assert size(both) == alone + columns
    for _ in range(2):
        with library.in_rows():
            assert torch.equal(logits(library.model.model), logits(plain))
            assert {type(part) for part in library.model.model.modules()} == {type(part) for part in plain.modules()}
            assert size(both) <= alone + columns
        assert torch.equal(logits(lender.model), before)
        assert size(both) == alone + columns


@pytest.mark.parametrize("layout", ["packed"])
@pytest.mark.parametrize("architecture", ["llama"])
@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
def test_however_its_text_ends_the_weights_are_given_back(lender: LoadedModel, ending: type[BaseException]) -> None:
    before, library = logits(lender.model), Borrowed(lender)
    with pytest.raises(ending), library.in_rows():
        raise ending
    assert torch.equal(logits(lender.model), before)


@pytest.mark.parametrize("layout", ["packed"])
@pytest.mark.parametrize("architecture", ["tied head, biases"])
def test_what_the_library_does_to_its_model_is_not_done_to_ours(lender: LoadedModel) -> None:
    before, library = logits(lender.model), Borrowed(lender)
    library.model.model.set_output_embeddings(torch.nn.Identity())  # as assisted sampling does
    assert library.model.model.generation_config is not lender.model.generation_config
    assert torch.equal(logits(lender.model), before)
    with Borrowed(lender).in_rows():
        pass
    assert torch.equal(logits(lender.model), before)
