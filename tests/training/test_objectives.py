"""Each objective is what its formula says, and does what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import MakeDataset, conversation, stir
from metier.errors import ModelError
from metier.models import Base, Chat, LocalModel, load_tokenizer, load_weights
from metier.models.attention import Packed
from metier.models.lora import LoraLinear
from metier.models.methods import METHODS, Shape, Tuned, attach_method
from metier.store import Store
from metier.testing import tiny_base
from metier.training import TrainingSettings, train
from metier.training.batches import Row, row_of
from metier.training.objectives import answers_objective, cross_entropy
from metier.training.settings import DistillationSettings, ObjectiveSettings

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("green", "right")) for thing in ("书", "lamp")]
SHAPE = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)


def moved(base: Base, method: str) -> tuple[torch.nn.Module, Tuned, Row]:
    model = load_weights(base, torch.float32)
    tuned = attach_method(model, method, SHAPE, seed=0)
    stir(model, 0.05)
    chat = Chat(load_tokenizer(base), virtual=tuned.virtual)
    return model, tuned, row_of([chat.encode(record.messages) for record in ROWS])


def log_probabilities(model: torch.nn.Module, row: Row) -> torch.Tensor:
    states = model.get_decoder()(input_ids=row.tokens[None], position_ids=row.positions[None], plan=Packed(row.lengths), use_cache=False)
    return (states.last_hidden_state[0][row.sources] @ model.get_output_embeddings().weight.t()).log_softmax(dim=-1)


def test_smoothing_and_focal_are_their_formulas(base: Base) -> None:
    model, tuned, row = moved(base, "lora")
    scores = log_probabilities(model, row)
    own = -scores.gather(1, row.labels[:, None])[:, 0]
    smoothed = answers_objective(ObjectiveSettings(smoothing=0.2), tuned)(model, row)
    assert smoothed.item() == pytest.approx((0.8 * own + 0.2 * -scores.mean(dim=1)).sum().item(), rel=1e-5)
    focal = answers_objective(ObjectiveSettings(focal=2.0), tuned)(model, row)
    assert focal.item() == pytest.approx(((1 - torch.exp(-own)) ** 2 * own).sum().item(), rel=1e-4)
    assert answers_objective(ObjectiveSettings(), tuned)(model, row).item() == cross_entropy(model, row).item()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "qlora"])
def test_the_divergence_is_from_the_base_model_itself(base: Base, method: str) -> None:
    model, tuned, row = moved(base, method)
    plain = load_weights(base, torch.float32)
    untouched = row_of([Chat(load_tokenizer(base)).encode(record.messages) for record in ROWS])
    with torch.no_grad():
        ours, theirs = log_probabilities(model, row), log_probabilities(plain, untouched)
        expected = (theirs.exp() * (theirs - ours)).sum().item()
    found = answers_objective(ObjectiveSettings(kl=3.0), tuned)(model, row) - cross_entropy(model, row)
    assert found.item() == pytest.approx(3 * expected, rel=1e-3)
    assert expected > 1e-4


@pytest.mark.parametrize("method", ["lora", "rslora", "adalora", "full", "partial"])
def test_the_distance_is_that_of_the_weights(base: Base, method: str) -> None:
    model, tuned, _ = moved(base, method)
    expected = 0.0
    for module in model.modules():
        if isinstance(module, LoraLinear):
            a = module.lora_a if module.directions is None else module.lora_a * module.directions[:, None]
            expected += (module.scale * module.lora_b @ a).square().sum().item()
        elif hasattr(module, "trained_weight"):
            expected += (module.trained_weight - module.base.weight).square().sum().item()
    assert tuned.distance().item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0


@pytest.mark.parametrize("method", ["adapter", "parallel-adapter", "prefix", "p-tuning", "prompt"])
def test_the_distance_begins_at_nothing_and_pulls_back(base: Base, method: str) -> None:
    model = load_weights(base, torch.float32)
    assert attach_method(model, method, SHAPE, seed=0).distance().item() == 0
    model, tuned, _ = moved(base, method)
    tuned.distance().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_with_a_weight_on_the_start_an_expert_stays_nearer_to_its_base(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    dataset = make_dataset(train=ROWS * 3, validation=ROWS[:1])
    sizes = []
    for weight in (0.0, 1.0):
        settings = TrainingSettings.model_validate(
            {
                "adaptation": {"rank": 4},
                "epochs": 6.0,
                "learning_rate": 5e-3,
                "precision": "float32",
                "batch": {"row_tokens": 128},
                "objectives": {"start": weight},
            }
        )
        _, adapter = train(dataset, base, settings, workspace=store.workspace(f"start-{weight}"))
        from metier.models.methods import open_adapter

        model = load_weights(base, torch.float32)
        sizes.append(open_adapter(model, adapter.path).distance().item())
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_a_teacher_s_share_of_the_loss_is_its_formula(base: Base, method: str) -> None:
    model, tuned, row = moved(base, method)
    teacher, _, plain = moved(base, "full")
    scores, wanted = log_probabilities(model, row), log_probabilities(teacher, plain)
    own = -scores.gather(1, row.labels[:, None])[:, 0]
    warm, cool = (scores / 3).log_softmax(dim=1), (wanted / 3).log_softmax(dim=1)
    apart = (cool.exp() * (cool - warm)).sum(dim=1)
    found = answers_objective(ObjectiveSettings(distillation=DistillationSettings(teacher="t", weight=0.4, temperature=3.0)), tuned, teacher)(model, row)
    assert found.item() == pytest.approx((0.6 * own + 0.4 * 9 * apart).sum().item(), rel=1e-3)
    assert apart.sum() > 1e-3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_student_comes_nearer_to_its_teacher(make_dataset: MakeDataset, base: Base, store: Store, tmp_path: Path, method: str) -> None:
    teacher = tiny_base(tmp_path, hidden=96, layers=3, seed=5)
    plain = load_weights(teacher, torch.float32)
    row = row_of([Chat(load_tokenizer(base)).encode(record.messages) for record in ROWS])
    theirs = log_probabilities(plain, row)
    gaps = []
    for weight in (0.0, 1.0):
        sizes = {"rank": 4} if method == "lora" else {}
        settings = TrainingSettings.model_validate_json(
            json.dumps(
                {
                    "method": method,
                    "adaptation": sizes,
                    "epochs": 12,
                    "learning_rate": 2e-3 if method == "full" else 1e-2,
                    "precision": "float32",
                    "batch": {"row_tokens": 128},
                    "objectives": {"distillation": {"teacher": str(teacher.folder), "weight": weight} if weight else {}},
                }
            )
        )
        run, adapter = train(make_dataset(train=ROWS * 2), base, settings, teacher if weight else None, workspace=store.workspace(f"{method}-{weight}"))
        expert = LocalModel.open(base, adapter.path, dtype=torch.float32)
        ours = log_probabilities(expert.model, row_of([expert.chat.encode(record.messages) for record in ROWS]))
        gaps.append((theirs.exp() * (theirs - ours)).sum(dim=1).mean().item())
        assert (run.facts["teacher"] is None) == (weight == 0)
    assert gaps[1] < 0.5 * gaps[0]


def test_a_teacher_of_other_tokens_is_refused(make_dataset: MakeDataset, base: Base, encoder: Base, store: Store) -> None:
    given = {"precision": "float32", "batch": {"row_tokens": 128}, "objectives": {"distillation": {"teacher": "t"}}}
    with pytest.raises(ModelError, match="other tokens"):
        train(make_dataset(train=ROWS), base, TrainingSettings.model_validate(given), encoder, workspace=store.workspace("tokens"))


def test_the_work_of_a_training_counts_what_the_base_model_and_a_teacher_read(make_dataset: MakeDataset, base: Base, store: Store, tmp_path: Path) -> None:
    teacher = tiny_base(tmp_path, hidden=96, layers=3, seed=5)
    virtual, length = 5, len(Chat(load_tokenizer(base)).encode(ROWS[0].messages))
    vocabulary, learnt = len(load_tokenizer(base)), sum(Chat(load_tokenizer(base)).encode(ROWS[0].messages).learn[1:])
    stages = [
        {"name": "plain"},
        {"name": "near", "objectives": {"kl": 0.5}},
        {"name": "taught", "objectives": {"distillation": {"teacher": "t"}}},
        {"name": "both", "objectives": {"kl": 0.5, "distillation": {"teacher": "t"}}},
    ]
    given = {"method": "prompt", "adaptation": {"tokens": virtual}, "precision": "float32", "batch": {"row_tokens": 128}, "stages": stages}
    settings = TrainingSettings.model_validate_json(json.dumps(given | {"validation": {"times": 0}}))
    run, _ = train(make_dataset(train=ROWS[:1]), base, settings, teacher, workspace=store.workspace("work"))
    assert run.facts["steps"] == 4

    def read(hidden: int, layers: int, tokens: int) -> int:
        # Per layer: q and o are square, k and v half as wide, three parts of twice the width; every pair of tokens twice over the heads.
        weights = layers * (3 * hidden * hidden + 3 * 2 * hidden * hidden)
        return 2 * weights * tokens + 4 * layers * hidden * tokens * tokens + 2 * vocabulary * hidden * learnt

    def taught(hidden: int, layers: int, tokens: int) -> int:
        forward = read(hidden, layers, tokens)
        weights = layers * (3 * hidden * hidden + 3 * 2 * hidden * hidden)
        return forward + 2 * weights * tokens + 8 * layers * hidden * tokens * tokens + 2 * vocabulary * hidden * learnt

    walked = 2 * 2 * vocabulary * 64 * learnt
    near, far = read(64, 2, length) + walked, read(96, 3, length) + walked
    assert run.facts["flops"] == 4 * taught(64, 2, length + virtual) + 2 * near + 2 * far
