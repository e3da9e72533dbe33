"""``hsd serve``: the pair for programs, over HTTP."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated

import typer

from hsd_cli.commands import options
from hsd_cli.commands.groups import in_groups
from hsd_cli.commands.interrupts import leaving_at_once
from hsd_cli.commands.models import ChosenPair, say
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.serve.listening import bound_socket, is_loopback, url

SERVER = "Server"
KEY = "HSD_API_KEY"


@in_groups(without=("tensor_parallel", "parallel", "targets"))
def serve(
    *,
    models: options.Models,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; others than this machine's own need a key.", rich_help_panel=SERVER),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes one that is free.", rich_help_panel=SERVER)
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            help=f"What clients have to know. Better in {KEY}: command lines can be seen by others.",
            show_default=False,
            rich_help_panel=SERVER,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Texts to write at a time, in forward passes that they share. Default: as many as there is memory "
            "for, at most 32.",
            show_default=False,
            rich_help_panel=SERVER,
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=0, help="Texts that may wait; beyond it the answer is 429.", rich_help_panel=SERVER)
    ] = 256,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running requests have when the server ends.", rich_help_panel=SERVER),
    ] = 30.0,
    max_new_tokens: options.MaxNewTokens = 4096,
    drafting: options.Drafting,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Serve a pair of models over HTTP, as OpenAI's clients expect it; several texts share each forward pass.

    Needs `pip install 'hsd-cli[serve]'`. There are `/v1/completions`, `/v1/chat/completions` and `/v1/models`,
    `/health`, `/metrics` for Prometheus, `/openapi.json`, and a page for people at `/`. `--max-new-tokens` is the most
    that a request may ask for.

    **Requests** are OpenAI's: `stream` and `stream_options`, `stop`, `seed`, `temperature`, `top_p`, `max_tokens`,
    `logprobs` and `top_logprobs` (the target's own, before temperature and truncation; 262144 of a request), `n`
    choices, several prompts of a completion (up to 128 texts in all, each with a place in the queue). More than that
    are `top_k`, `min_p` and `repetition_penalty`, and `chat_template_kwargs` for both models' templates. A last message
    of the assistant is continued. Seeds have up to 64 bits; -1 is none. Under `hsd`, streams tell which pieces of
    text were drafted, and `usage` what was drafted and accepted. What would change the text and is not there, such as
    `tools` or `logit_bias`, is refused. With a seed that `--seed` takes and a temperature the text is that of
    `hsd generate`; further choices have seeds made of it. A folder or file is called by its own name.

    **Several GPUs**: `--device-map auto` puts the target's layers on all of them, if one does not hold it. Passes are
    shared only where the target is in one piece: in parts, the texts of `--batch-size` take turns, each in passes of
    its own, and all together take about as long as one after another.

    **Safety**: the server listens to this machine alone, and only if it is addressed as such, by no page but its own;
    it needs a key to listen elsewhere, and then wants it for all but the page and `/health`. It does no encryption: put
    it behind something that does. Requests of more than 4 MiB are refused.

    **Ctrl-C** or SIGTERM ends it: nothing new begins, what runs is finished. Exit codes: 0 ended, all that ran was
    finished; 1 failure, or something was cut off, after `--grace` seconds or by a second Ctrl-C; 2 usage.

    **Examples**

    `hsd serve -t MODEL -d DRAFTER`

    `HSD_API_KEY=SECRET hsd serve -t MODEL -d DRAFTER --host 0.0.0.0 --batch-size 16`
    """
    key = os.environ.get(KEY) if api_key is None else api_key
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise UsageError(
            f"the key of --api-key or {KEY} must be printable ASCII without spaces around it, and not empty"
        )
    pair = ChosenPair(models, drafting)
    with bound_socket(host, port) as listening:
        if key is None and not is_loopback(listening):
            raise UsageError(f"at {host} others can reach the server; set {KEY}, or leave --host out")
        _check_extra()
        loaded = pair.load(quiet)
        with leaving_at_once():
            from hsd_cli.batch_engine import BatchEngine
            from hsd_cli.engine import Request
            from hsd_cli.models.locate import own_name
            from hsd_cli.planner.batch_size import texts_that_fit
            from hsd_cli.serve.app import Service, create_app
            from hsd_cli.serve.server import serve
            from hsd_cli.serve.worker import Worker
            from hsd_cli.vocab.tokenizer import ModelTokenizer

            def make_engine() -> BatchEngine:
                return BatchEngine(loaded, batch_size or texts_that_fit(loaded.target, loaded.drafter))

            base = Request(
                "a",
                chat=False,
                algorithm=drafting.algorithm,
                lookahead=drafting.lookahead,
                verification=drafting.verification,
                max_new_tokens=2,
            )
            worker = Worker(make_engine, base, queue, say)
            worker.start()
            worker.ready.result()
            tokenizer = ModelTokenizer.of(loaded.target)
            service = Service(worker, own_name(pair.target), tokenizer, base, max_new_tokens, given=pair.target)
            app = create_app(service, key)

        def tell() -> None:
            if not quiet:
                say(f"serving {' with '.join(pair.names.values())} at {url(listening)} (Ctrl-C ends)")

        cut_off = serve(app, listening, worker, grace, tell)
        if cut_off:
            raise HsdError(f"{cut_off} request{' was' if cut_off == 1 else 's were'} cut off")


def _check_extra() -> None:
    for name in ("fastapi", "prometheus_client", "uvicorn"):
        try:
            import_module(name)
        except ImportError:
            raise HsdError(f"{name} is missing; run: pip install 'hsd-cli[serve]'") from None
