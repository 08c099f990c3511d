from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from metier.errors import ModelError
from metier.models import Base, load_tokenizer, resolve
from metier.models.heads import is_encoder, label_scores, layout_of, load_with_head, longest
from metier.models.labeller import packed
from metier.models.labels import Labelling
from metier.models.words import TextReader

CLASSES = Labelling("classification", ("a", "b", "c"), 128)
TAGS = Labelling("tagging", ("Color", "Thing"), 128)
TEXTS = ["The red pen is on the left.", "红笔在左边。", "a", "green lamps 3 盏"]


def other(folder: Path, base: Base, config: transformers.PretrainedConfig) -> Base:
    """Write a tiny model of another family with the tokenizer of a tiny base."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = (
            transformers.AutoModelForCausalLM.from_config(config)
            if not hasattr(config, "type_vocab_size")
            else transformers.AutoModelForMaskedLM.from_config(config)
        )
    model.save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return resolve(str(folder), root=folder)


def small(base: Base) -> dict[str, int]:
    return {
        "vocab_size": len(load_tokenizer(base)),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }


def family(name: str, folder: Path, base: Base, encoder: Base) -> Base:
    if name == "bert":
        return encoder
    if name == "llama":
        return base
    more = {"num_key_value_heads": 2, "head_dim": 8}
    configs = {
        "roberta": lambda: transformers.RobertaConfig(**small(encoder), pad_token_id=0, type_vocab_size=1),
        "qwen2": lambda: transformers.Qwen2Config(**small(base), num_key_value_heads=2, pad_token_id=0),
        "gemma3": lambda: transformers.Gemma3TextConfig(**small(base), **more, pad_token_id=0, sliding_window=8, query_pre_attn_scalar=8),
    }
    return other(folder, encoder if name == "roberta" else base, configs[name]())


@pytest.mark.parametrize("labelling", [CLASSES, TAGS], ids=["texts", "words"])
@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "qwen2", "gemma3"])
def test_packed_scores_are_those_of_the_plain_model_one_text_at_a_time(name: str, labelling: Labelling, tmp_path: Path, base: Base, encoder: Base) -> None:
    found = family(name, tmp_path, base, encoder)
    model = load_with_head(found, labelling, torch.float32, seed=3, frozen=False)
    assert is_encoder(found) is (name in ("bert", "roberta"))
    layout, reader = layout_of(model, labelling), TextReader(load_tokenizer(found))
    readings = [reader.by_word(text) for text in TEXTS] if labelling.by_word else reader.whole(TEXTS)
    row = packed(readings, layout)
    with torch.inference_mode():
        ours = label_scores(model, layout, row.pop("tokens"), row.pop("positions"), lengths=[len(item) for item in readings], **row)
    plain = type(model).from_pretrained(found.folder, config=model.config, attn_implementation="eager", dtype=torch.float32).eval()
    plain.load_state_dict(model.state_dict())
    expected = []
    with torch.inference_mode():
        for reading in readings:
            logits = plain(input_ids=torch.tensor([reading.tokens])).logits[0]
            places = reading.lasts if layout.causal else reading.firsts
            expected.append(logits[list(places)] if labelling.by_word else logits[None])
    assert torch.allclose(ours, torch.cat(expected), atol=2e-4)


def test_the_texts_of_a_pair_are_told_apart(encoder: Base) -> None:
    model = load_with_head(encoder, Labelling("pair", (), 128), torch.float32, seed=0, frozen=True)
    layout = layout_of(model, Labelling("pair", (), 128))
    tokenizer = load_tokenizer(encoder)
    readings = TextReader(tokenizer).whole(["red pen", "红笔"], ["green pen", "绿灯"])
    row = packed(readings, layout)
    with torch.inference_mode():
        ours = label_scores(model, layout, row.pop("tokens"), row.pop("positions"), lengths=[len(item) for item in readings], **row)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(encoder.folder, config=model.config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    given = tokenizer(["red pen", "红笔"], ["green pen", "绿灯"], return_tensors="pt", padding=True, return_token_type_ids=True)
    with torch.inference_mode():
        assert torch.allclose(ours, plain(**given).logits, atol=1e-5)


def test_the_head_is_drawn_by_the_seed(encoder: Base) -> None:
    first, again, second = (load_with_head(encoder, TAGS, torch.float32, seed=seed, frozen=True).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first.shape == (5, 64)


def test_a_family_without_such_a_head_is_refused_with_what_to_choose(tmp_path: Path, encoder: Base) -> None:
    config = transformers.DistilBertConfig(vocab_size=len(load_tokenizer(encoder)), dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    transformers.DistilBertForMaskedLM(config).save_pretrained(tmp_path)
    load_tokenizer(encoder).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="pre_classifier"):
        load_with_head(resolve(str(tmp_path), root=tmp_path), CLASSES, torch.float32, seed=0, frozen=True)


def test_the_longest_text_is_that_of_the_model(encoder: Base, base: Base) -> None:
    assert longest(encoder) == 256
    assert longest(base) == 2048
