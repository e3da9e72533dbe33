"""``hsd completion``: the script that a shell needs, and the answers to the questions that the script asks.

A script sets ``_HSD_LINE`` to the command line up to the cursor and runs ``hsd``, which then prints one candidate per
line: the whole word, a tab, and what it means. The answer is worked out from the commands' parameters alone: typer's
own would convert the values given so far and describe the options with Rich, which takes longer than a key press may.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, NamedTuple

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from hsd_cli.commands.optional_values import may_lack_value

LINE = "_HSD_LINE"

BASH = """\
# Completion of hsd for bash; load it with: eval "$(hsd completion bash)"

_hsd() {
    local line="${COMP_LINE:0:COMP_POINT}" breaks="${COMP_WORDBREAKS//[^:=]/}" kept="" candidate
    COMPREPLY=()
    if [[ -n $breaks ]]; then
        # To bash a new word begins after these: what stands before them must not be given again.
        kept="${line##*[[:space:]]}"
        kept="${kept%"${kept##*[$breaks]}"}"
    fi
    while IFS=$'\\t' read -r candidate _; do
        printf -v candidate %q "${candidate#"$kept"}"
        COMPREPLY+=("$candidate")
    done < <(_HSD_LINE="$line" "$1" 2>/dev/null)
}

complete -o default -F _hsd hsd
"""

ZSH = """\
#compdef hsd
# Completion of hsd for zsh; put it into a folder of $fpath as _hsd.

_hsd() {
    local -a candidates
    local candidate description
    while IFS=$'\\t' read -r candidate description; do
        candidates+=("${candidate//:/\\\\:}:$description")
    done < <(_HSD_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" hsd 2>/dev/null)
    if (( $#candidates )); then
        _describe hsd candidates
    else
        _files
    fi
}

if [[ $funcstack[1] == _hsd ]]; then
    _hsd "$@"
else
    compdef _hsd hsd
fi
"""

FISH = """\
# Completion of hsd for fish; put it into ~/.config/fish/completions as hsd.fish.

function __hsd_candidates
    set -l candidates (env _HSD_LINE=(commandline --cut-at-cursor --current-process | string collect) hsd 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\\n' $candidates
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end

complete --command hsd --no-files --arguments '(__hsd_candidates)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="For which shell.")]) -> None:
    """Print the script that lets your shell complete commands, options, models, pairs and keys.

    **Examples**

    `echo 'eval "$(hsd completion bash)"' >> ~/.bashrc`

    `hsd completion zsh > ~/.zfunc/_hsd` where `~/.zfunc` is in `$fpath`

    `hsd completion fish > ~/.config/fish/completions/hsd.fish`
    """
    typer.echo(SCRIPTS[shell], nl=False)


class Candidate(NamedTuple):
    word: str
    meaning: str = ""


def answer(root: TyperGroup, line: str) -> None:
    """Prints the candidates for the last word of ``line``."""
    for candidate in candidates(root, line):
        typer.echo(f"{candidate.word}\t{candidate.meaning}")


def candidates(root: TyperGroup, line: str) -> list[Candidate]:
    """What the last word of ``line`` may become; none if that is for the shell to know, as with files."""
    given, last = _words(line)
    context = typer.Context(root, info_name="hsd", help_option_names=root.context_settings["help_option_names"])
    option: TyperOption | None = None  # that still lacks its value
    options_end = False
    for word in given[1:]:
        command = context.command
        if option is not None and _is_value(option, word):
            context.params[option.name], option = word, None
        elif word == "--":
            options_end = True
        elif word.startswith("-") and not options_end:
            name, equals, value = word.partition("=")
            option = _option(context, name)
            if option is None:
                continue
            if option.is_flag or equals:
                context.params[option.name], option = value, None
        elif isinstance(command, TyperGroup):
            if word not in command.commands:
                return []
            context = typer.Context(command.commands[word], parent=context, info_name=word)
        elif (argument := _argument(context)) is not None:
            context.params[argument.name] = word

    found: Iterable[Candidate]
    if option is not None and _is_value(option, last):
        found = _values(context, option, last)
    elif last.startswith("-") and not options_end:
        name, equals, value = last.partition("=")
        named = _option(context, name)
        if equals:
            found = [] if named is None else [Candidate(f"{name}={word}") for word, _ in _values(context, named, value)]
        else:
            found = _options(context)
    elif isinstance(context.command, TyperGroup):
        found = (Candidate(name, _brief(command.help)) for name, command in context.command.commands.items())
    else:
        argument = _argument(context)
        found = () if argument is None else _values(context, argument, last)
    # A folder's name may be anything, and what is offered gets to the terminal.
    return [candidate for candidate in found if candidate.word.startswith(last) and candidate.word.isprintable()]


def _words(line: str) -> tuple[list[str], str]:
    """The finished words, and the last, which may be empty or have a quotation mark still open."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        return words, lexer.token
    return (words, "") if not words or line[-1].isspace() else (words[:-1], words[-1])


def _option(context: typer.Context, name: str) -> TyperOption | None:
    for parameter in context.command.get_params(context):
        if isinstance(parameter, TyperOption) and name in [*parameter.opts, *parameter.secondary_opts]:
            return parameter
    return None


def _is_value(option: TyperOption, word: str) -> bool:
    return not (may_lack_value(option) and word.startswith("-"))


def _argument(context: typer.Context) -> TyperArgument | None:
    """The first that has no word yet, or takes any number of them."""
    for parameter in context.command.params:
        if isinstance(parameter, TyperArgument) and (parameter.nargs == -1 or parameter.name not in context.params):
            return parameter
    return None


def _options(context: typer.Context) -> Iterator[Candidate]:
    for parameter in context.command.get_params(context):
        if not isinstance(parameter, TyperOption) or parameter.hidden:
            continue
        if parameter.multiple or parameter.name not in context.params:
            for name in [*parameter.opts, *parameter.secondary_opts]:
                yield Candidate(name, _brief(parameter.help))


def _values(context: typer.Context, parameter: TyperOption | TyperArgument, start: str) -> Iterator[Candidate]:
    return (Candidate(item.value, _brief(item.help)) for item in parameter.shell_complete(context, start))


def _brief(text: str | None) -> str:
    """The first sentence, without markup."""
    return " ".join((text or "").split("\n\n")[0].split()).partition(". ")[0].replace("`", "").rstrip(".")
