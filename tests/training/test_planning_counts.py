"""What planning counts from config.json is what real models have: parameters of every family and method, FLOPs of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metier.errors import ModelError
from metier.models import Base, attention
from metier.models.feedforward import keep_less
from metier.models.filling import filled
from metier.models.lora import attach
from metier.models.methods import METHODS, Shape, attach_method
from metier.models.norms import quicken
from metier.training.batches import Row
from metier.training.objectives import cross_entropy
from metier.training.planning.memory import RowShape
from metier.training.planning.methods import Method, check_targets, trainable_parameters
from metier.training.planning.shape import LINEAR, ModelShape, parameters, read_shape, shape_of
from metier.training.planning.work import training_flops

SIZES: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WIDE = {**SIZES, "head_dim": 16}
KINDS = ["sliding_attention", "sliding_attention", "full_attention"]
CONFIGS = {
    "gemma": lambda: transformers.GemmaConfig(**WIDE),
    "gemma2": lambda: transformers.Gemma2Config(**WIDE, query_pre_attn_scalar=16),
    "gemma3": lambda: transformers.Gemma3TextConfig(**WIDE, query_pre_attn_scalar=16, sliding_window=64, layer_types=KINDS),
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "llama-tied-biased": lambda: transformers.LlamaConfig(**WIDE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**WIDE),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**WIDE, tie_word_embeddings=True),
}


def build(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, ModelShape]:
    """Return a real model of the family, random, with Metier's attention and feed-forward layers, and its description."""
    attention.register()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention.IMPLEMENTATION, dtype=dtype)
    assert keep_less(model) == model.config.num_hidden_layers
    return model, shape_of(model.config.to_dict())


def row_and_shape(lengths: tuple[int, ...], vocabulary: int) -> tuple[Row, RowShape]:
    """Return a packed row of random tokens, every second one learnt, and its shape."""
    total = sum(lengths)
    tokens = torch.randint(0, vocabulary, (total,))
    sources = torch.arange(5, total - 1, 2)
    ends = torch.tensor(lengths).cumsum(dim=0)
    row = Row(
        tokens, torch.cat([torch.arange(length) for length in lengths]), lengths, sources, tokens[sources + 1], torch.searchsorted(ends, sources, right=True)
    )
    held = sum(filled(length) ** 2 for length in lengths)
    return row, RowShape(total, sum(length**2 for length in lengths), len(sources), len(lengths), max(lengths), held)


def learning(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parameters_of_each_family(name: str, tmp_path: Path) -> None:
    model, shape = build(name)
    assert parameters(shape) == sum(parameter.numel() for parameter in model.parameters())
    model.config.save_pretrained(tmp_path)
    assert read_shape(tmp_path) == shape


SIZED = Shape(rank=6, alpha=12, targets="all-linear", size=9, tokens=7, layers=2)


def as_method(name: str, shape: Shape) -> Method:
    """Return the plan's description of a method that is attached with these sizes."""
    return Method(name, shape.rank, shape.targets, dict(shape.ranks), shape.size, shape.tokens, shape.layers, shape.head)


@pytest.mark.parametrize("name", ["gemma3", "llama", "llama-tied-biased", "qwen2", "qwen3"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "qlora"])
def test_what_every_method_trains(name: str, method: str) -> None:
    model, shape = build(name)
    model.requires_grad_(False)
    quicken(model)
    attach_method(model, method, SIZED, seed=0)
    assert trainable_parameters(shape, as_method(method, SIZED)) == learning(model)


@pytest.mark.parametrize(
    ("targets", "ranks"),
    [(("q_proj", "v_proj"), {}), (("mlp.down_proj", "layers.1.self_attn.o_proj"), {}), ("all-linear", {"layers.0.self_attn.q_proj": 2, "mlp.up_proj": 11})],
    ids=str,
)
@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_targets_and_ranks_of_single_layers_are_read_as_training_reads_them(targets: Any, ranks: Any, method: str) -> None:
    model, shape = build("gemma3")
    sizes = Shape(rank=6, alpha=12, targets=targets, ranks={} if method == "adalora" else ranks)
    attach_method(model, method, sizes, seed=0)
    assert trainable_parameters(shape, as_method(method, sizes)) == learning(model)


def test_a_head_of_its_own_can_be_trained_with_the_last_layers() -> None:
    model, shape = build("llama")
    quicken(model)
    sizes = Shape(layers=1, head=True)
    attach_method(model, "partial", sizes, seed=0)
    assert trainable_parameters(shape, as_method("partial", sizes)) == learning(model)


@pytest.mark.parametrize("name", ["gemma3", "llama", "qwen2"])
@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "adalora"])
def test_what_low_rank_methods_train_is_what_they_train_in_peft(name: str, method: str) -> None:
    model, shape = build(name)
    common = {"task_type": "CAUSAL_LM", "target_modules": list(LINEAR)}
    if method == "adalora":
        config: Any = peft.AdaLoraConfig(**common, init_r=9, target_r=6, total_step=10)
    else:
        config = peft.LoraConfig(**common, r=6, use_dora=method == "dora", use_rslora=method == "rslora")
    assert trainable_parameters(shape, Method(method, rank=6)) == learning(peft.get_peft_model(model, config))


def test_an_unknown_family_and_an_unknown_target_are_refused(base: Base) -> None:
    with pytest.raises(ModelError, match=r"'gpt2'.*\n.*known: gemma"):
        shape_of({"model_type": "gpt2"})
    with pytest.raises(ModelError, match=r"'q_prj'.*\n.*did you mean 'q_proj'"):
        check_targets(read_shape(base.folder), Method("lora", targets=("q_prj",)))
    assert read_shape(base.folder).family == "llama"


@pytest.mark.parametrize("name", ["gemma3", "llama", "qwen3"])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_the_flops_of_a_step_are_those_that_torch_counts(name: str, targets: Any) -> None:
    model, shape = build(name)
    model.requires_grad_(False)
    quicken(model)
    attach(model, rank=4, alpha=8, dropout=0.0, targets=targets, seed=0)
    row, described = row_and_shape((60, 45, 23), shape.vocabulary)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model.train(), row).backward()
    counted = counter.get_total_flops()
    # What is counted too much: gradients of the input of the first layer, which embeddings do not ask for.
    assert training_flops(shape, Method("lora", rank=4, targets=targets), described) == pytest.approx(counted, rel=0.08)
