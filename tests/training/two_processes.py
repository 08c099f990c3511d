"""Trains tiny models by every method and objective for a few steps, as one of several processes, and writes losses and weights: started by the tests.

Arguments: a folder for base models, a file to write beside, and whether the weights are `replicated` or `sharded` over the processes.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from metier.models import Base, Chat, load_tokenizer, load_weights
from metier.models.methods import METHODS, Shape, Watched, attach_method
from metier.records import Message, Record
from metier.testing import tiny_base
from metier.training import TrainingSettings
from metier.training.batches import encode_records
from metier.training.checking import check
from metier.training.curriculum import plan_steps
from metier.training.gather import Summing
from metier.training.loop import run_steps
from metier.training.objectives import answer_losses, answers_objective
from metier.training.settings import BatchSettings, ObjectiveSettings
from metier.training.sharded import distribute

OBJECTIVES: dict[str, dict[str, Any]] = {
    "kl": {"kl": 0.5},
    "smoothing": {"smoothing": 0.1},
    "focal": {"focal": 2.0},
    "distillation": {"distillation": {"teacher": "the base itself"}},
}
"""What is minimised beside the cross-entropy, tried with a method that keeps its weights beside the base's and with one that adds to them."""


def main(folder: Path, out: Path, *, sharded: bool) -> None:
    torch.set_num_threads(1)
    base = tiny_base(folder)
    words = [("hive " * (1 + number % 5), f"answer {number} " * (1 + number % 3)) for number in range(24)]
    talks = [(Message("user", question), Message("assistant", answer, learn=True)) for question, answer in words]
    records = [Record(id=str(number), messages=talk) for number, talk in enumerate(talks)]
    accelerator = Accelerator(cpu=True)
    there = [method for method, facts in METHODS.items() if (method != "qlora" or find_spec("bitsandbytes")) and (facts.shards or not sharded)]
    cases = {method: (method, ObjectiveSettings()) for method in there}
    cases |= {f"{method} {name}": (method, ObjectiveSettings.model_validate(given)) for method in ("full", "lora") for name, given in OBJECTIVES.items()}
    found = {name: trained(base, method, objectives, records, accelerator, sharded=sharded) for name, (method, objectives) in cases.items()}
    rank = accelerator.process_index
    out.with_suffix(f".{rank}.json").write_text(json.dumps({"processes": accelerator.num_processes, "cases": found}))


def trained(base: Base, method: str, objectives: ObjectiveSettings, records: list[Record], accelerator: Accelerator, *, sharded: bool) -> dict[str, Any]:
    """Return the losses of a few steps, gradient norms, the loss that validation finds after them and how large the trained numbers have become."""
    # Virtual tokens begin as what the base model makes of tokens: it has to be there.
    later = sharded and METHODS[method].family != "virtual"
    model: Any = load_weights(base, torch.float32, later=later)
    assert later == any(parameter.is_meta for parameter in model.parameters())
    tuned = attach_method(model, method, Shape(rank=3, alpha=8.0, dropout=0.1, size=8, tokens=4, layers=1), seed=0)
    teacher: Any = load_weights(base, torch.float32) if objectives.distillation.teacher else None
    taught = encode_records(records, Chat(load_tokenizer(base), virtual=tuned.virtual), 1024)
    settings = TrainingSettings(learning_rate=0.01, epochs=1.0, batch=BatchSettings(row_tokens=96, rows=3))
    weights = distribute(model, accelerator, sharded=sharded)
    learnt = [item for item in model.parameters() if item.requires_grad]
    gather = Summing(model.train(), answers_objective(objectives, tuned, teacher), learnt, accelerator, seed=0, weights=weights)
    watchers = [tuned] if isinstance(tuned, Watched) else []
    means: dict[str, Any] = {"settings": settings, "gather": gather, "optimizer": torch.optim.AdamW(learnt, fused=True), "watchers": watchers}
    results = list(run_steps(taught, plan_steps(taught, settings), start=0, clip=weights.clip, **means))
    checked = check(model.eval(), taught, answer_losses, row_tokens=64, accelerator=accelerator, seen=lambda _: None, weights=weights)
    parts = [weights.here(tensor.detach()).abs().sum() for tensor in learnt]
    size = sum(weights.sums(parts))
    weights.assemble(model)
    state = {name: float(tensor.abs().sum()) for name, tensor in tuned.state().items()} if accelerator.is_main_process else {}
    return {
        "losses": [result.loss for result in results],
        "norms": [result.gradient_norm for result in results],
        "validation": checked.mean(),
        "weight": size,
        "state": state,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sharded=sys.argv[3] == "sharded")
