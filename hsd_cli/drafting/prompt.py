"""The prompt as a drafter reads it. Any rendering will do: it changes what is guessed, never the text."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hsd_cli.vocab.tokenizer import ModelTokenizer, Prompt, Rendered, TemplateRefusalError


def read_by_drafter(
    tokenizer: ModelTokenizer,
    prompt: Prompt,
    system: str | None,
    chat: bool,
    template_kwargs: Mapping[str, Any],
    by_target: Rendered,
) -> tuple[Rendered, TemplateRefusalError | None]:
    """The drafter's own chat, and why its template does not take the conversation, if so. Then what the system says
    goes into the user's first message, and where that does not help it is what the target reads."""
    try:
        return tokenizer.render(prompt, system, chat, None, template_kwargs), None
    except TemplateRefusalError as error:
        refusal = error
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    instructions = [] if system is None else [system]
    instructions += [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    first = next((place for place, message in enumerate(others) if message["role"] == "user"), None)
    if instructions and first is not None:
        others[first] = {"role": "user", "content": "\n\n".join([*instructions, others[first]["content"]])}
        with suppress(TemplateRefusalError):
            return tokenizer.render(others, None, chat, None, template_kwargs), refusal
    return tokenizer.render(by_target.text), refusal
