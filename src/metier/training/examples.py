"""Examples as token ids, with what is known of the records they were made of: in columns that lie on disk and are mapped into memory.

Nothing but an example that is asked for becomes Python objects, so a million of them take hardly more memory than a thousand. The columns are
Arrow's (its file format, uncompressed), one batch of rows after the other::

    tokens  learn                                  of a conversation or a text
    tokens  kinds  places  targets                 of a text with labels
    learnt  id  task  domain  language  source  unit  person      of either
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, overload

import numpy as np
import pyarrow as pa

from metier.models import Encoded
from metier.records import Drop, Record

__all__ = ["GROUPS", "Collector", "Example", "Examples", "Labelled", "Origin", "Targets", "read_examples"]

GROUPS = ("task", "domain", "language", "source")
"""What examples are told apart by."""

Targets: TypeAlias = Literal["learn", "classes", "numbers", "rows"]
"""What is learnt of an example: some of its tokens; or at each place a class, a number, or a row of numbers."""

_STEP, _UNKNOWN = "training", "unknown"
_BATCH = 4096
_OPTIONS = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
_CODED = pa.dictionary(pa.int32(), pa.string())
_TARGETS = {"classes": pa.list_(pa.int32()), "numbers": pa.list_(pa.float64()), "rows": pa.list_(pa.list_(pa.float64()))}

Item_co = TypeVar("Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text as token ids with what is to be answered: `targets[i]` (a class, a number or a row of numbers) at the token `places[i]`.

    `kinds` is 1 for the tokens of the second text of a pair, and empty where there is one text.
    """

    tokens: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[Any, ...]
    kinds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


Example: TypeAlias = Encoded | Labelled
"""A conversation to learn to continue, or a text to learn to label."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of the record that an example was made of, beside its text."""

    id: str
    task: str
    domain: str
    language: str
    source: str
    unit: str
    """What is kept together where one person's influence is bounded: the person, or the row of the source where the record names none."""
    person: bool = False
    """Whether the unit is a person."""


class _View(Sequence[Item_co], Generic[Item_co]):
    """A row of things that are made when they are asked for."""

    def __init__(self, count: int, make: Callable[[int], Item_co]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Item_co: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item_co]: ...
    def __getitem__(self, place: int | slice) -> Item_co | list[Item_co]:
        if isinstance(place, slice):
            return [self._make(number) for number in range(*place.indices(self._count))]
        if not -self._count <= place < self._count:
            raise IndexError(place)
        return self._make(int(place) % self._count)


@dataclass(frozen=True, slots=True)
class _Lists:
    """A column of lists in one batch, as two arrays."""

    values: np.ndarray[Any, Any]
    ends: np.ndarray[Any, Any]

    @classmethod
    def of(cls, column: Any) -> _Lists:
        return cls(column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy())

    def at(self, row: int) -> tuple[Any, ...]:
        return tuple(self.values[self.ends[row] : self.ends[row + 1]].tolist())


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded records, where each came from, those that were left out, how many spans were widened to whole words and control tokens broken up."""

    table: pa.Table
    drops: Sequence[Drop] = ()
    widened: int = 0
    broken_up: int = 0
    members: tuple[int, ...] = ()
    """How many are those of each member of a joint training, one member's after the other's; empty where there is one training alone."""
    said: np.ndarray[Any, Any] | None = None
    """What a teacher says at each place of an answer [answers of all examples, outputs], fp32; not numbers where it says nothing."""
    sha256: str | None = None
    """Of the file that they were just written into, if they were."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def of_members(self) -> list[range]:
        """The places of each member's examples."""
        return [range(end - count, end) for count, end in zip(self.members, accumulate(self.members), strict=True)]

    @property
    def to_continue(self) -> bool:
        """Whether they are conversations and texts to learn to continue, not to label."""
        return "learn" in self.table.column_names

    def member_of(self, place: int) -> int:
        """Return the member, from 0, whose the example at a place is."""
        return bisect_right(list(accumulate(self.members)), place)

    @cached_property
    def examples(self) -> Sequence[Example]:
        """The examples by place."""
        return _View(len(self), self._example)

    @cached_property
    def origins(self) -> Sequence[Origin]:
        """Where each came from."""
        return _View(len(self), self._origin)

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of each example, int32 [examples]."""
        return np.concatenate([np.diff(batch.column("tokens").offsets.to_numpy()) for batch in self._batches] or [np.zeros(0)]).astype(np.int32)

    @cached_property
    def learnt(self) -> np.ndarray[Any, Any]:
        """Learnt tokens (or labels) of each example, int32 [examples]."""
        return np.asarray(self.table.column("learnt").to_numpy())

    def said_of(self, places: Sequence[int]) -> np.ndarray[Any, Any] | None:
        """Return what a teacher says of the examples at these places [their answers, outputs], None where there is no teacher."""
        if self.said is None:
            return None
        return np.concatenate([self.said[self._answers[place] : self._answers[place + 1]] for place in places])

    @cached_property
    def _answers(self) -> np.ndarray[Any, Any]:
        """The number of answers before each example."""
        return np.concatenate([[0], np.cumsum(self.learnt, dtype=np.int64)])

    @cached_property
    def _batches(self) -> list[Any]:
        return list(self.table.to_batches())

    @cached_property
    def _starts(self) -> list[int]:
        """The place of each batch's first example."""
        return [0, *accumulate(batch.num_rows for batch in self._batches)][:-1]

    @cached_property
    def _lists(self) -> dict[tuple[int, str], _Lists]:
        return {}

    def _at(self, place: int) -> tuple[int, int]:
        number = bisect_right(self._starts, place) - 1
        return number, place - self._starts[number]

    def _list(self, name: str, number: int, row: int) -> tuple[Any, ...]:
        found = self._lists.get((number, name))
        if found is None:
            found = self._lists[number, name] = _Lists.of(self._batches[number].column(name))
        return found.at(row)

    def _example(self, place: int) -> Example:
        number, row = self._at(place)
        tokens = self._list("tokens", number, row)
        if self.to_continue:
            return Encoded(tokens, tuple(map(bool, self._list("learn", number, row))))
        targets = self._batches[number].column("targets")[row].as_py()
        return Labelled(tokens, self._list("places", number, row), tuple(map(_plain, targets)), self._list("kinds", number, row))

    def _origin(self, place: int) -> Origin:
        number, row = self._at(place)
        batch = self._batches[number]
        return Origin(*(batch.column(name)[row].as_py() for name in ("id", *GROUPS, "unit", "person")))

    def groups(self, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return the places of the examples of each value of one of `GROUPS`, by value."""
        codes, values = self._coded(name)
        return {values[code]: np.flatnonzero(codes == code) for code in np.unique(codes)}

    def fitting(self, wanted: Mapping[str, Sequence[str]]) -> np.ndarray[Any, Any]:
        """Return the places of the examples whose groups fit one of the patterns that each of `wanted` names (all where it names none), int64."""
        fits = np.ones(len(self), dtype=bool)
        for name, patterns in wanted.items():
            codes, values = self._coded(name)
            right = [code for code, value in enumerate(values) if any(value == pattern or fnmatchcase(value, pattern) for pattern in patterns)]
            fits &= np.isin(codes, right)
        return np.flatnonzero(fits)

    def _coded(self, name: str) -> tuple[np.ndarray[Any, Any], list[str]]:
        column = self.table.column(name).unify_dictionaries()
        values = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
        codes = [chunk.indices.to_numpy() for chunk in column.chunks]
        return np.concatenate(codes) if codes else np.zeros(0, dtype=np.int32), values

    def joined(self, other: Examples) -> Examples:
        """Return these examples and, behind them, others of the same kind."""
        table = pa.concat_tables([self.table, other.table])
        return Examples(table, [*self.drops, *other.drops], self.widened + other.widened, self.broken_up + other.broken_up)

    @classmethod
    def together(cls, members: Sequence[Examples]) -> Examples:
        """Return the examples of several members, one's after the other's, without those that were left out: they are each member's own affair."""
        table = pa.concat_tables([member.table for member in members])
        return cls(table, broken_up=sum(member.broken_up for member in members), members=tuple(map(len, members)))

    @classmethod
    def none(cls) -> Examples:
        """Return no examples."""
        return cls(_schema("learn").empty_table())


def _plain(target: Any) -> Any:
    return tuple(target) if isinstance(target, list) else target


def _schema(targets: Targets) -> pa.Schema:
    about = [("learnt", pa.int32()), ("id", pa.string()), *((name, _CODED) for name in GROUPS), ("unit", pa.string()), ("person", pa.bool_())]
    if targets == "learn":
        return pa.schema([("tokens", pa.list_(pa.int32())), ("learn", pa.list_(pa.uint8())), *about])
    lists = [("tokens", pa.list_(pa.int32())), ("kinds", pa.list_(pa.uint8())), ("places", pa.list_(pa.int32())), ("targets", _TARGETS[targets])]
    return pa.schema([*lists, *about])


@dataclass(slots=True)
class _Words:
    """The few words that stand at every example, each once."""

    codes: dict[str, int] = field(default_factory=dict)

    def code(self, word: str) -> int:
        return self.codes.setdefault(word, len(self.codes))


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is written, from its first byte to its last; Arrow never goes back in it."""

    def __init__(self, path: Path) -> None:
        self.sha256 = hashlib.sha256()
        self._stream = path.open("wb")

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._stream.write(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class Collector:
    """Takes examples one by one and keeps them in columns: in a file, or (`path` None) in memory. A context manager."""

    def __init__(self, targets: Targets = "learn", path: Path | None = None) -> None:
        self.drops: list[Drop] = []
        self.widened = 0
        self.count = 0
        self._schema = _schema(targets)
        self._path = path
        self._file = None if path is None else _Hashed(path)
        self._sink: Any = pa.BufferOutputStream() if self._file is None else pa.PythonFile(self._file, "w")
        self._writer = pa.ipc.new_file(self._sink, self._schema, options=_OPTIONS)
        self._words = {name: _Words() for name in GROUPS}
        self._waiting: dict[str, list[Any]] = {name: [] for name in self._schema.names}

    def take(self, record: Record, example: Example, *, source: str | None = None) -> None:
        """Keep a record as this example; `source` stands for that of a record which comes from no file."""
        waiting, row = self._waiting, record.source
        waiting["tokens"].append(example.tokens)
        if isinstance(example, Encoded):
            waiting["learn"].append(np.asarray(example.learn, dtype=np.uint8))
            waiting["learnt"].append(sum(example.learn[1:]))
        else:
            for name in ("kinds", "places", "targets"):
                waiting[name].append(getattr(example, name))
            waiting["learnt"].append(len(example.targets))
        origin = source or ("" if row is None else row.uri)
        for name, word in zip(GROUPS, (record.task, record.domain, record.language, origin), strict=True):
            waiting[name].append(self._words[name].code(word or _UNKNOWN))
        waiting["id"].append(record.id)
        waiting["unit"].append(record.subject or (record.id if row is None else f"{row.digest} {row.position}"))
        waiting["person"].append(record.subject is not None)
        self.count += 1
        if self.count % _BATCH == 0:
            self._flush()

    def drop(self, record: Record, reason: str) -> None:
        """Leave a record out."""
        self.drops.append(Drop(record.id, _STEP, reason, record.source))

    def _flush(self) -> None:
        columns = []
        for item in self._schema:
            values = self._waiting[item.name]
            if item.name in self._words:
                codes, words = pa.array(values, pa.int32()), pa.array(list(self._words[item.name].codes), pa.string())
                columns.append(pa.DictionaryArray.from_arrays(codes, words))
            else:
                columns.append(pa.array(values, item.type))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._waiting = {name: [] for name in self._schema.names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._waiting["id"]:
            self._flush()
        self._writer.close()
        if self._file is not None:
            self._file.close()

    def collected(self, broken_up: int = 0) -> Examples:
        """Return what was taken, once the block has ended; `broken_up` control tokens stood in the texts."""
        source = self._sink.getvalue() if self._path is None else pa.memory_map(str(self._path))
        sha256 = None if self._file is None else self._file.sha256.hexdigest()
        return Examples(pa.ipc.open_file(source).read_all(), self.drops, self.widened, broken_up, sha256=sha256)


def read_examples(path: Path, drops: Iterable[Drop], *, widened: int, broken_up: int) -> Examples:
    """Return the examples of a file that a `Collector` has written. Raises pyarrow.ArrowInvalid or OSError if it cannot be read."""
    return Examples(pa.ipc.open_file(pa.memory_map(str(path))).read_all(), list(drops), widened, broken_up)
