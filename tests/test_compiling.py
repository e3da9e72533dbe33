"""Compiling what is recorded: few compilations, the same numbers, only where it pays, and a way on where it fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from hsd_cli.runtime import compiling
from hsd_cli.runtime.compiling import UNDISTURBED, Compilation
from hsd_cli.runtime.dense import DenseDecoder, Reading, dense_decoder
from hsd_cli.runtime.graphs import Function, Graphs, Recording
from hsd_cli.runtime.grid import GridReader
from hsd_cli.runtime.model import CachedModel
from hsd_cli.runtime.seats import SeatCache, SharedMemory
from hsd_cli.runtime.static import SIZES
from tests.architectures import CONFIGS, random_model
from tests.breadth import breadth
from tests.cli import hsd
from tests.test_dense import DENSE

TRACING = "aot_eager"  # all of torch.compile but the making of kernels, which takes a compiler of C++, and long
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run_again(function: Function, inputs: Sequence[torch.Tensor], generator: torch.Generator | None) -> Recording:
    """A recording that calls the function."""
    outputs = [output.clone() for output in function(*inputs)]

    def replay() -> None:
        for place, value in zip(outputs, function(*inputs), strict=True):
            place.copy_(value)

    return Recording(inputs, replay, outputs)


class Timed(Graphs):
    """On a machine where a pass takes two seconds, and ``seconds`` when it is compiled."""

    def __init__(self, compiled: float = 1.5) -> None:
        super().__init__(run_again)
        self._times = [2.0, compiled]

    def seconds(self, function: Function, *inputs: torch.Tensor) -> float:
        super().seconds(function, *inputs)
        return self._times.pop(0)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where compilations are kept; nothing is there, and nothing was compiled."""
    monkeypatch.setenv("HSD_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is restored
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiling.refuse.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    return tmp_path / "compiled"


def decoder_of() -> DenseDecoder:
    model = random_model(DENSE["llama"])
    decoder = dense_decoder(model)
    assert decoder is not None
    return decoder


def settled(compilation: Compilation, graphs: Graphs | None = None) -> bool:
    """Whether passes are compiled once it has tried."""
    eager = decoder_of()
    compilation.settle(eager, graphs or Timed())
    return compilation.decoder(eager, Graphs(run_again), 1, 1) is not eager


@pytest.mark.parametrize("name", breadth(["llama", "qwen3", "phi 4", "gemma3", "granite", "olmo 2"], quick=["gemma3"]))
def test_there_are_four_compilations_whatever_the_layers_and_the_number_of_tokens(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsd_cli.runtime.model.graphs_for", lambda device: Timed())
    config = DENSE[name].to_dict() | {"num_hidden_layers": 6, "layer_types": None}
    model = random_model(type(DENSE[name])(**config))
    ours = CachedModel(model, 64, compilation=Compilation("always", backend=TRACING))
    ours.compile()
    assert counters["stats"]["unique_graphs"] == 4
    text = list(range(20))
    ours.prefill(text)
    for count in range(1, max(SIZES) + 1):
        ids = torch.arange(count) + 30
        found = ours.run(ids)
        ours.rollback(len(text))
        with torch.inference_mode():
            expected = model(input_ids=torch.cat([torch.tensor(text), ids])[None]).logits[0, -count:]
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
        ours.prefill([40, 41])
        ours.rollback(len(text))
    assert ours._static is not None
    assert ours._static._decoder is not ours._dense
    assert counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]


@torch.inference_mode()
def test_several_texts_are_read_with_the_same_four() -> None:
    eager = decoder_of()
    compilation = Compilation("auto", backend=TRACING)
    reader = GridReader(eager, SharedMemory(eager), Graphs(run_again), compilation)
    caches = [SeatCache(reader.memory, 40) for _ in range(3)]

    def readings(count: int) -> list[Reading]:
        return [Reading(torch.arange(count) + 7 * row, cache, 20, count) for row, cache in enumerate(caches)]

    eager.logits([Reading(torch.arange(20), cache, 0, 1) for cache in caches])
    before = [reader.logits(readings(count)) for count in (1, 2, 5)]
    compilation.settle(eager, Timed())
    after = [reader.logits(readings(count)) for count in (1, 2, 5)]
    torch.testing.assert_close(after, before)
    assert reader._decoder is not eager
    assert counters["stats"]["unique_graphs"] == 4


@CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_is_compiled_and_the_numbers_are_the_same(dtype: torch.dtype) -> None:
    model = random_model(DENSE["qwen3"]).to("cuda", dtype)
    eager, compiled = CachedModel(model, 64), CachedModel(model, 64, compilation=Compilation("always"))
    compiled.compile()
    for each in (eager, compiled):
        each.prefill(list(range(20)))
    for count in range(1, max(SIZES) + 1):
        ids = torch.arange(count, device="cuda")
        found, expected = compiled.run(ids), eager.run(ids)
        assert (found - expected).norm() <= torch.finfo(dtype).eps ** 0.5 * expected.norm()


class Counting(Compilation):
    """Notes after how many passes it is compiled."""

    at: int | None = None

    def settle(self, eager: DenseDecoder, graphs: Graphs) -> None:
        self.at, self._settled = self._passes, True


def passes_until_compiled(
    mode: compiling.Compile,
    texts: int,
    passes: int,
    left: int | None = None,
    known: dict[str, float | None] | None = None,
) -> int | None:
    """In texts of so many passes and at most ``left`` tokens, ``None`` if never; ``known`` is of an earlier one."""
    compilation, eager, graphs = Counting(mode), decoder_of(), Graphs(run_again)
    if known is not None:
        compilation._path.parent.mkdir(exist_ok=True)
        compilation._path.write_text(json.dumps(known))
    for _ in range(texts):
        for made in range(1, passes + 1):
            compilation.decoder(eager, graphs, made, (left or passes) - made)
    return compilation.at


SAVES_A_SECOND = {"less": 1.0, "again": 100.0}


def test_a_short_text_is_not_worth_it() -> None:
    assert passes_until_compiled("auto", texts=1, passes=256) is None
    assert passes_until_compiled("auto", texts=1, passes=199, known=SAVES_A_SECOND) is None


def test_a_long_one_is_once_as_many_passes_again_earn_it_back() -> None:
    assert passes_until_compiled("auto", texts=1, passes=1000, known=SAVES_A_SECOND) == 101


def test_many_short_ones_are_once_as_many_again_earn_it_back_but_not_at_the_beginning_of_one() -> None:
    at = passes_until_compiled("auto", texts=20, passes=50, known=SAVES_A_SECOND)
    assert at is not None
    assert 100 < at < 150
    assert (at - 1) % 50 + 1 >= UNDISTURBED


def test_what_a_text_may_still_get_counts_and_not_what_it_got() -> None:
    assert passes_until_compiled("auto", texts=1, passes=150, left=160, known=SAVES_A_SECOND) is None
    assert passes_until_compiled("auto", texts=1, passes=150, left=260, known=SAVES_A_SECOND) == 101


@pytest.mark.parametrize("known", [{"less": 0.0, "again": 0.1}, {"less": -1.0, "again": 0.1}])
def test_what_brought_nothing_is_not_tried_again(known: dict[str, float | None]) -> None:
    assert passes_until_compiled("auto", texts=3, passes=1000, known=known) is None


def test_never_is_never() -> None:
    assert passes_until_compiled("never", texts=3, passes=1000, known=SAVES_A_SECOND) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"less": null, "again": 1}', '{"less": "x", "again": 1}'])
def test_what_is_damaged_is_as_if_it_were_not_there(content: str, folder: Path) -> None:
    compilation = Counting("auto")
    folder.mkdir()
    compilation._path.write_text(content)
    assert compilation.decoder(eager := decoder_of(), Graphs(run_again), UNDISTURBED, 100) is eager


def test_what_it_took_and_brought_is_kept_for_the_next_run(folder: Path) -> None:
    assert settled(Compilation("always", "kind", TRACING))
    (kept,) = folder.glob("*.json")
    assert json.loads(kept.read_text()) == {"less": 0.5, "again": None}  # the first time says nothing of the next
    assert settled(Compilation("always", "kind", TRACING))
    assert json.loads(kept.read_text())["again"] > 0
    assert settled(Compilation("always", "another kind", TRACING))
    assert len(list(folder.glob("*.json"))) == 2


def test_kernels_are_kept_in_a_private_folder_or_where_the_user_wants_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(Compilation("always", backend=TRACING))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    settled(Compilation("always", backend=TRACING))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == compiling.__name__]


def _no_compiler(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
    raise RuntimeError("no compiler here\nand a long story")


def _wrong(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
    return lambda *args: [2 * result for result in graph(*args)]


@pytest.mark.parametrize(
    ("backend", "seconds", "reason"),
    [
        (_no_compiler, 1.5, "no compiler here"),
        (_wrong, 1.5, "it came to another result"),
        (TRACING, 2.0, "passes take no less time with it"),
    ],
)
def test_without_it_all_goes_on_and_the_reason_is_told_once(
    backend: Any, seconds: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert not settled(Compilation("always", backend=backend), Timed(seconds))
    assert told(caplog) == [f"torch.compile is not used: {reason}"]


def test_nothing_is_compiled_where_recording_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fails(function: Function, inputs: Sequence[torch.Tensor], generator: torch.Generator | None) -> Recording:
        raise RuntimeError("no graphs here")

    assert not settled(Compilation("always", backend=TRACING), Graphs(fails))
    assert told(caplog) == ["torch.compile is not used: no graphs here"]
    assert not counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_where_nothing_is_recorded_that_is_the_reason(name: str, caplog: pytest.LogCaptureFixture) -> None:
    CachedModel(random_model(CONFIGS[name]), 16, compilation=Compilation("always")).compile()
    assert told(caplog) == ["torch.compile is not used: it is for plain dense models on CUDA GPUs"]


def test_the_option_is_for_gpus_and_quiet_silences_what_it_has_to_say(caplog: pytest.LogCaptureFixture) -> None:
    here = ("--device", "cpu", "--no-stats", "-n", "2", "--compile", "always", "x")
    loud = hsd("generate", *here)
    assert told(caplog) == ["torch.compile is not used: it is for plain dense models on CUDA GPUs"]
    caplog.clear()
    compiling.refuse.cache_clear()
    assert hsd("generate", "-q", *here) == (0, loud.out, "")
    assert told(caplog) == []
    assert compiling.refuse.cache_info().currsize, "there was something to say"


@pytest.mark.parametrize("mode", ["auto", "never"])
def test_without_a_gpu_nothing_is_said_unless_it_was_asked_for(mode: str) -> None:
    assert hsd("generate", "-q", "--device", "cpu", "-n", "2", "--compile", mode, "x").err == ""
    assert compiling.refuse.cache_info().currsize == 0
