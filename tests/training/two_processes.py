"""Trains the tiny model by every method for a few steps as one of several processes and writes the losses: started by the tests."""

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
from metier.training.curriculum import plan_steps
from metier.training.gather import Summing
from metier.training.loop import run_steps
from metier.training.objectives import cross_entropy
from metier.training.settings import BatchSettings


def main(folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    base = tiny_base(folder)
    words = [("hive " * (1 + number % 5), f"answer {number} " * (1 + number % 3)) for number in range(24)]
    talks = [(Message("user", question), Message("assistant", answer, learn=True)) for question, answer in words]
    records = [Record(id=str(number), messages=talk) for number, talk in enumerate(talks)]
    accelerator = Accelerator(cpu=True)
    found = {method: trained(base, method, records, accelerator) for method in METHODS if method != "qlora" or find_spec("bitsandbytes")}
    rank = accelerator.process_index
    out.with_suffix(f".{rank}.json").write_text(json.dumps({"processes": accelerator.num_processes, "methods": found}))


def trained(base: Base, method: str, records: list[Record], accelerator: Accelerator) -> dict[str, Any]:
    """Return the losses of a few steps and how large the trained numbers have become."""
    model: Any = load_weights(base, torch.float32)
    tuned = attach_method(model, method, Shape(rank=4, alpha=8.0, dropout=0.1, size=8, tokens=4, layers=1), seed=0)
    taught = encode_records(records, Chat(load_tokenizer(base), virtual=tuned.virtual), 1024)
    settings = TrainingSettings(learning_rate=0.01, epochs=1.0, batch=BatchSettings(row_tokens=96, rows=3))
    learnt = [item for item in model.parameters() if item.requires_grad]
    gather = Summing(model.train(), cross_entropy, learnt, accelerator, seed=0)
    watchers = [tuned] if isinstance(tuned, Watched) else []
    means: dict[str, Any] = {"settings": settings, "gather": gather, "optimizer": torch.optim.AdamW(learnt), "watchers": watchers}
    losses = [result.loss for result in run_steps(taught, plan_steps(taught, settings), start=0, **means)]
    return {"losses": losses, "weight": sum(float(tensor.detach().abs().sum()) for tensor in learnt)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
