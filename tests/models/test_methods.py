"""Every method: starts as the base model, learns, is saved, opens again with the same numbers, and can be switched off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers

from metier.errors import ModelError
from metier.models import Base, Chat, Encoded, GenerationSettings, LocalModel, load_tokenizer, load_weights
from metier.models.adapterfile import adapter_faults
from metier.models.lora import LoraLinear, row_norms
from metier.models.methods import METHODS, AdaptiveRanks, Shape, Tuned, attach_method, open_adapter
from metier.models.saved import write_saved
from metier.records import Message
from metier.training.batches import row_of
from metier.training.objectives import cross_entropy

SHAPE = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)
TALKS = [
    [Message("user", f"{color}的{thing}在哪里？"), Message("assistant", f"{thing}在{place}", learn=True)]
    for color, place in (("红", "左边"), ("绿", "right"))
    for thing in ("书", "lamp")
]
UNTRAINED_IS_BASE = [name for name, facts in METHODS.items() if facts.family != "virtual" and name != "qlora"]
PEFT_KNOWS = ["lora", "rslora", "dora", "qlora", "adalora", "prefix", "p-tuning", "prompt"]


def attached(base: Base, method: str, shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, Tuned]:
    model = load_weights(base, dtype)
    return model, attach_method(model, method, shape, seed=0)


def encoded(base: Base, virtual: int = 0) -> list[Encoded]:
    chat = Chat(load_tokenizer(base), virtual=virtual)
    return [chat.encode(talk) for talk in TALKS]


def trained(base: Base, method: str, folder: Path, *, steps: int = 4, shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> tuple[float, float, float]:
    """Train, save, and return the first loss, the last, and that of the trained model."""
    model, tuned = attached(base, method, shape, dtype)
    row = row_of(encoded(base, tuned.virtual))
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        loss = cross_entropy(model, row) / len(row.labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    write_saved(folder, tuned.config() | {"base_model_name_or_path": "tiny"}, tuned.state())
    with torch.no_grad():
        return losses[0], losses[-1], cross_entropy(model, row).item()


@pytest.mark.parametrize("method", UNTRAINED_IS_BASE)
def test_untrained_it_is_the_base_model(base: Base, method: str) -> None:
    row = row_of(encoded(base))
    with torch.no_grad():
        expected = cross_entropy(load_weights(base, torch.float32), row).item()
        assert cross_entropy(attached(base, method)[0], row).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_opens_again_with_the_same_numbers(base: Base, method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    first, last, after = trained(base, method, tmp_path, dtype=dtype)
    assert last < first - 0.1
    model = load_weights(base, dtype)
    tuned = open_adapter(model, tmp_path)
    with torch.no_grad():
        again = cross_entropy(model, row_of(encoded(base, tuned.virtual))).item()
    # Weights are saved in the base's own format, so fp32 copies are rounded once; strengths are multiplied into B; packed weights are whole again.
    rounded = {"weights": 2e-2, "adaptive": 1e-3} if dtype == torch.bfloat16 else {}
    assert again == pytest.approx(after, rel=0.5 if method == "qlora" else rounded.get(METHODS[method].family, 1e-6))
    assert adapter_faults(tmp_path) == []


@pytest.mark.parametrize("method", METHODS)
def test_switched_off_it_is_the_base_model_and_back(base: Base, method: str, tmp_path: Path) -> None:
    trained(base, method, tmp_path)
    expert = LocalModel.open(base, tmp_path, dtype=torch.float32)
    plain = LocalModel.open(base, dtype=torch.float32)
    prompts, options, settings = [talk[:1] for talk in TALKS], [["左边", "right"]] * 4, GenerationSettings(max_new_tokens=6)
    tuned = expert.choose(prompts, options)
    with expert.without_adapter():
        assert expert.choose(prompts, options) == plain.choose(prompts, options)
        assert expert.generate(prompts, settings) == plain.generate(prompts, settings)
    assert expert.choose(prompts, options) == tuned != plain.choose(prompts, options)


@pytest.mark.parametrize("method", METHODS)
def test_packed_is_unpacked(base: Base, method: str) -> None:
    model, tuned = attached(base, method)
    examples = encoded(base, tuned.virtual)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.linspace(-0.02, 0.02, parameter.numel()).view_as(parameter))
        alone = sum(cross_entropy(model, row_of([example])).item() for example in examples)
        assert cross_entropy(model, row_of(examples)).item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("method", PEFT_KNOWS)
def test_peft_reads_it_and_gives_the_same_numbers(base: Base, method: str, tmp_path: Path) -> None:
    shape = Shape(rank=4, alpha=8, size=16, tokens=5, ranks={"layers.0.self_attn.q_proj": 2} if METHODS[method].family == "low-rank" else {})
    trained(base, method, tmp_path, shape=shape)
    config = json.loads((tmp_path / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"task_type": "CAUSAL_LM", "base_model_name_or_path": str(base.folder)}))
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32), tmp_path).eval()
    ours = LocalModel.open(base, tmp_path, dtype=torch.float32)
    tokens = ours.chat.prompt(TALKS[0][:1])
    real = [token for token in tokens if token >= 0]
    with torch.no_grad():
        from metier.models.attention import Packed

        states = ours.hidden(tokens, range(len(tokens)), Packed([len(tokens)]))[-1]
        expected = theirs(input_ids=torch.tensor([real]), attention_mask=torch.ones(1, len(real), dtype=torch.long)).logits[0, -1]
    assert torch.allclose(states @ ours.head.t(), expected, atol=2e-4)


def test_all_weights_get_the_gradients_of_transformers(base: Base) -> None:
    model, _ = attached(base, "full")
    (example, *_) = encoded(base)
    cross_entropy(model, row_of([example])).backward()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    labels = [token if learn else -100 for token, learn in zip(example.tokens, example.learn, strict=True)]
    loss = theirs(input_ids=torch.tensor([example.tokens]), labels=torch.tensor([labels])).loss * sum(example.learn[1:])
    loss.backward()
    found = {name.replace(".trained_weight", ".weight").replace("trained_", ""): item.grad for name, item in model.named_parameters() if item.requires_grad}
    expected = {name: item.grad for name, item in theirs.named_parameters()}
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-4 * float(gradient.abs().max())), name


def test_partial_trains_the_last_layers_and_says_what_it_cannot(base: Base) -> None:
    model, tuned = attached(base, "partial")
    names = {name.removeprefix("base_model.model.") for name in tuned.state()}
    assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in names)
    assert any("layers.1" in name for name in names)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "layers.0" in name)
    with pytest.raises(ModelError, match="this base model has 2 layers"):
        attached(base, "partial", Shape(layers=3))
    with pytest.raises(ModelError, match="is its input embedding"):
        attached(base, "partial", Shape(layers=1, head=True))


def test_a_rank_of_its_own_and_what_does_not_fit(base: Base) -> None:
    model, _ = attached(base, "lora", Shape(rank=4, alpha=8, ranks={"layers.1.self_attn.q_proj": 2, "mlp.up_proj": 6}))
    ranks = {name: (len(layer.lora_a), layer.scale) for name, layer in model.named_modules() if isinstance(layer, LoraLinear)}
    assert ranks["model.layers.1.self_attn.q_proj"] == (2, 2.0)
    assert ranks["model.layers.0.mlp.up_proj"] == ranks["model.layers.1.mlp.up_proj"] == (6, 2.0)
    assert ranks["model.layers.0.self_attn.q_proj"] == (4, 2.0)
    with pytest.raises(ModelError, match="no adapted layer is called 'q_porj'"):
        attached(base, "lora", Shape(ranks={"q_porj": 2}))
    with pytest.raises(ModelError, match="rank 65 is larger than the layer"):
        attached(base, "lora", Shape(rank=65))


def test_packed_weights_train_as_the_dense_ones_they_stand_for(base: Base) -> None:
    model, _ = attached(base, "qlora")
    packed = {name: module.base for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    dense, _ = attached(base, "lora")
    for name, layer in packed.items():
        assert layer.packed.dtype == torch.uint8
        assert layer.packed.numel() * 2 == layer.in_features * layer.out_features
        plain = dense.get_submodule(name).base.weight
        assert 0 < float((layer.weight - plain).norm() / plain.norm()) < 0.12
        plain.data.copy_(layer.weight)
    row = row_of(encoded(base))
    losses = [cross_entropy(item, row) for item in (model, dense)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    gradients = [{name.replace("base.", ""): item.grad for name, item in each.named_parameters() if item.requires_grad} for each in (model, dense)]
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[1])


def test_ranks_are_shared_out_as_the_budget_says(base: Base) -> None:
    model, tuned = attached(base, "adalora", Shape(rank=4, alpha=8))
    assert isinstance(tuned, AdaptiveRanks)
    row, parameters = row_of(encoded(base)), [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.02)
    for step in range(20):
        (cross_entropy(model, row) / len(row.labels) + tuned.penalty()).backward()
        tuned.watch()
        optimizer.step()
        optimizer.zero_grad()
        tuned.settle(step + 1, 20)
    ranks = [len(tensor) for name, tensor in tuned.state().items() if name.endswith("lora_A.weight")]
    layers = sum(isinstance(module, LoraLinear) for module in model.modules())
    assert sum(ranks) == 4 * layers
    assert len(set(ranks)) > 1, "no layer got more than another"
    with torch.no_grad():
        for layer in (module for module in model.modules() if isinstance(module, LoraLinear)):
            layer.lora_a.copy_(torch.linalg.qr(layer.lora_a.t())[0].t())
            layer.lora_b.copy_(torch.linalg.qr(layer.lora_b)[0])
    assert tuned.penalty().item() == pytest.approx(0, abs=1e-9)


def test_the_norms_of_rows_are_those_of_the_whole_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, a, b = (torch.randn(*shape, generator=generator) for shape in ((12, 9), (3, 9), (12, 3)))
    assert torch.allclose(row_norms(weight, a, b), (weight + b @ a).norm(dim=1), atol=1e-5)


def test_a_stranger_s_file_is_refused_in_words(base: Base, tmp_path: Path) -> None:
    trained(base, "prompt", tmp_path, steps=1)
    config = json.loads((tmp_path / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "VERA"}))
    with pytest.raises(ModelError, match="is of type 'VERA'"):
        open_adapter(load_weights(base, torch.float32), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "PREFIX_TUNING"}))
    with pytest.raises(ModelError, match="has shape"):
        open_adapter(load_weights(base, torch.float32), tmp_path)
    assert adapter_faults(tmp_path) == []
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "METIER_WEIGHTS"}))
    assert "'prompt_embeddings' is no tensor of trained weights" in adapter_faults(tmp_path)


FETCHER = """
import sys
sys.path.insert(0, {folder!r})
import torch
from metier.models.quantized import pack_weights
model = torch.nn.Sequential(torch.nn.Linear(64, 64))
pack_weights(model, ["0"])
print(tuple(model(torch.ones(1, 64)).shape), "kernels" in sys.modules)
"""


def test_packing_fetches_no_code_from_a_hub(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(f"def get_kernel(*_, **__):\n    open({str(tmp_path / 'fetched')!r}, 'w').close()\n    raise OSError\n")
    done = subprocess.run([sys.executable, "-c", FETCHER.format(folder=str(tmp_path))], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("(1, 64) False", "")
    assert not (tmp_path / "fetched").exists()
