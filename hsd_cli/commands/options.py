"""The options that several commands share, with their environment variables and their places in the help.

Every one that has an environment variable can also be set in the configuration file, under its long name. Groups are
for commands that are ``in_groups``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from hsd_cli.commands import suggestions
from hsd_cli.commands.configured import apply_configuration
from hsd_cli.decoding.settings import SamplingSettings, Verification
from hsd_cli.drafting.names import Algorithm

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["int8", "int4"]
Attention = Literal[
    "auto", "sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"
]

Compile = Literal["auto", "always", "never"]

MODELS = "Models"
TEXT = "Text"
SAMPLING = "Sampling"
DRAFTING = "Drafting"
OUTPUT = "Output"

_models = partial(typer.Option, rich_help_panel=MODELS)
_sampling = partial(typer.Option, rich_help_panel=SAMPLING)
_drafting = partial(typer.Option, rich_help_panel=DRAFTING)

Pull = Annotated[bool, _models("--pull", help="Download models that are missing without asking.")]
TrustRemoteCode = Annotated[
    bool,
    _models(
        "--trust-remote-code",
        help="Run the Python code that a checkpoint brings along; it can do anything here that you can do.",
    ),
]


@dataclass(frozen=True)
class Pair:
    """Which models."""

    target: Annotated[
        str | None,
        _models(
            "-t",
            "--target",
            envvar="HSD_TARGET",
            autocompletion=suggestions.models,
            help="Model that writes the text: hub id, folder or GGUF file (on the hub: `owner/repo:file.gguf`).",
        ),
    ] = None
    draft: Annotated[
        str | None,
        _models(
            "-d",
            "--draft",
            envvar="HSD_DRAFT",
            autocompletion=suggestions.models,
            help="Model that guesses ahead; any tokenizer.",
        ),
    ] = None
    pair: Annotated[
        str | None,
        _models(
            "--pair",
            envvar="HSD_PAIR",
            is_eager=True,  # it decides the defaults of all others
            callback=apply_configuration,
            autocompletion=suggestions.pairs,
            help="A pair of your configuration; see `hsd config --help`.",
        ),
    ] = None


@dataclass(frozen=True)
class Models(Pair):
    """Which models, and where and how they compute."""

    device: Annotated[str, _models(envvar="HSD_DEVICE", help="auto, cuda, cuda:1, mps or cpu.")] = "auto"
    device_map: Annotated[
        Literal["auto"] | None,
        _models(
            envvar="HSD_DEVICE_MAP",
            help="The target over all GPUs, and what does not fit there on the CPU; needs "
            "`pip install 'hsd-cli[multi]'`.",
        ),
    ] = None
    tensor_parallel: Annotated[
        bool,
        _models(
            "--tensor-parallel",
            help="Each process that torchrun starts takes a share of the target's matrices; needs "
            "`pip install 'hsd-cli[multi]'`.",
        ),
    ] = False
    dtype: Annotated[
        Dtype,
        _models(
            envvar="HSD_DTYPE",
            help="Number format of the weights. auto: half precision on a GPU; on a CPU float32, and for a large "
            "drafter the fastest for one token.",
        ),
    ] = "auto"
    draft_device: Annotated[
        str | None, _models(envvar="HSD_DRAFT_DEVICE", help="The drafter's device, if another one.")
    ] = None
    draft_dtype: Annotated[
        Dtype | None, _models(envvar="HSD_DRAFT_DTYPE", help="The drafter's dtype, if another one.")
    ] = None
    quant: Annotated[
        Quantization | None,
        _models(envvar="HSD_QUANT", help="Quantize the target's weights; needs `pip install 'hsd-cli[quant]'`."),
    ] = None
    draft_quant: Annotated[
        Quantization | None,
        _models(envvar="HSD_DRAFT_QUANT", help="The same for the drafter, which --quant leaves as it is."),
    ] = None
    threads: Annotated[
        int | None,
        _models(
            min=1,
            envvar="HSD_THREADS",
            help="CPU threads of each model's passes. Default: as many as are quickest right now.",
            show_default=False,
        ),
    ] = None
    attention: Annotated[Attention, _models(envvar="HSD_ATTENTION", help="Attention kernel of both models.")] = "auto"
    compile: Annotated[
        Compile,
        _models(
            envvar="HSD_COMPILE",
            help="torch.compile on a CUDA GPU: `always` before the text, `auto` in runs so long that it pays.",
        ),
    ] = "auto"
    eos: Annotated[
        list[str] | None,
        _models(
            "--eos",
            metavar="ID|NAME",
            envvar="HSD_EOS",
            help="Token that ends the target's texts, where the checkpoint has it wrong; may be given several times.",
            show_default=False,
        ),
    ] = None
    pull: Pull = False
    trust_remote_code: TrustRemoteCode = False


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: Annotated[float, _sampling(envvar="HSD_TEMPERATURE", help="0 is greedy.")] = 0.0
    top_k: Annotated[int, _sampling(envvar="HSD_TOP_K", help="Keep the k likeliest tokens; 0 is off.")] = 0
    top_p: Annotated[
        float, _sampling(envvar="HSD_TOP_P", help="Keep the likeliest tokens up to this mass; 1 is off.")
    ] = 1.0
    min_p: Annotated[
        float, _sampling(envvar="HSD_MIN_P", help="Keep tokens at least this share of the likeliest; 0 is off.")
    ] = 0.0
    repetition_penalty: Annotated[
        float, _sampling(envvar="HSD_REPETITION_PENALTY", help="Above 1 makes repetition less likely; 1 is off.")
    ] = 1.0
    seed: Annotated[
        int | None,
        _sampling(
            min=0,
            max=(1 << 32) - 1,
            envvar="HSD_SEED",
            help="Fixes the sampled text, the same for every algorithm and drafter (it implies `coupled`).",
            show_default=False,
        ),
    ] = None

    def settings(self) -> SamplingSettings:
        """Raises ``UsageError``."""
        return SamplingSettings(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)


@dataclass(frozen=True)
class Drafting:
    """How the drafter is made use of."""

    algorithm: Annotated[
        Algorithm,
        _drafting("-a", "--algorithm", envvar="HSD_ALGORITHM", help="How to draft; see `hsd generate --help`."),
    ] = "auto"
    lookahead: Annotated[
        int | None,
        _drafting(
            min=1,
            envvar="HSD_LOOKAHEAD",
            help="Target tokens to draft per iteration. Default: as many as pay, by their measured cost and gain.",
            show_default=False,
        ),
    ] = None
    verification: Annotated[
        Verification | None,
        _drafting(
            envvar="HSD_VERIFICATION",
            help="`rejection` accepts most; `coupled` makes the text a function of the seed. Default: `coupled` with "
            "--seed, else `rejection`.",
            show_default=False,
        ),
    ] = None
    parallel: Annotated[
        bool,
        _drafting(
            "--parallel",
            help="Draft on while the target checks: for a drafter model with a device, or cores, to itself. `auto` "
            "then keeps to one algorithm.",
        ),
    ] = False
    targets: Annotated[
        int,
        _drafting(
            min=1,
            max=8,
            help="Copies of the target that check drafts at the same time, with --parallel: on further GPUs, else they "
            "share the device and the weights.",
        ),
    ] = 1
    strict: Annotated[
        bool,
        _drafting(
            "--strict",
            help="A drafter that fails and input that is not UTF-8 are errors. Default: the text goes on without the "
            "drafter, what cannot be read is replaced, and that is said.",
        ),
    ] = False


System = Annotated[
    str | None,
    typer.Option("-s", "--system", envvar="HSD_SYSTEM", help="System message of the chat.", rich_help_panel=TEXT),
]
MaxNewTokens = Annotated[
    int,
    typer.Option(
        "-n",
        "--max-new-tokens",
        min=1,
        envvar="HSD_MAX_NEW_TOKENS",
        help="Most tokens to write.",
        rich_help_panel=TEXT,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="End before this string, or at the special token that is called so; may be given several times.",
        rich_help_panel=TEXT,
    ),
]
Live = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        envvar="HSD_LIVE",
        help="Mark what was drafted, with live figures below. Default: on a terminal.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Stats = Annotated[
    bool,
    typer.Option("--stats/--no-stats", envvar="HSD_STATS", help="Statistics line on stderr.", rich_help_panel=OUTPUT),
]


def _silence(wanted: bool) -> bool:
    """What layers below have to say goes to Python's log."""
    logging.getLogger("hsd_cli").setLevel(logging.ERROR if wanted else logging.NOTSET)
    return wanted


Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", callback=_silence, help="Nothing on stderr but errors.", rich_help_panel=OUTPUT),
]


def _show_tracebacks(wanted: bool) -> bool:
    if wanted:
        os.environ["HSD_DEBUG"] = "1"
    return wanted


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_show_tracebacks, help="Show tracebacks (also: HSD_DEBUG=1).", rich_help_panel=OUTPUT
    ),
]
