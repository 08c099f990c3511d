"""A model folder as a detector: windows, offsets in both languages, refusals. The model is tiny and wired by hand, so its answers are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from metier.errors import ModelError
from metier.privacy.names import FolderSettings, FolderTagger, NamesSettings, taggers_for

LABELS = ["O", "B-PER", "I-PER", "B-LOC"]
PIECES = {
    "anna": "B-PER",
    "kow": "B-PER",
    "##alski": "I-PER",
    "paris": "B-LOC",
    "张": "B-PER",
    "伟": "I-PER",
    "met": "O",
    "in": "O",
    "在": "O",
    "家": "O",
    ".": "O",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose layers add next to nothing, so that the label of a piece is the one its embedding points to."""
    place = tmp_path_factory.mktemp("models") / "ner"
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    names = dict(enumerate(LABELS))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=24
    )
    config.id2label, config.label2id = names, {label: number for number, label in names.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForTokenClassification(config)
        with torch.no_grad():
            for parameter in model.bert.encoder.parameters():
                parameter.mul_(0.01)
            for layer in model.bert.encoder.layer:
                layer.attention.output.LayerNorm.weight.fill_(1)
                layer.output.LayerNorm.weight.fill_(1)
            model.bert.embeddings.LayerNorm.weight.fill_(1)
            model.bert.embeddings.position_embeddings.weight.zero_()
            model.bert.embeddings.token_type_embeddings.weight.zero_()
            table = model.bert.embeddings.word_embeddings.weight
            table.zero_()
            model.classifier.weight.zero_()
            model.classifier.bias.zero_()
            for number in range(len(LABELS)):
                model.classifier.weight[number, number] = 3
            for word, number in vocabulary.items():
                table[number, LABELS.index(PIECES.get(word, "O"))] = 4
    model.save_pretrained(place, safe_serialization=True)
    fast.save_pretrained(place)
    return place


def found(folder: Path, texts: list[str], **settings: object) -> list[list[tuple[str, str]]]:
    tagger = FolderTagger(FolderSettings(folder=str(folder), labels={"PER": "PERSON"}, minimum_score=0.5, **settings))
    return [[(span.text, span.type) for span in spans] for spans in tagger.tag(texts)]


def test_offsets_are_code_points_in_both_languages(folder: Path) -> None:
    texts = ["Anna met Kowalski in Paris.", "😀 张伟在家", "", "é  Anna"]
    assert found(folder, texts) == [[("Anna", "PERSON"), ("Kowalski", "PERSON")], [("张伟", "PERSON")], [], [("Anna", "PERSON")]]


def test_labels_that_are_not_mapped_are_passed_over(folder: Path) -> None:
    tagger = FolderTagger(FolderSettings(folder=str(folder), labels={"LOC": "LOCATION"}))
    assert [(span.text, span.type, span.rule) for span in tagger.tag(["Anna in Paris."])[0]] == [("Paris", "LOCATION", "model:ner")]


@pytest.mark.parametrize("size", range(3, 60, 7))
@pytest.mark.parametrize("overlap", [0, 2, 8])
def test_a_text_longer_than_a_window_loses_nothing(folder: Path, size: int, overlap: int) -> None:
    text = "met in " * size + "Kowalski" + " in met" * size + " 张伟"
    assert found(folder, [text], window=12, overlap=overlap, batch=3) == [[("Kowalski", "PERSON"), ("张伟", "PERSON")]]


def test_a_batch_gives_what_one_text_gives(folder: Path) -> None:
    texts = ["Anna met Anna.", "in", "张伟在家 in Paris met Kowalski"]
    assert found(folder, texts, batch=2) == [found(folder, [text])[0] for text in texts]


def test_an_unsure_span_is_left_out(folder: Path) -> None:
    tagger = FolderTagger(FolderSettings(folder=str(folder), minimum_score=1.0))
    assert tagger.tag(["Anna met Paris"]) == [()]


def test_a_folder_without_safetensors_or_tokenizer_is_refused_with_every_fault(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError) as raised:
        FolderTagger(FolderSettings(folder=str(tmp_path)))
    assert "tokenizer.json" in str(raised.value)
    assert "safetensors" in str(raised.value)


def test_a_label_that_the_model_does_not_know_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="map one of LOC, PER"):
        FolderTagger(FolderSettings(folder=str(folder), labels={"NAME": "PERSON"})).tag(["Anna"])


def test_a_folder_joins_the_taggers_of_its_languages(folder: Path) -> None:
    settings = NamesSettings(detectors=(FolderSettings(folder=folder.name, languages=("en",)),))
    assert "model:ner" in [tagger.name for tagger in taggers_for("en", settings, root=folder.parent)]
    assert "model:ner" not in [tagger.name for tagger in taggers_for("zh", settings, root=folder.parent)]
    assert taggers_for("en", settings, root=folder.parent) is taggers_for("en", settings, root=folder.parent)
