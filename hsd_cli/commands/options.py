"""The options that several commands share, with their environment variables and their places in the help.

Every one that has an environment variable can also be set in the configuration file, under its long name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hsd_cli.commands import suggestions
from hsd_cli.commands.configured import apply_configuration
from hsd_cli.decoding.settings import Verification
from hsd_cli.drafting.names import Algorithm

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["int8", "int4"]
Attention = Literal[
    "auto", "sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4"
]

MODELS = "Models"
TEXT = "Text"
SAMPLING = "Sampling"
DRAFTING = "Drafting"
OUTPUT = "Output"

Target = Annotated[
    str | None,
    typer.Option(
        "-t",
        "--target",
        envvar="HSD_TARGET",
        autocompletion=suggestions.models,
        help="Model that writes the text: hub id or folder.",
        rich_help_panel=MODELS,
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "-d",
        "--draft",
        envvar="HSD_DRAFT",
        autocompletion=suggestions.models,
        help="Model that guesses ahead; any tokenizer.",
        rich_help_panel=MODELS,
    ),
]
PairName = Annotated[
    str | None,
    typer.Option(
        "--pair",
        envvar="HSD_PAIR",
        is_eager=True,  # it decides the defaults of all others
        callback=apply_configuration,
        autocompletion=suggestions.pairs,
        help="A pair of your configuration; see `hsd config --help`.",
        rich_help_panel=MODELS,
    ),
]
Device = Annotated[
    str, typer.Option(envvar="HSD_DEVICE", help="auto, cuda, cuda:1, mps or cpu.", rich_help_panel=MODELS)
]
DeviceMap = Annotated[
    Literal["auto"] | None,
    typer.Option(
        "--device-map",
        envvar="HSD_DEVICE_MAP",
        help="The target over all GPUs, and what does not fit there on the CPU; needs `pip install 'hsd-cli[multi]'`.",
        rich_help_panel=MODELS,
    ),
]
TensorParallel = Annotated[
    bool,
    typer.Option(
        "--tensor-parallel",
        help="Each process that torchrun starts takes a share of the target's matrices; needs "
        "`pip install 'hsd-cli[multi]'`.",
        rich_help_panel=MODELS,
    ),
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", envvar="HSD_DTYPE", help="Number format of the weights.", rich_help_panel=MODELS)
]
DraftDevice = Annotated[
    str | None,
    typer.Option(envvar="HSD_DRAFT_DEVICE", help="The drafter's device, if another one.", rich_help_panel=MODELS),
]
DraftDtype = Annotated[
    Dtype | None,
    typer.Option(envvar="HSD_DRAFT_DTYPE", help="The drafter's dtype, if another one.", rich_help_panel=MODELS),
]
Quant = Annotated[
    Quantization | None,
    typer.Option(
        "--quant",
        envvar="HSD_QUANT",
        help="Quantize the target's weights; needs `pip install 'hsd-cli[quant]'`.",
        rich_help_panel=MODELS,
    ),
]
DraftQuant = Annotated[
    Quantization | None,
    typer.Option(
        "--draft-quant",
        envvar="HSD_DRAFT_QUANT",
        help="The same for the drafter, which --quant leaves as it is.",
        rich_help_panel=MODELS,
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention", envvar="HSD_ATTENTION", help="Attention kernel of both models.", rich_help_panel=MODELS
    ),
]
Pull = Annotated[
    bool, typer.Option("--pull", help="Download models that are missing without asking.", rich_help_panel=MODELS)
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code that a checkpoint brings along; it may do whatever you may on this machine.",
        rich_help_panel=MODELS,
    ),
]
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
    typer.Option(help="End before this string; may be given several times.", rich_help_panel=TEXT),
]
Temperature = Annotated[float, typer.Option(envvar="HSD_TEMPERATURE", help="0 is greedy.", rich_help_panel=SAMPLING)]
TopK = Annotated[
    int,
    typer.Option(envvar="HSD_TOP_K", help="Keep the k likeliest tokens; 0 is off.", rich_help_panel=SAMPLING),
]
TopP = Annotated[
    float,
    typer.Option(
        envvar="HSD_TOP_P", help="Keep the likeliest tokens up to this mass; 1 is off.", rich_help_panel=SAMPLING
    ),
]
MinP = Annotated[
    float,
    typer.Option(
        envvar="HSD_MIN_P",
        help="Keep tokens at least this share of the likeliest; 0 is off.",
        rich_help_panel=SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(
        envvar="HSD_REPETITION_PENALTY",
        help="Above 1 makes repetition less likely; 1 is off.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=(1 << 32) - 1,
        envvar="HSD_SEED",
        help="Fixes the sampled text, the same for every algorithm and drafter (it implies `coupled`).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
AlgorithmOption = Annotated[
    Algorithm,
    typer.Option(
        "-a", "--algorithm", envvar="HSD_ALGORITHM", help="How to draft; see below.", rich_help_panel=DRAFTING
    ),
]
Lookahead = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="HSD_LOOKAHEAD",
        help="Target tokens to draft per iteration. Default: as many as pay, by their measured cost and gain.",
        show_default=False,
        rich_help_panel=DRAFTING,
    ),
]
VerificationOption = Annotated[
    Verification | None,
    typer.Option(
        "--verification",
        envvar="HSD_VERIFICATION",
        help="`rejection` accepts most; `coupled` makes the text a function of the seed. Default: `coupled` with "
        "--seed, else `rejection`.",
        show_default=False,
        rich_help_panel=DRAFTING,
    ),
]
Parallel = Annotated[
    bool,
    typer.Option(
        "--parallel",
        help="Draft on while the target checks: for a drafter model with a device, or cores, to itself. `auto` then "
        "keeps to one algorithm.",
        rich_help_panel=DRAFTING,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="A drafter that fails and input that is not UTF-8 are errors. Default: the text goes on without the "
        "drafter, what cannot be read is replaced, and that is said.",
        rich_help_panel=DRAFTING,
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
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks (also: HSD_DEBUG=1).", rich_help_panel=OUTPUT)]
