"""A tokenizer is read as its class in transformers reads it, whether the vocabulary goes through that class or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from metier.errors import ModelError
from metier.models import Base, load_tokenizer
from metier.models.tokenizer import forget_tokenizers

TEXTS = [
    "高血压 患者 the patient has a fever",
    " 合同第三条  party of the\nfirst part\t",
    "<|im_start|>user<bos> 𠮷 emoji 🩺 é",
    "<|im_end|><eos></s>",
    "",
]


def spaces(unknown: str | None = "<unk>") -> Tokenizer:
    """Return a tokenizer of Gemma's kind: pieces of words, with bytes for what is not known."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return learnt(tokenizer, ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))], [])


def bytes_of_text() -> Tokenizer:
    """Return a tokenizer of GPT-2's and Qwen's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return learnt(tokenizer, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet())


def learnt(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:2] * 5, trainer)
    return tokenizer


FAMILIES = {
    "GemmaTokenizer": (spaces, lambda: transformers.Gemma3TextConfig(hidden_size=32)),
    "LlamaTokenizer": (spaces, transformers.LlamaConfig),
    "Qwen2Tokenizer": (bytes_of_text, transformers.Qwen3Config),
    "GPT2Tokenizer": (bytes_of_text, transformers.GPT2Config),
    "PreTrainedTokenizerFast": (bytes_of_text, transformers.LlamaConfig),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders that transformers is asked to read a tokenizer from."""
    folders: list[Path] = []
    own = transformers.AutoTokenizer.from_pretrained

    def listening(folder: Any, **options: Any) -> Any:
        folders.append(Path(folder))
        return own(folder, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", listening)
    forget_tokenizers()
    return folders


def raw(family: str, folder: Path, **settings: Any) -> Base:
    """Write a tokenizer as a tool other than transformers may write it: the class has things to add."""
    make, config = FAMILIES[family]
    folder.mkdir()
    make().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": family, **settings}), encoding="utf-8")
    config().save_pretrained(folder)
    return Base(folder.name, folder, str(folder), "")


def theirs(base: Base) -> Any:
    return transformers.AutoTokenizer.from_pretrained(base.folder, local_files_only=True)


def agree(base: Base, place: Path) -> None:
    """Assert that our tokenizer and transformers' own do the same with texts, and are stored as the same bytes."""
    ours, own = load_tokenizer(base), theirs(base)
    assert type(ours) is type(own)
    for text in TEXTS:
        for special in (True, False):
            assert ours(text, add_special_tokens=special)["input_ids"] == own(text, add_special_tokens=special)["input_ids"]
        numbers = own(text)["input_ids"]
        assert ours.decode(numbers) == own.decode(numbers)
    assert (ours.get_vocab(), ours.get_added_vocab()) == (own.get_vocab(), own.get_added_vocab())
    assert (ours.eos_token_id, ours.bos_token_id, ours.pad_token_id) == (own.eos_token_id, own.bos_token_id, own.pad_token_id)
    assert ours.name_or_path == str(base.folder)
    stored = []
    for number, tokenizer in enumerate((ours, own)):
        tokenizer.save_pretrained(place / str(number))
        stored.append({path.name: path.read_bytes() for path in (place / str(number)).rglob("*") if path.is_file()})
    assert stored[0] == stored[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_as_transformers_saves_them_the_vocabulary_does_not_pass_through_python(family: str, tmp_path: Path, seen: list[Path]) -> None:
    base = raw(family, tmp_path / "raw", chat_template="{{ messages[0]['content'] }}")
    saved = Base("saved", tmp_path / "saved", "saved", "")
    theirs(base).save_pretrained(saved.folder)
    FAMILIES[family][1]().save_pretrained(saved.folder)
    seen.clear()
    tokenizer = load_tokenizer(saved)
    assert saved.folder not in seen, "only a copy without the vocabulary was read by transformers"
    assert seen
    assert tokenizer.apply_chat_template([{"role": "user", "content": "高血压"}], tokenize=False) == "高血压"
    agree(saved, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_class_changes_is_changed(family: str, tmp_path: Path) -> None:
    agree(raw(family, tmp_path / "raw"), tmp_path)


@pytest.mark.parametrize("settings", [{"bos_token": "<|im_start|>", "add_bos_token": True}, {"eos_token": "<|im_end|>"}, {"pad_token": "<new>"}], ids=str)
def test_special_tokens_are_those_of_the_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    agree(raw("PreTrainedTokenizerFast", tmp_path / "raw", **settings), tmp_path)


def test_settings_of_any_size_and_every_template_count(tmp_path: Path, seen: list[Path]) -> None:
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw", eos_token="<|im_end|>", note="x" * 2**21)
    (base.folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    (base.folder / "additional_chat_templates").mkdir()
    (base.folder / "additional_chat_templates" / "tools.jinja").write_text("tools", encoding="utf-8")
    tokenizer = load_tokenizer(base)
    assert base.folder not in seen
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == {"default": "{{ messages[0]['content'] }}", "tools": "tools"}
    agree(base, tmp_path)


def test_where_a_pre_tokenizer_is_mended_by_the_vocabulary_s_size_the_class_reads_all(tmp_path: Path, seen: list[Path]) -> None:
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw", fix_mistral_regex=True)
    load_tokenizer(base)
    assert base.folder in seen


def test_padding_and_truncation_of_the_file_stay(tmp_path: Path) -> None:
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw")
    own = Tokenizer.from_file(str(base.folder / "tokenizer.json"))
    own.enable_truncation(6)
    own.enable_padding(length=6, pad_token="<|endoftext|>")
    own.save(str(base.folder / "tokenizer.json"))
    agree(base, tmp_path)


def test_pieces_of_words_go_through_their_class(encoder: Base, tmp_path: Path, seen: list[Path]) -> None:
    load_tokenizer(encoder)
    assert seen == [encoder.folder]
    agree(encoder, tmp_path)


def test_nothing_is_left_beside_and_nothing_is_written_into_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw")
    before = {path.name: path.read_bytes() for path in base.folder.iterdir()}
    load_tokenizer(base)
    assert not list(place.iterdir())
    assert {path.name: path.read_bytes() for path in base.folder.iterdir()} == before


def test_without_room_for_a_copy_the_class_reads_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw")
    assert load_tokenizer(base)("高血压")["input_ids"] == theirs(base)("高血压")["input_ids"]


NONSENSE = json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Nonsense"}, "model": {"type": "BPE", "vocab": {}, "merges": []}})


@pytest.mark.parametrize("text", ["", "{", '{"model": {"type": "BPE", "vocab": 3}}', NONSENSE], ids=["empty", "cut", "senseless", "unknown part"])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    base = raw("PreTrainedTokenizerFast", tmp_path / "raw")
    (base.folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="the tokenizer of raw cannot be loaded"):
        load_tokenizer(base)
