"""What a model looks at while it answers: attention of base model and expert over chosen records, as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metier.artifacts import Artifact
from metier.errors import Fault, InputError, nearest
from metier.models import LocalModel
from metier.models.attention import Packed
from metier.records import Record
from metier.shards import SPLITS, dataset_records

__all__ = ["MOST_TOKENS", "Looked", "attention_of", "attention_page", "records_named"]

MOST_TOKENS = 256
"""Longer records are refused: a map of more than 65,000 fields shows nothing."""

_CELL = 4.0


class _Watching(Packed):
    """Plain causal attention over one text that keeps each layer's probabilities, averaged over its heads."""

    def __init__(self, length: int) -> None:
        super().__init__([length])
        self.seen: dict[int, torch.Tensor] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Attend as `Packed` does, and remember what was looked at."""
        # What fills the row up stands behind the text, and is not shown.
        more = query.shape[2] - self.lengths[0]
        keys = key[0, :, : key.shape[2] - more].repeat_interleave(query.shape[1] // key.shape[1], dim=0)
        scores = torch.bmm(query[0, :, : self.lengths[0]].float(), keys.float().transpose(1, 2)) * scale
        places = torch.arange(scores.shape[1], device=scores.device)
        # Keys of virtual tokens stand before the text's own, and every token sees them.
        before = scores.shape[2] - scores.shape[1]
        apart = places[:, None] - torch.arange(-before, scores.shape[1], device=scores.device)[None]
        hidden = (apart < 0) | ((apart >= window) if window is not None else torch.zeros_like(apart, dtype=torch.bool))
        hidden[:, :before] = False
        self.seen[layer] = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1).mean(dim=0)[:, before:]
        return super().attend(layer, query, key, value, scale, window)


@dataclass(frozen=True, slots=True)
class Looked:
    """One record: its tokens as text, which of them are the answer's, and for each side the attention [tokens, tokens] of the asked layers."""

    record: str
    tokens: tuple[str, ...]
    learnt: tuple[bool, ...]
    sides: Mapping[str, Mapping[int, torch.Tensor]]


def records_named(dataset: Artifact, names: Sequence[str]) -> list[Record]:
    """Return the conversations with these ids, or first characters of ids. Raises InputError for those that are not there, all at once."""
    known = {record.id: record for split in SPLITS for record in dataset_records(dataset, split) if record.messages}
    found, faults = [], []
    for name in names:
        fitting = [record for identity, record in known.items() if identity.startswith(name)]
        if len(fitting) == 1:
            found.append(fitting[0])
        elif fitting:
            faults.append(Fault(f"{name!r} is the beginning of {len(fitting)} records' ids", remedy="give more characters"))
        else:
            faults.append(Fault(f"the dataset has no conversation {name!r}", remedy=nearest(name, list(known)[:1000])))
    if faults:
        raise InputError(faults)
    return found


@torch.inference_mode()
def attention_of(model: LocalModel, record: Record, layers: Sequence[int] | None) -> Looked:
    """Return what the base model and the expert look at in a record; `layers` None: the first, the middle and the last.

    Raises InputError for records that are too long and layers that the model does not have.
    """
    count = int(model.model.config.num_hidden_layers)
    chosen = sorted({0, count // 2, count - 1}) if layers is None else list(dict.fromkeys(layers))
    if odd := [layer for layer in chosen if not 0 <= layer < count]:
        raise InputError(f"the model has no layer {odd[0]}\n    -> layers are 0 to {count - 1}")
    sides: dict[str, dict[int, torch.Tensor]] = {"tuned": _read(model, record, chosen)}
    with model.without_adapter():
        sides = {"base": _read(model, record, chosen)} | sides
        encoded = model.chat.encode(record.messages)
    return Looked(record.id, tuple(_pieces(model.chat.tokenizer, encoded.tokens)), encoded.learn, sides)


def _pieces(tokenizer: Any, tokens: Sequence[int]) -> Iterator[str]:
    """Yield the text of each token; of a character that is several tokens long the last has it."""
    waiting: list[int] = []
    for place, token in enumerate(tokens):
        waiting.append(token)
        text = str(tokenizer.decode(waiting))
        if text.endswith("\ufffd") and place + 1 < len(tokens):
            yield ""
        else:
            yield text
            waiting = []


def _read(model: LocalModel, record: Record, layers: Sequence[int]) -> dict[int, torch.Tensor]:
    tokens = model.chat.encode(record.messages).tokens
    virtual = model.chat.virtual
    if len(tokens) - virtual > MOST_TOKENS:
        raise InputError(f"the record {record.id} has {len(tokens) - virtual} tokens, and at most {MOST_TOKENS} can be shown\n    -> choose a shorter one")
    plan = _Watching(len(tokens))
    model.hidden(tokens, range(len(tokens)), plan)
    # Virtual tokens have no text: what they draw is left out, so rows add up to less than one there.
    return {layer: plan.seen[layer][virtual:, virtual:].float().cpu() for layer in layers}


def attention_page(project: str, looked: Sequence[Looked]) -> str:
    """Return the page; everything is escaped, and it asks nobody for anything."""
    loader = FileSystemLoader(Path(__file__).parent / "data")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = [{"record": one.record, "texts": _texts(one), "maps": list(_maps(one))} for one in looked]
    return environment.get_template("attention.html.j2").render(project=project, records=shown)


def _texts(one: Looked) -> list[dict[str, Any]]:
    """Return the tokens with how much the answer looks at each, a share of the most looked at, for either side."""
    answering = torch.tensor(one.learnt).roll(-1)
    answering[-1] = False
    found = []
    for side, layers in one.sides.items():
        drawn = torch.stack([table[answering].sum(dim=0) for table in layers.values()]).mean(dim=0)
        # The first token draws what has nowhere else to go (attention sinks); beside it nothing else would be seen.
        most = float(drawn[1:].max()) if len(drawn) > 1 else 1.0
        shares = [min(1.0, float(value) / max(most, 1e-9)) for value in drawn]
        words = zip(one.tokens, shares, one.learnt, strict=True)
        found.append({"side": side, "tokens": [{"text": text, "share": round(share, 3), "answer": answer} for text, share, answer in words]})
    return found


def _maps(one: Looked) -> Iterator[dict[str, Any]]:
    for layer in next(iter(one.sides.values())):
        yield {"layer": layer, "pictures": [{"side": side, "picture": _picture(layers[layer], side)} for side, layers in one.sides.items()]}


def _picture(table: torch.Tensor, title: str) -> Markup:
    """Return the map as SVG: a row a token, its darkness what it looks at. Fields that would be invisible are not drawn."""
    size = len(table)
    fields = []
    for row, column in (table > 0.02).nonzero().tolist():
        shade = min(1.0, float(table[row, column]) * 2)
        fields.append(
            Markup('<rect x="{:.0f}" y="{:.0f}" width="{:.0f}" height="{:.0f}" opacity="{:.2f}"/>').format(column * _CELL, row * _CELL, _CELL, _CELL, shade)
        )
    head = Markup('<svg viewBox="0 0 {0:.0f} {0:.0f}" role="img" aria-label="attention, {1}" xmlns="http://www.w3.org/2000/svg">').format(size * _CELL, title)
    return head + Markup("").join(fields) + Markup("</svg>")
