"""What each method trains of a model with a head is saved with the head, opens again with the same numbers, and PEFT reads it where it knows the method."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from metier.errors import ModelError
from metier.models import Base, load_tokenizer, resolve
from metier.models.adapterfile import adapter_faults
from metier.models.heads import label_scores, layout_of, load_with_head, whole_in_single_precision
from metier.models.labelfiles import load_trained, save_trained
from metier.models.labeller import packed
from metier.models.labels import Labelling
from metier.models.methods import METHODS, Shape, Tuned, attach_method
from metier.models.words import Reading, TextReader

LABELLINGS = {"texts": Labelling("classification", ("a", "b", "c"), 128), "words": Labelling("tagging", ("Color", "Thing"), 128)}
SHAPE = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)
TEXTS = ["The red pen is on the left.", "红笔在左边。", "a", "green lamps 3 盏"]
PEFT_KNOWS = ["lora", "rslora", "dora", "adalora", "gated-lora", "prefix", "p-tuning", "prompt"]


def trained(base: Base, method: str, labelling: Labelling, dtype: torch.dtype = torch.float32) -> tuple[Any, Tuned]:
    """Return a model whose trained part, and head, are far from where they began."""
    model = load_with_head(base, labelling, dtype, seed=0, frozen=True)
    tuned = attach_method(model, method, SHAPE, seed=0)
    whole_in_single_precision(model)
    for name in model.trained_whole:
        model.get_submodule(name).requires_grad_(True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.numel() > 1:
                parameter.add_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
    return model, tuned


def scores_of(model: Any, labelling: Labelling, readings: list[Reading]) -> torch.Tensor:
    layout = layout_of(model, labelling)
    row = packed(readings, layout)
    with torch.inference_mode():
        return label_scores(model, layout, row.pop("tokens"), row.pop("positions"), lengths=[len(item) for item in readings], **row)


def readings_of(base: Base, labelling: Labelling, virtual: int) -> list[Reading]:
    reader = TextReader(load_tokenizer(base), virtual=virtual)
    return [reader.by_word(text) for text in TEXTS] if labelling.by_word else reader.whole(TEXTS)


@pytest.mark.parametrize("form", LABELLINGS)
@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "full"])
def test_it_opens_again_with_the_same_numbers_packed_or_alone(method: str, kind: str, form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base, labelling = request.getfixturevalue(kind), LABELLINGS[form]
    model, tuned = trained(base, method, labelling)
    readings = readings_of(base, labelling, tuned.virtual)
    together = scores_of(model, labelling, readings)
    alone = torch.cat([scores_of(model, labelling, [reading]) for reading in readings])
    assert torch.allclose(together, alone, atol=1e-4)
    save_trained(model, tmp_path, labelling, base=base, tuned=tuned, tokenizer=load_tokenizer(base))
    assert adapter_faults(tmp_path) == []
    again, known, virtual = load_trained(base, tmp_path, torch.float32)
    assert (known, virtual) == (labelling, tuned.virtual)
    # Weights packed to four bits are whole again.
    assert torch.allclose(scores_of(again, labelling, readings), together, atol=2 if method == "qlora" else 1e-4)
    rough = scores_of(load_trained(base, tmp_path, torch.bfloat16)[0], labelling, readings)
    assert torch.nn.functional.cosine_similarity(rough.flatten(), scores_of(again, labelling, readings).flatten(), dim=0) > 0.99
    if not tuned.virtual:
        tuned.enable(False)
        assert not torch.allclose(scores_of(model, labelling, readings), together, atol=1e-2)


# PEFT gathers a text at an encoder's first place, which is a virtual token there; here it is the text's own first token.
GATHERED_ELSEWHERE = {("prompt", "encoder", "texts"), ("p-tuning", "encoder", "texts")}
READ_ALIKE = [cell for cell in product(PEFT_KNOWS, ("encoder", "base"), LABELLINGS) if cell not in GATHERED_ELSEWHERE]


@pytest.mark.parametrize(("method", "kind", "form"), READ_ALIKE)
def test_peft_reads_it_and_gives_the_same_numbers(method: str, kind: str, form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base, labelling = request.getfixturevalue(kind), LABELLINGS[form]
    model, tuned = trained(base, method, labelling)
    save_trained(model, tmp_path, labelling, base=base, tuned=tuned, tokenizer=load_tokenizer(base))
    plain = type(model).from_pretrained(base.folder, config=model.config, attn_implementation="eager", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    layout = layout_of(model, labelling)
    for reading in readings_of(base, labelling, tuned.virtual):
        real = torch.tensor([reading.tokens[reading.begin :]])
        with torch.inference_mode():
            logits = theirs(input_ids=real, attention_mask=torch.ones_like(real)).logits
        if labelling.by_word:
            skipped = reading.begin if logits.shape[1] == real.shape[1] else 0
            logits = logits[0, [place - skipped for place in (reading.lasts if layout.causal else reading.firsts)]]
        assert torch.allclose(scores_of(model, labelling, [reading]), logits, atol=2e-4)


@pytest.mark.parametrize("method", ["lora", "dora", "partial", "adapter", "prompt"])
def test_a_stored_pooler_is_adapted_too(method: str, tmp_path: Path, encoder: Base) -> None:
    transformers.BertModel.from_pretrained(encoder.folder).save_pretrained(tmp_path / "base")
    load_tokenizer(encoder).save_pretrained(tmp_path / "base")
    base, labelling = resolve(str(tmp_path / "base"), root=tmp_path), LABELLINGS["texts"]
    for dtype in (torch.float32, torch.bfloat16):
        model, tuned = trained(base, method, labelling, dtype)
        assert model.trained_whole == ("classifier",)
        assert any("pooler" in name for name in tuned.state()) is (method in ("lora", "dora", "partial"))
        readings = readings_of(base, labelling, tuned.virtual)
        expected = scores_of(model, labelling, readings)
        save_trained(model, tmp_path / "saved", labelling, base=base, tuned=tuned, tokenizer=load_tokenizer(base))
        again = scores_of(load_trained(base, tmp_path / "saved", dtype)[0], labelling, readings)
        assert torch.allclose(again, expected, atol=1e-4 if dtype == torch.float32 else 0.1)


def test_a_head_that_is_missing_or_of_another_model_is_refused(tmp_path: Path, encoder: Base) -> None:
    labelling = LABELLINGS["words"]
    model, tuned = trained(encoder, "prompt", labelling)
    save_trained(model, tmp_path, Labelling("tagging", ("Color",), 128), base=encoder, tuned=tuned, tokenizer=load_tokenizer(encoder))
    with pytest.raises(ModelError, match=r"has shape \(5, 64\), the base model needs \(3, 64\)"):
        load_trained(encoder, tmp_path, torch.float32)
    model.trained_whole = ()
    save_trained(model, tmp_path, labelling, base=encoder, tuned=tuned, tokenizer=load_tokenizer(encoder))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == []
    with pytest.raises(ModelError, match=r"2 tensors differ, first 'base_model\.classifier\.bias'"):
        load_trained(encoder, tmp_path, torch.float32)


def test_the_parallel_bottleneck_of_an_encoder_is_added_before_the_norm(encoder: Base) -> None:
    labelling = LABELLINGS["words"]
    model, _ = trained(encoder, "parallel-adapter", labelling)
    plain = load_with_head(encoder, labelling, torch.float32, seed=0, frozen=True)
    ours, theirs = model.bert.encoder.layer[0].output, plain.bert.encoder.layer[0].output
    inner, x = torch.randn(3, theirs.dense.in_features), torch.randn(3, theirs.dense.out_features)
    with torch.inference_mode():
        beside = 4 * torch.relu(x @ ours.down.t()) @ ours.up.t()
        assert torch.allclose(ours(inner, x), theirs.LayerNorm(theirs.dense(inner) + beside + x), atol=1e-5)
