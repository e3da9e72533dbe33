"""The commands of a chat: what they are called, what they take, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from hsd_cli.chat import transcript
from hsd_cli.chat.entry import SLASH, Command
from hsd_cli.chat.session import Session
from hsd_cli.chat.settings import SETTINGS
from hsd_cli.chat.totals import totals
from hsd_cli.errors import HsdError, UsageError
from hsd_cli.models.downloaded import downloaded_models
from hsd_cli.models.locate import embedded_models
from hsd_cli.runtime.placement import devices_of

NONE = "none"


@dataclass(frozen=True)
class Effect:
    """What is to happen after a command: lines to show, and a message to ask.

    ``again``: in the last turn's place. ``edit``: after the user's editor had it.
    """

    lines: Sequence[str] = ()
    message: str | None = None
    again: bool = False
    edit: bool = False
    leave: bool = False


@dataclass(frozen=True)
class SlashCommand:
    """``run`` raises ``HsdError``. ``values``: the words that may follow others. ``file``: it takes the name of one."""

    help: str
    run: Callable[[Session, str], Effect]
    takes: str = ""
    values: Callable[[Sequence[str]], Iterable[str]] = lambda _: ()
    file: bool = False


def run(session: Session, command: Command) -> Effect:
    """Raises ``HsdError``, which leaves everything as it was."""
    name = ALIASES.get(command.name, command.name)
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {SLASH}{near[0]}?" if near else f"{SLASH}help lists them."
        raise UsageError(f"no command {SLASH}{name}; {hint} To send it as a message, begin with {2 * SLASH}")
    return COMMANDS[name].run(session, command.argument)


def _help(_: Session, topic: str) -> Effect:
    topic = topic.removeprefix(SLASH)
    if topic == "set":
        return Effect(_table([(name, setting.form) for name, setting in SETTINGS.items()]))
    if topic in COMMANDS:
        return Effect(_table([(f"{SLASH}{topic} {COMMANDS[topic].takes}", COMMANDS[topic].help)]))
    lines = _table([(f"{SLASH}{name} {command.takes}", command.help) for name, command in COMMANDS.items()])
    keys = [
        ("Alt-Enter", "A new line; or put several between two lines of three quotes."),
        ("Ctrl-X Ctrl-E", "Go on writing in your editor."),
        ("Ctrl-C", "Ends the answer (a second one does not wait), or clears the line."),
        ("Ctrl-D", "Leaves."),
        (f"{2 * SLASH}…", "A message that begins with a slash."),
    ]
    return Effect([*lines, "", *_table(keys)])


def _set(session: Session, argument: str) -> Effect:
    name, *value = argument.split(maxsplit=1)[:2] or [""]
    if not name:
        return Effect(_settings(session))
    if not value and name in SETTINGS:
        return Effect([f"{name} is {session.settings.spelled(name)}; it can be {SETTINGS[name].form}"])
    return _change(session, name, "".join(value))


def _change(session: Session, name: str, value: str) -> Effect:
    session.settings = session.settings.changed(name, value)
    return Effect([f"{name} is {session.settings.spelled(name)}"])


def _set_values(words: Sequence[str]) -> Iterable[str]:
    if not words:
        return SETTINGS
    setting = SETTINGS.get(words[0])
    if setting is None or len(words) > 1:
        return ()
    return setting.values if setting.unset is None else (*setting.values, setting.unset)


def _show(session: Session, what: str) -> Effect:
    showing: Mapping[str, Callable[[Session], list[str]]] = {
        "settings": _settings,
        "system": _system_prompt,
        "models": _models,
        "transcript": _transcript,
    }
    if what and what not in showing:
        raise UsageError(f"{SLASH}show has no {what!r}; there are {', '.join(SHOWN)}")
    if what:
        return Effect(showing[what](session))
    return Effect([*_models(session), *_system_prompt(session), *_settings(session)])


def _settings(session: Session) -> list[str]:
    return _table([(name, session.settings.spelled(name)) for name in SETTINGS])


def _system_prompt(session: Session) -> list[str]:
    system = session.conversation.system
    return _table([("system", NONE if system is None else system)])


def _models(session: Session) -> list[str]:
    engine = session.engine
    return _table(
        [
            (role, f"{loaded.name} ({str(loaded.model.dtype).removeprefix('torch.')}, {devices_of(loaded.model)})")
            if loaded
            else (role, NONE)
            for role, loaded in (("target", engine.target), ("drafter", engine.drafter))
        ]
        + [("context", f"{engine.context_size} tokens")]
    )


def _transcript(session: Session) -> list[str]:
    said = session.conversation
    lines = []
    for number, turn in enumerate(said.turns, 1):
        away = " (left out)" if number <= said.left_out else ""
        lines += [f"you{away}: {turn.question}", f"model{away}: {turn.answer}"]
    return lines or ["nothing was said yet"]


def _system(session: Session, text: str) -> Effect:
    if text:
        session.conversation.system = None if text == NONE else text
    return Effect(_system_prompt(session))


def _algorithm(session: Session, name: str) -> Effect:
    if not name:
        return Effect([f"algorithm is {session.settings.algorithm}"])
    return _change(session, "algorithm", name)


def _draft(session: Session, name: str) -> Effect:
    if name:
        session.draft_with(None if name == NONE else name)
    return Effect(_models(session))


def _drafters(words: Sequence[str]) -> Iterable[str]:
    return () if words else (NONE, *embedded_models(), *downloaded_models())


def _stats(session: Session, _: str) -> Effect:
    return Effect(_table(totals(session.reports)) or ["nothing was written yet"])


def _clear(session: Session, _: str) -> Effect:
    session.conversation.clear()
    return Effect(["the conversation is forgotten; the system prompt stays"])


def _save(session: Session, file: str) -> Effect:
    path = _path(file)
    if path.exists():
        try:
            transcript.load(path)
        except HsdError as error:
            raise HsdError(f"{str(path)!r} exists, and it is no chat; choose another name") from error
    transcript.save(path, session.conversation, session.models)
    return Effect([f"saved to {str(path)!r}"])


def _load(session: Session, file: str) -> Effect:
    session.conversation, models = transcript.load(_path(file))
    return Effect(resumed(session, models))


def resumed(session: Session, models: Mapping[str, str]) -> list[str]:
    """What to say of a conversation that was held with ``models``."""
    turns = len(session.conversation.turns)
    target = session.engine.target.name
    other = models.get("target", target)
    lines = [f"{turns} {'turn' if turns == 1 else 'turns'} so far; {SLASH}show transcript shows them"]
    return lines if other == target else [*lines, f"until now the target was {other!r}"]


def _path(file: str) -> Path:
    if not file:
        raise UsageError("which file? give its name")
    return Path(file).expanduser()


def _retry(session: Session, _: str) -> Effect:
    return Effect(message=_last_question(session), again=True)


def _edit(session: Session, _: str) -> Effect:
    return Effect(message=_last_question(session), again=True, edit=True)


def _undo(session: Session, _: str) -> Effect:
    question = _last_question(session)
    session.conversation.remove_last()
    return Effect([f"taken back: {question}"])


def _last_question(session: Session) -> str:
    if not session.conversation.turns:
        raise UsageError("nothing was said yet")
    return session.conversation.turns[-1].question


def _bye(_: Session, __: str) -> Effect:
    return Effect(leave=True)


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:{width}}  {text}" for name, text in rows]


SHOWN = ("settings", "system", "models", "transcript")
COMMANDS: Mapping[str, SlashCommand] = {
    "help": SlashCommand("What can be typed here.", _help, "[COMMAND]", lambda words: () if words else COMMANDS),
    "set": SlashCommand("Changes a setting, or shows them all.", _set, "[NAME [VALUE]]", _set_values),
    "show": SlashCommand("Settings, system prompt, models, transcript.", _show, "[WHAT]", lambda w: () if w else SHOWN),
    "system": SlashCommand("Changes the system prompt.", _system, f"[TEXT|{NONE}]"),
    "algorithm": SlashCommand(
        "Changes how drafts are made.", _algorithm, "[NAME]", lambda words: _set_values(["algorithm", *words])
    ),
    "draft": SlashCommand("Takes another drafter, or none.", _draft, f"[MODEL|{NONE}]", _drafters),
    "stats": SlashCommand("Counts and times of all answers so far.", _stats),
    "clear": SlashCommand("Forgets the conversation.", _clear),
    "save": SlashCommand("Writes the conversation to a file.", _save, "FILE", file=True),
    "load": SlashCommand("Goes on with the conversation in a file.", _load, "FILE", file=True),
    "retry": SlashCommand("Has the last answer written again.", _retry),
    "undo": SlashCommand("Takes the last turn back.", _undo),
    "edit": SlashCommand("Opens your editor on the last message, and asks again.", _edit),
    "bye": SlashCommand("Leaves.", _bye),
}
ALIASES = {"?": "help", "exit": "bye", "quit": "bye"}
