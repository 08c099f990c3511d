"""What it spares to read once what several examples begin with: Gemma 3 270M learns departments from questions behind one long instruction.

    python benchmarks/beginnings.py --data FOLDER [--examples 96] [--rounds 3]

FOLDER holds `medical/toyhom-im-sample`. The same LoRA steps over the same examples are trained with beginnings shared and without, alternating, in one process.
Speeds count every example's tokens. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from training import machine

INSTRUCTION = (
    "你是一家综合医院内科楼的导诊员。请读病人对症状的描述,判断他应当先去哪一个科室就诊,并且只回答科室的名称,不要解释理由,也不要给出治疗建议。"
    "可以回答的科室有:心血管科、消化科、肝病科、神经科、内分泌科、呼吸科、肾内科、血液科、感染科、风湿免疫科、普通内科。"
    "如果病人同时有几种症状,以最近出现的、或者最严重的症状为准。血压、心跳、胸痛的问题归心血管科,胃、肠、食道的问题归消化科,乙肝、脂肪肝和转氨酶的问题归肝病科,"
    "头痛、癫痫、中风的问题归神经科,糖尿病和甲状腺的问题归内分泌科,咳嗽、哮喘的问题归呼吸科,其余无法判断的归普通内科。"
    "请注意:病人的描述可能有错别字、省略或者方言,请按最可能的意思理解;描述里的时间、年龄和性别都可能决定科室。病人的描述如下。\n"
)


def taught_from(data: Path, count: int) -> Any:
    """Return the base model and `count` real questions behind the instruction, with their departments."""
    from metier.models import Chat, load_tokenizer, resolve
    from metier.records import Message, Record
    from metier.training.batches import encode_records

    base = resolve("bundled/gemma-3-270m", root=Path.cwd())
    with next((data / "medical" / "toyhom-im-sample").glob("*.csv")).open(encoding="gb18030", newline="") as stream:
        rows = [row for row, _ in zip(csv.DictReader(stream), range(count), strict=False)]
    records = [
        Record(id=str(number), messages=(Message("user", INSTRUCTION + row["ask"]), Message("assistant", row["department"], learn=True)))
        for number, row in enumerate(rows)
    ]
    return base, encode_records(records, Chat(load_tokenizer(base)), 1024)


def train(base: Any, taught: Any, *, shared: bool) -> tuple[float, list[float]]:
    """Train one epoch and return its seconds and the losses of its steps."""
    from accelerate import Accelerator

    from metier.models import load_weights
    from metier.models.lora import attach
    from metier.models.precision import fastest_dtype
    from metier.training import TrainingSettings
    from metier.training.curriculum import plan_steps
    from metier.training.gather import Summing
    from metier.training.loop import run_steps
    from metier.training.objectives import cross_entropy
    from metier.training.settings import BatchSettings

    model = load_weights(base, fastest_dtype())
    attach(model, rank=8, alpha=16.0, dropout=0.0, targets="all-linear", seed=0)
    learnt = [item for item in model.parameters() if item.requires_grad]
    settings = TrainingSettings(learning_rate=1e-4, epochs=1.0, batch=BatchSettings(row_tokens=2048))
    gather = Summing(model, cross_entropy, learnt, Accelerator(), seed=0)
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)
    with patch("metier.training.batches.shares_beginnings", lambda _examples: shared):
        began = time.perf_counter()
        results = list(run_steps(taught, plan_steps(taught, settings), start=0, settings=settings, gather=gather, optimizer=optimizer))
        return time.perf_counter() - began, [result.loss for result in results]


def main() -> None:
    """Train in turn and print what was spared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    before = machine()
    base, taught = taught_from(arguments.data, arguments.examples)
    tokens = int(taught.lengths.sum())
    seconds: dict[bool, list[float]] = {True: [], False: []}
    losses: dict[bool, list[float]] = {}
    for number in range(arguments.rounds):
        for shared in (True, False):
            taken, losses[shared] = train(base, taught, shared=shared)
            seconds[shared].append(taken)
            print(f"round {number}: {'shared' if shared else 'each by itself'} {tokens / taken:.0f} tokens/s", file=sys.stderr)
    speeds = {shared: tokens / statistics.median(found) for shared, found in seconds.items()}
    apart = max(math.fabs(one - other) / other for one, other in zip(losses[True], losses[False], strict=True))
    facts = {"examples": len(taught), "tokens": tokens, "tokens_per_second": speeds[True], "largest_difference_of_losses": apart}
    print(
        json.dumps(
            {
                "benchmark": "beginnings",
                "machine": before,
                "ours": facts,
                "peers": {"each by itself": {"tokens_per_second": speeds[False]}},
                "ratios": {"speed": speeds[True] / speeds[False]},
            }
        )
    )


if __name__ == "__main__":
    main()
