"""``hsd verify``: shows on the user's own pair of models that nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsd_cli.commands import options, suggestions
from hsd_cli.commands.acquire import ensure_downloaded
from hsd_cli.decoding.settings import SamplingSettings
from hsd_cli.encoding import decoded
from hsd_cli.errors import EXIT_FAILURE, UsageError
from hsd_cli.models.roles import remember_role

# Code, repetition (for drafts that look back), and characters of several tokens.
PROMPTS = ("def read(path):\n    ", "one, two, three, one, two, three, one,", "昨日、")


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Model that writes the text: hub id, folder or GGUF file (on the hub: `owner/repo:file.gguf`).",
            show_default=False,
            autocompletion=suggestions.models,
        ),
    ],
    drafter: Annotated[
        str,
        typer.Argument(
            metavar="DRAFTER",
            help="Model that guesses ahead; any tokenizer.",
            show_default=False,
            autocompletion=suggestions.models,
        ),
    ],
    algorithm: Annotated[
        list[str] | None,
        typer.Option("-a", "--algorithm", help="Check this one; may be given several times. Default: all that fit."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Continue these prompts, one per line.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--max-new-tokens", min=1, help="Tokens to compare per prompt.")
    ] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Texts per algorithm, at least, over all prompts.")] = 300,
    temperature: Annotated[float, typer.Option(help="Of the sampled texts.")] = 1.0,
    lookahead: Annotated[int, typer.Option(min=1, help="Target tokens to draft per iteration.")] = 4,
    parallel: Annotated[bool, typer.Option("--parallel", help="Draft on while the target checks.")] = False,
    targets: Annotated[
        int, typer.Option(min=1, max=8, help="Copies of the target that check at the same time, with --parallel.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Another seed, other texts.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    dtype: Annotated[options.Dtype, typer.Option(help="Number format of the weights.")] = "auto",
    draft_device: Annotated[str | None, typer.Option(help="The drafter's device, if another one.")] = None,
    draft_dtype: Annotated[options.Dtype | None, typer.Option(help="The drafter's dtype, if another one.")] = None,
    quant: Annotated[options.Quantization | None, typer.Option(help="Quantize the target's weights.")] = None,
    draft_quant: Annotated[options.Quantization | None, typer.Option(help="Quantize the drafter's.")] = None,
    attention: Annotated[options.Attention, typer.Option(help="Attention kernel of both models.")] = "auto",
    pull: options.Pull = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Check that drafting loses nothing on this pair of models.

    Greedy text, and text sampled under `coupled`, has to be plain decoding's token for token. Where it is not, the two
    tokens' logits are shown as plain decoding and as verification see them: their gap is a *tie* if rounding explains
    it, as in half precision, else a *defect*. Under `rejection` the law of the first tokens is tested: two samples
    of the first two tokens, and the first one against the target's exact distribution. A test has its limits: the
    report says which difference it would have found. The line *prompt* is about what all of them begin with: ids are
    compared with those of `tokenizer.json`, with the text that they spell and with the embedding's rows.

    Exit codes: 0 no defect, 1 a defect (or a failure), 2 usage, 130 interrupted.

    **Examples**

    `hsd verify embedded:target embedded:drafter`

    `hsd verify Qwen/Qwen2.5-7B-Instruct HuggingFaceTB/SmolLM2-135M-Instruct --dtype bfloat16`

    `hsd verify TARGET DRAFTER -a slrs -a tli --samples 5000 --prompts prompts.txt`

    `hsd verify TARGET DRAFTER --json | jq .defects`
    """
    if SamplingSettings(temperature).greedy:
        raise UsageError("--temperature must be above 0; greedy text is compared anyway")
    if targets > 1 and not parallel:
        raise UsageError("--targets is about --parallel; add it")
    chosen = PROMPTS if prompts is None else _read_prompts(prompts)
    ensure_downloaded((target, drafter), pull, quiet, trust_remote_code)

    import torch
    from rich.console import Console

    from hsd_cli.bench.lossless.check import drafting_algorithms
    from hsd_cli.bench.lossless.check import verify as verify_pair
    from hsd_cli.bench.lossless.pair import Plan
    from hsd_cli.engine import Engine
    from hsd_cli.runtime.device import out_of_memory
    from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory
    from hsd_cli.runtime.loading import load_model
    from hsd_cli.ui.verify_table import print_verification

    algorithms = drafting_algorithms(algorithm or [])
    plan = Plan(chosen, algorithms, max_new_tokens, lookahead, samples, temperature, seed, parallel, targets)
    # Shown on terminals only, and gone afterwards.
    with Console(stderr=True, quiet=quiet).status("loading") as status:
        engine = Engine(
            load_model(target, device, dtype, quant, attention, trust_remote_code=trust_remote_code),
            load_model(
                drafter,
                draft_device or device,
                draft_dtype or dtype,
                draft_quant,
                attention,
                trust_remote_code=trust_remote_code,
            ),
        )
        remember_role(target, "target")
        remember_role(drafter, "drafter")
        try:
            with naming_lack_of_memory():
                report = verify_pair(engine, plan, status.update)
        except torch.OutOfMemoryError:
            raise out_of_memory(engine.target.model.device) from None
    if as_json:
        typer.echo(report.json())
    else:
        print_verification(report)
    if report.defects:
        raise typer.Exit(EXIT_FAILURE)


def _read_prompts(path: Path) -> tuple[str, ...]:
    prompts = tuple(filter(str.strip, decoded(path.read_bytes(), "replace").splitlines()))
    if not prompts:
        raise UsageError(f"{str(path)!r} is empty; write one prompt per line, or leave --prompts out")
    return prompts
