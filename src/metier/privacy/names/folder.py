"""Names by a token-classification model that lies in a folder, in the form that Hugging Face's libraries write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metier.errors import Fault, MissingExtra, ModelError
from metier.privacy.names.settings import FolderSettings
from metier.records import Span

__all__ = ["FolderTagger"]

_MOST_TOKENS = 512


class _Token(NamedTuple):
    """One word of a window: where it stands in the text, the model's label and its probability."""

    start: int
    end: int
    label: str
    score: float


class FolderTagger:
    """A token classifier read from local files only, safetensors only, no code of the folder's own. Loads at the first text."""

    def __init__(self, settings: FolderSettings, *, root: Path | None = None) -> None:
        self.settings = settings
        self.folder = (root or Path()) / settings.folder
        self.name = f"model:{self.folder.name}"
        self._loaded: tuple[Any, Any, dict[int, str]] | None = None
        _check(self.folder)

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return the spans of each text in order; offsets are code points.

        A text longer than a window is read in overlapping ones, and each word is taken from the window in which it stands farther from an
        edge. Raises ModelError where the model cannot be read.
        """
        tokenizer, model, names = self._model()
        window = self._window(tokenizer, model)
        full = [(number, text) for number, text in enumerate(texts) if text.strip()]
        words: list[dict[int, _Token]] = [{} for _ in texts]
        if full:
            encoded = tokenizer(
                [text for _, text in full],
                truncation=True,
                max_length=window,
                stride=min(self.settings.overlap, (window - tokenizer.num_special_tokens_to_add()) // 2),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            rows = sorted(range(len(encoded["input_ids"])), key=lambda row: -len(encoded["input_ids"][row]))
            margins: list[dict[int, int]] = [{} for _ in texts]
            for first in range(0, len(rows), self.settings.batch):
                part = rows[first : first + self.settings.batch]
                for row, read in zip(part, self._read(tokenizer, model, encoded, part, names), strict=True):
                    number = full[encoded["overflow_to_sample_mapping"][row]][0]
                    for place, token in enumerate(read):
                        margin = min(place, len(read) - 1 - place)
                        if margin > margins[number].get(token.start, -1):
                            margins[number][token.start] = margin
                            words[number][token.start] = token
        return [tuple(self._spans(text, [found[start] for start in sorted(found)])) for text, found in zip(texts, words, strict=True)]

    def _model(self) -> tuple[Any, Any, dict[int, str]]:
        if self._loaded is None:
            self._loaded = _load(self.folder, self.settings)
        return self._loaded

    def _window(self, tokenizer: Any, model: Any) -> int:
        places = getattr(model.config, "max_position_embeddings", None) or _MOST_TOKENS
        # Models of RoBERTa's kind count their places from the padding's number on.
        if model.config.model_type in {"roberta", "xlm-roberta", "camembert", "longformer"}:
            places -= 2
        most = min(self.settings.window or _MOST_TOKENS, places, tokenizer.model_max_length)
        if most < tokenizer.num_special_tokens_to_add() + 2:
            raise ModelError(Fault(f"a window of {most} tokens is too small", path=self.folder, key="window", remedy="leave window at 0"))
        return int(most)

    def _read(self, tokenizer: Any, model: Any, encoded: Any, rows: Sequence[int], names: dict[int, str]) -> list[list[_Token]]:
        """Return the words of some windows with the label of each word's first piece."""
        import torch

        batch = tokenizer.pad(
            {key: [encoded[key][row] for row in rows] for key in encoded if key in {"input_ids", "attention_mask", "token_type_ids"}}, return_tensors="pt"
        )
        with torch.inference_mode():
            scores, best = model(**batch).logits.float().softmax(-1).max(-1)
        out = []
        for place, row in enumerate(rows):
            words: list[_Token] = []
            previous = None
            offset = int(tokenizer.padding_side == "left") * (best.shape[1] - len(encoded["input_ids"][row]))
            for token, (word, (start, end)) in enumerate(zip(encoded.word_ids(row), encoded["offset_mapping"][row], strict=True)):
                if word is None or start == end:
                    continue
                if word == previous and words:
                    words[-1] = words[-1]._replace(end=end)
                else:
                    words.append(_Token(start, end, names[int(best[place, offset + token])], float(scores[place, offset + token])))
                previous = word
            out.append(words)
        return out

    def _spans(self, text: str, words: Sequence[_Token]) -> Iterator[Span]:
        """Yield the entities: words of one label that follow each other; B- and S- begin a new one."""
        run: list[_Token] = []
        kind = ""
        for word in [*words, _Token(len(text), len(text), "O", 1.0)]:
            mark, dash, label = word.label.partition("-")
            label = label if dash and mark in {"B", "I", "E", "S", "L", "U", "M"} else word.label
            if run and (label != kind or mark in {"B", "S", "U"}):
                yield from self._span(text, run, kind)
                run = []
            if label in self.settings.labels:
                run.append(word)
            kind = label

    def _span(self, text: str, run: Sequence[_Token], kind: str) -> Iterator[Span]:
        start, end = run[0].start, run[-1].end
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        score = sum(word.score for word in run) / len(run)
        if start < end and score >= self.settings.minimum_score:
            yield Span(start, end, self.settings.labels[kind], text[start:end], round(score, 4), self.name)


def _check(folder: Path) -> None:
    faults = [
        Fault(f"there is no {what}", path=folder, key="names.detectors", remedy=remedy)
        for what, found, remedy in (
            ("config.json", (folder / "config.json").is_file(), "name a folder that save_pretrained wrote"),
            ("tokenizer.json", (folder / "tokenizer.json").is_file(), "save the fast tokenizer beside the model: only it knows where a word stands"),
            ("*.safetensors", any(folder.glob("*.safetensors")), "save the model with safe_serialization=True; pickled weights are not read"),
        )
        if not found
    ]
    if faults:
        raise ModelError("\n".join(map(str, faults)))


def _load(folder: Path, settings: FolderSettings) -> tuple[Any, Any, dict[int, str]]:
    try:
        from transformers import AutoModelForTokenClassification, AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "train", "a name detector from a model folder") from None
    place = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, **place)
        model = AutoModelForTokenClassification.from_pretrained(str(folder), use_safetensors=True, **place).eval()
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(
            Fault(f"the model cannot be read: {fault}", path=folder, key="names.detectors", remedy="name a folder with a token classifier")
        ) from fault
    names = {int(number): str(label) for number, label in model.config.id2label.items()}
    known = sorted({label.partition("-")[2] or label for label in names.values()} - {"O"})
    if not set(known) & set(settings.labels):
        remedy = f"map one of {', '.join(known)} to an entity under labels"
        raise ModelError(Fault("the model knows none of the labels that are wanted", path=folder, key="names.detectors.labels", remedy=remedy))
    return tokenizer, model, names
