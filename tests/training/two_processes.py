"""Trains the tiny model for a few steps as one of several processes and writes the losses: started by the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from metier.models import Chat, load_tokenizer, load_weights
from metier.models.lora import adapter_state, attach
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
    chat = Chat(load_tokenizer(base))
    words = [("hive " * (1 + number % 5), f"answer {number} " * (1 + number % 3)) for number in range(24)]
    talks = [(Message("user", question), Message("assistant", answer, learn=True)) for question, answer in words]
    taught = encode_records([Record(id=str(number), messages=talk) for number, talk in enumerate(talks)], chat, 1024)
    model = load_weights(base, torch.float32)
    attach(model, rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj"), seed=0)
    settings = TrainingSettings(learning_rate=0.01, epochs=2.0, batch=BatchSettings(row_tokens=96, rows=3))
    learnt = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=settings.learning_rate)
    accelerator = Accelerator(cpu=True)
    gather = Summing(model, cross_entropy, learnt, accelerator, seed=0)
    losses = [result.loss for result in run_steps(taught, plan_steps(taught, settings), start=0, settings=settings, gather=gather, optimizer=optimizer)]
    weight = sum(float(tensor.abs().sum()) for tensor in adapter_state(model).values())
    rank = accelerator.process_index
    out.with_suffix(f".{rank}.json").write_text(json.dumps({"processes": accelerator.num_processes, "losses": losses, "weight": weight}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
