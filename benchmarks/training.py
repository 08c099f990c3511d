"""Training speed and memory of Metier and of TRL on the same examples, model, rank, targets, optimiser and tokens.

    python benchmarks/training.py --data FOLDER [--rounds 3] [--peer-python PYTHON] [--base bundled/gemma-3-270m]

FOLDER holds `medical/pubmedqa` (English questions with abstracts) and `medical/toyhom-im-sample` (Chinese consultations).
32 examples of each are trained for one epoch, each contender in a process of its own, alternating. `--peer-python` is an
interpreter of an environment that has trl beside metier; without it only Metier runs. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, ALPHA, TARGETS, RATE, SEED = 8, 16.0, ("q_proj", "v_proj"), 1e-4, 0
ROW_TOKENS, BATCH = 1024, 8
CONTENDERS = ("metier", "trl-default", "trl-best")


def examples(data: Path) -> list[tuple[str, str]]:
    """Return 64 real questions with answers, half English, half Chinese."""
    english = json.loads(next((data / "medical" / "pubmedqa").glob("*.json")).read_text(encoding="utf-8"))
    pairs = [(f"{item['QUESTION']}\n{' '.join(item['CONTEXTS'])[:400]}", item["LONG_ANSWER"]) for item in list(english.values())[:32]]
    with next((data / "medical" / "toyhom-im-sample").glob("*.csv")).open(encoding="gb18030", newline="") as stream:
        pairs += [(row["ask"], row["answer"]) for row, _ in zip(csv.DictReader(stream), range(32), strict=False)]
    return pairs


def encode(base: str, data: Path) -> tuple[Path, list[Any]]:
    """Return the base model's folder and the encoded examples: both contenders train on these very tokens."""
    from metier.models import Chat, load_tokenizer, resolve
    from metier.records import Message

    found = resolve(base, root=Path.cwd())
    chat = Chat(load_tokenizer(found))
    return found.folder, [chat.encode([Message("user", question), Message("assistant", answer, learn=True)]) for question, answer in examples(data)]


def peak_bytes() -> int:
    """Return this process's largest resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def run_metier(base: str, data: Path) -> dict[str, Any]:
    """Train one epoch with Metier's loop."""
    import torch
    from accelerate import Accelerator

    from metier.models import load_weights, resolve
    from metier.models.lora import attach
    from metier.models.precision import fastest_dtype, matmul_peak
    from metier.records import Record
    from metier.training import TrainingSettings
    from metier.training.batches import row_of
    from metier.training.curriculum import plan_steps
    from metier.training.examples import Collector
    from metier.training.gather import Summing
    from metier.training.loop import run_steps
    from metier.training.objectives import cross_entropy
    from metier.training.settings import BatchSettings

    _, encoded = encode(base, data)
    found = resolve(base, root=Path.cwd())
    dtype = fastest_dtype()
    model = load_weights(found, dtype)
    attach(model, rank=RANK, alpha=ALPHA, dropout=0.0, targets=TARGETS, seed=SEED)
    settings = TrainingSettings(learning_rate=RATE, epochs=1.0, batch=BatchSettings(row_tokens=ROW_TOKENS))
    learnt = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0, fused=True)
    with Collector() as collector:
        for place, item in enumerate(encoded):
            collector.take(Record(id=str(place)), item)
    taught = collector.collected()
    plan = plan_steps(taught, settings)
    gather = Summing(model, cross_entropy, learnt, Accelerator(), seed=SEED)
    began = time.perf_counter()
    results = list(run_steps(taught, plan, start=0, settings=settings, gather=gather, optimizer=optimizer))
    seconds = time.perf_counter() - began
    memory = peak_bytes()
    row = row_of(encoded)
    with torch.no_grad():
        after = sum(float(cross_entropy(model, row_of([item]))) for item in encoded) / len(row.labels)
    tokens, labels = sum(result.tokens for result in results), sum(result.labels for result in results)
    body = sum(item.numel() for name, item in model.named_parameters() if "layers" in name and not item.requires_grad)
    head = model.get_output_embeddings().weight.numel()
    # Frozen weights: one product forward and one for the gradient of the input; the head likewise, at labels alone.
    flops = 4 * body * tokens + 4 * head * labels
    peak = matmul_peak(dtype)
    return {
        "tokens": tokens,
        "labels": labels,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": memory,
        "loss_after": after,
        "precision": str(dtype),
        "flops_per_second": flops / seconds,
        "matmul_peak_flops_per_second": peak,
        "share_of_peak": flops / seconds / peak,
    }


def run_trl(base: str, data: Path, *, best: bool) -> dict[str, Any]:
    """Train one epoch with TRL's SFTTrainer: its defaults, or what is quickest on a CPU."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from metier.models.precision import fastest_dtype

    folder, encoded = encode(base, data)
    rows = Dataset.from_list([{"input_ids": list(item.tokens), "completion_mask": [int(learn) for learn in item.learn]} for item in encoded])
    # Of the settings tried, one example at a time is quickest: padded batches in bf16 run into the copying of frozen weights. Weights are in bf16 where
    # the processor multiplies it faster.
    quick = {"bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH} if best else {}
    batch = {"per_device_train_batch_size": BATCH} | quick
    with tempfile.TemporaryDirectory() as output:
        config = SFTConfig(
            output_dir=output, num_train_epochs=1, learning_rate=RATE, report_to="none", save_strategy="no",
            logging_steps=1, use_cpu=True, seed=SEED, max_length=1024, completion_only_loss=True, disable_tqdm=True, **batch,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=fastest_dtype()) if best else str(folder)
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    memory = peak_bytes()
    total = 0.0
    trainer.model.eval()
    with torch.no_grad():
        for item in encoded:
            labels = torch.tensor([token if learn else -100 for token, learn in zip(item.tokens, item.learn, strict=True)])
            logits = trainer.model(input_ids=torch.tensor([item.tokens])).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
    tokens, labels = sum(len(item) for item in encoded), sum(sum(item.learn) for item in encoded)
    return {
        "tokens": tokens,
        "labels": labels,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": memory,
        "loss_after": total / labels,
        "precision": str(next(trainer.model.parameters()).dtype),
        "log": [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry],
    }


def child(contender: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in a process of its own and return what it printed last."""
    python = sys.executable if contender == "metier" else arguments.peer_python
    command = [python, __file__, "--data", str(arguments.data), "--base", arguments.base, "--contender", contender]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TRL_USAGE_STATS": "0", "CI": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{contender}: {result['tokens_per_second']:.1f} tokens/s, {result['peak_memory_bytes'] / 2**30:.2f} GiB, loss after {result['loss_after']:.4f}",
        file=sys.stderr,
    )
    return result


def middle(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run with the median speed."""
    return sorted(results, key=lambda item: item["tokens_per_second"])[len(results) // 2]


def machine() -> dict[str, Any]:
    """Return what names this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    model = next((line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), "") if cpuinfo.exists() else ""
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def main() -> None:
    """Run the contenders in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        runs = {"metier": run_metier} | {name: lambda base, data, name=name: run_trl(base, data, best=name == "trl-best") for name in CONTENDERS[1:]}
        print(json.dumps(runs[arguments.contender](arguments.base, arguments.data)))
        return
    contenders = CONTENDERS if arguments.peer_python else CONTENDERS[:1]
    before = machine()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name in contenders:
            results[name].append(child(name, arguments))
    medians = {name: middle(found) for name, found in results.items()}
    ours = medians["metier"] | {"tokens_per_second_spread": [round(item["tokens_per_second"], 1) for item in results["metier"]]}
    peers = {name: medians[name] | {"tokens_per_second_spread": [round(item["tokens_per_second"], 1) for item in results[name]]} for name in contenders[1:]}
    ratios = {}
    for name, peer in peers.items():
        ratios[name] = {
            "speed": ours["tokens_per_second"] / peer["tokens_per_second"],
            "memory": ours["peak_memory_bytes"] / peer["peak_memory_bytes"],
            "loss": ours["loss_after"] / peer["loss_after"],
        }
    share = statistics.median(item["share_of_peak"] for item in results["metier"])
    print(json.dumps({"benchmark": "training", "machine": before, "ours": ours | {"share_of_peak": share}, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
