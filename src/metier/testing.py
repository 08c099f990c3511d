"""Test parts that users may use too: a tiny real model with a real tokenizer, and a scripted language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from metier.models import Base, Generation, GenerationSettings, Likelihood, resolve
from metier.prepare.writers import Written
from metier.progress import SILENT, Progress
from metier.records import Message

__all__ = ["ScriptedModel", "ScriptedWriter", "tiny_base", "tiny_encoder"]

_VOCABULARY = 768


def tiny_base(folder: Path, *, hidden: int = 64, layers: int = 2, heads: int = 4, seed: int = 0) -> Base:
    """Build a deterministic Llama-style model of about 0.2M parameters with a trained byte-level BPE tokenizer.

    Written to `folder` as safetensors and tokenizer.json, as any base model; an existing one is used as it is.
    """
    if not (folder / "config.json").exists():
        _build(folder, hidden=hidden, layers=layers, heads=heads, seed=seed)
    return resolve(str(folder.resolve()), root=folder)


def _build(folder: Path, *, hidden: int, layers: int, heads: int, seed: int) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<pad>", "<bos>", "<eos>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = resources.files("metier").joinpath("data/tiny_corpus.txt").read_text(encoding="utf-8")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=specials, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(corpus.splitlines(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        # Wide enough that the frozen, tied embeddings can express a confident answer: an adapter alone must be able to learn.
        initializer_range=0.15,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n", encoding="utf-8")


def tiny_encoder(folder: Path, *, hidden: int = 64, layers: int = 2, heads: int = 4, seed: int = 0) -> Base:
    """Build a deterministic BERT-style encoder of about 0.1M parameters with a trained WordPiece tokenizer; see `tiny_base`."""
    if not (folder / "config.json").exists():
        _build_encoder(folder, hidden=hidden, layers=layers, heads=heads, seed=seed)
    return resolve(str(folder.resolve()), root=folder)


def _build_encoder(folder: Path, *, hidden: int, layers: int, heads: int, seed: int) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    corpus = resources.files("metier").joinpath("data/tiny_corpus.txt").read_text(encoding="utf-8")
    trainer = trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(corpus.splitlines(), trainer)
    places = {name: number for number, name in enumerate(specials)}
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", places["[SEP]"]), ("[CLS]", places["[CLS]"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=256,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n", encoding="utf-8")


class ScriptedModel:
    """A language model whose answers come from two functions: one for the tuned side, one for the base.

    `answer(prompt)` gives the text. A choice equal to that text has log-probability -1, any other -5 - its length.
    """

    def __init__(self, answer: Callable[[Sequence[Message]], str], base: Callable[[Sequence[Message]], str] | None = None) -> None:
        self._tuned = answer
        self._base = base or answer
        self._answer = answer

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Answer with the base's function inside the block."""
        self._answer = self._base
        try:
            yield
        finally:
            self._answer = self._tuned

    def generate(
        self, prompts: Sequence[Sequence[Message]], settings: GenerationSettings, *, progress: Progress = SILENT, task: str = "generate"
    ) -> list[Generation]:
        """Return the scripted answer to each prompt."""
        answers = []
        for prompt in prompts:
            text = self._answer(prompt)
            answers.append(Generation(text, len(text), "stop" if len(text) <= settings.max_new_tokens else "length"))
            progress.advance(task)
        return answers

    def choose(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[Sequence[str]], *, progress: Progress = SILENT, task: str = "choose"
    ) -> list[list[Likelihood]]:
        """Return likelihoods that favour the scripted answer."""
        found = []
        for prompt, options in zip(prompts, choices, strict=True):
            text = self._answer(prompt)
            found.append([Likelihood(-1.0 if option == text else -5.0 - len(option), len(option) + 1) for option in options])
            progress.advance(task)
        return found


class ScriptedWriter:
    """A writer whose texts come from a function of the prompt; `prompts` keeps what it was asked."""

    leaves = False

    def __init__(self, text: Callable[[Sequence[Message]], str], *, name: str = "scripted", digest: str = "0" * 64) -> None:
        self._text, self.name, self.digest = text, name, digest
        self.prompts: list[Sequence[Message]] = []

    def write(self, prompts: Sequence[Sequence[Message]], *, maximum_tokens: int, temperature: float, seed: int) -> list[Written]:
        """Return the scripted text for each prompt, cut to `maximum_tokens` characters."""
        self.prompts.extend(prompts)
        texts = [self._text(prompt) for prompt in prompts]
        return [Written(text[:maximum_tokens], len(text) <= maximum_tokens) for text in texts]
