"""Question and answer of a record, whatever its form."""

from __future__ import annotations

from dataclasses import dataclass

from metier.records import Message, Record

__all__ = ["Exchange", "exchange"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is judged: everything asked, everything answered, and the last answer with the turns before it."""

    question: str
    answer: str
    prompt: tuple[Message, ...] = ()
    last: str = ""
    turns: tuple[str, ...] = ()
    """Each message that is learnt or asked, for rules on single turns."""

    @property
    def paired(self) -> bool:
        """Whether there is a question with an answer."""
        return bool(self.question.strip() and self.answer.strip())


def exchange(record: Record, *, question: str = "question", answer: str = "answer") -> Exchange:
    """Return question and answer: of a conversation what users say and what is learnt, of a row its columns, else its text alone."""
    messages = record.messages
    if messages:
        learnt = [index for index, message in enumerate(messages) if message.learn]
        if not learnt:
            return Exchange("", "\n".join(message.content for message in messages), turns=tuple(message.content for message in messages))
        last = learnt[-1]
        asked = [message.content for message in messages[: last + 1] if message.role == "user"]
        said = [messages[index].content for index in learnt]
        return Exchange("\n".join(asked), "\n".join(said), messages[:last], messages[last].content, (*asked, *said))
    ask, say = record.metadata.get(question), record.metadata.get(answer)
    if isinstance(ask, str) and isinstance(say, str):
        return Exchange(ask, say, (Message("user", ask),), say, (ask, say))
    return Exchange("", record.text, turns=(record.text,) if record.text else ())
