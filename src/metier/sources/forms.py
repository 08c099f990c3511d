"""Rows as records: chat messages, alpaca, ShareGPT, prompt and completion, tagged words, or plain fields for templates and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, cast

from metier.errors import nearest
from metier.records import Message, Record, Role
from metier.sources.settings import SourceSettings
from metier.sources.tagged import SpanError, joined, spans_of_column

__all__ = ["Form", "UnfitError", "choose_form", "missing_columns", "to_record", "used_columns"]

Form: TypeAlias = Literal["messages", "alpaca", "sharegpt", "prompt-completion", "tagged", "fields"]

_REQUIRED: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "tagged": ("tokens", "tags"),
    "fields": (),
}
_OPTIONAL: dict[Form, tuple[str, ...]] = {"alpaca": ("input", "system", "history"), "sharegpt": ("system",)}
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "system": "system"}


class UnfitError(Exception):
    """A row does not fit its form; the text is the reason of the drop. It never holds the row's content."""


def choose_form(settings: SourceSettings, names: Iterable[str]) -> Form | None:
    """Return the form of a source's rows: the one declared, else the one whose required names are columns, else None.

    `names` are the columns of the first row. A source with `columns` of its own that complete no form gives plain fields.
    """
    if settings.format in _REQUIRED:
        return cast("Form", settings.format)
    wanted = {*names, *settings.columns}
    for form, required in _REQUIRED.items():
        if required and wanted.issuperset(required):
            return form
    if settings.columns or "text" in wanted:
        return "fields"
    return None


def missing_columns(settings: SourceSettings, form: Form, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return (column, remedy) for every column that a table has to have for its form and settings and does not."""
    present = list(names)
    wanted = [settings.columns.get(name, name) for name in _REQUIRED[form]]
    wanted += [*settings.columns.values(), *filter(None, (settings.subject, settings.group, settings.time))]
    return [(name, nearest(name, present)) for name in dict.fromkeys(wanted) if name not in present]


def used_columns(settings: SourceSettings, form: Form) -> list[str]:
    """Return the columns that a source reads: those of its form, those it maps, and its keys."""
    columns = settings.columns
    names = [columns.get(name, name) for name in (*_REQUIRED[form], *_OPTIONAL.get(form, ()), *(["text"] if form == "fields" else []))]
    return [*dict.fromkeys([*names, *columns.values(), *filter(None, (settings.subject, settings.group, settings.time))])]


def to_record(values: Mapping[str, Any], form: Form, settings: SourceSettings) -> Record:
    """Return the record of a row; its id, source and group are still to be filled in. Raises UnfitError."""
    columns = settings.columns
    form_names = {*_REQUIRED[form], *_OPTIONAL.get(form, ())}
    row = {name: values[columns.get(name, name)] for name in form_names if columns.get(name, name) in values}
    for name in _REQUIRED[form]:
        if name not in row:
            raise UnfitError(f"missing_key:{columns.get(name, name)}")
    messages = _BUILDERS[form](row)
    if messages:
        _check_turns(messages)
    extra = {name: _column(values, column) for name, column in columns.items() if name not in form_names}
    text = _text_of(extra.pop("text", values.get("text") if form == "fields" and "text" not in columns else None))
    label = extra.pop("label", None)
    try:
        text, spans = joined(row["tokens"], row["tags"]) if form == "tagged" else (text, spans_of_column(extra.pop("spans", None), text))
    except SpanError as error:
        raise UnfitError(str(error)) from None
    language, task = _key(extra.pop("language", None), "language"), _key(extra.pop("task", None), "task")
    if not messages and not text.strip() and not any(_filled(value) for value in extra.values()):
        raise UnfitError("empty_content")
    return Record(
        id="",
        text=text,
        messages=messages,
        label=_key(label, "label"),
        spans=spans,
        language=language or settings.language,
        task=task or settings.task,
        subject=_from_column(values, settings.subject),
        group=_from_column(values, settings.group),
        time=_from_column(values, settings.time),
        metadata=extra,
    )


def _column(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise UnfitError(f"missing_key:{name}")
    return values[name]


def _from_column(values: Mapping[str, Any], name: str | None) -> str | None:
    return None if name is None else _key(_column(values, name), name)


def _key(value: Any, name: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, list | dict):
        raise UnfitError(f"wrong_type:{name} is no single value")
    return str(value).strip() or None


def _filled(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None and value not in ([], {})


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnfitError(f"wrong_type:text is {_kind(value)}, not text")
    return value


def _kind(value: Any) -> str:
    return {"NoneType": "null", "dict": "an object", "list": "a list", "bool": "true or false"}.get(type(value).__name__, "a number")


def _content(row: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    value = row.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise UnfitError(f"wrong_type:{name} is {_kind(value)}, not text")
    if required and not value.strip():
        raise UnfitError(f"empty_content:{name}")
    return value


def _turn(role: str, content: str, learn: bool | None = None) -> Message:
    return Message(cast("Role", role), content, role == "assistant" if learn is None else learn)


def _messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return _turns(row["messages"], "messages")


def _turns(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise UnfitError(f"wrong_type:{name} is {_kind(value)}, not a list")
    found = []
    for item in value:
        if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
            raise UnfitError(f"wrong_type:an item of {name} is no object with role and content")
        if item["role"] not in ("system", "user", "assistant"):
            raise UnfitError("unknown_role:only system, user and assistant are taught")
        learn = item.get("learn")
        if learn is not None and not (isinstance(learn, bool) and item["role"] == "assistant"):
            raise UnfitError("wrong_type:learn is true or false, and only on assistant messages")
        found.append(_turn(item["role"], _content(item, "content"), learn))
    return tuple(found)


def _sharegpt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise UnfitError(f"wrong_type:conversations is {_kind(turns)}, not a list")
    found = _system(row)
    for item in turns:
        if not isinstance(item, dict) or not {"from", "value"} <= item.keys():
            raise UnfitError("wrong_type:an item of conversations is no object with from and value")
        if not isinstance(item["from"], str) or item["from"] not in _SHAREGPT_ROLES:
            raise UnfitError("unknown_role:only system, human and gpt are taught")
        found.append(_turn(_SHAREGPT_ROLES[item["from"]], _content(item, "value")))
    return tuple(found)


def _system(row: Mapping[str, Any]) -> list[Message]:
    system = _content(row, "system", required=False)
    return [_turn("system", system)] if system.strip() else []


def _alpaca(row: Mapping[str, Any]) -> tuple[Message, ...]:
    found = _system(row)
    history = row.get("history") or []
    if not isinstance(history, list):
        raise UnfitError(f"wrong_type:history is {_kind(history)}, not a list")
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2:
            raise UnfitError("wrong_type:an item of history is no pair of question and answer")
        turn = {"question in history": pair[0], "answer in history": pair[1]}
        found += [_turn("user", _content(turn, "question in history")), _turn("assistant", _content(turn, "answer in history"))]
    question, extra = _content(row, "instruction"), _content(row, "input", required=False)
    return (*found, _turn("user", f"{question}\n{extra}" if extra.strip() else question), _turn("assistant", _content(row, "output")))


def _prompt_completion(row: Mapping[str, Any]) -> tuple[Message, ...]:
    parts: list[tuple[Message, ...]] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        value = row[name]
        parts.append(_turns(value, name) if isinstance(value, list) else (_turn(role, _content(row, name)),))
    return (*parts[0], *parts[1])


def _no_turns(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return ()


_BUILDERS: dict[Form, Callable[[Mapping[str, Any]], tuple[Message, ...]]] = {
    "messages": _messages,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "prompt-completion": _prompt_completion,
    "tagged": _no_turns,
    "fields": _no_turns,
}


def _check_turns(messages: tuple[Message, ...]) -> None:
    """Refuse conversations that chat templates refuse: roles out of turn, or nothing to learn."""
    turns = [message.role for message in messages]
    if turns and turns[0] == "system":
        turns = turns[1:]
    if not any(message.learn for message in messages):
        raise UnfitError("nothing_to_learn:no assistant message is learnt")
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(turns)):
        raise UnfitError("roles_out_of_turn:user and assistant have to alternate, the user first")
