"""Training speed and memory of Metier and of TRL on the same examples, model, rank, targets, optimiser and tokens.

    python benchmarks/training.py --data FOLDER [--rounds 3] [--peer-python PYTHON] [--base bundled/gemma-3-270m]
    python benchmarks/training.py --data FOLDER --shape qwen3-1.7b --method qlora --examples 512 --row-tokens 8192 --peer-python PYTHON

FOLDER holds `medical/pubmedqa` (English questions with abstracts) and `medical/toyhom-im-sample` (Chinese consultations).
Half of the examples are of each; they are trained for one epoch, each contender in a process of its own, alternating. `--peer-python` is an
interpreter of an environment that has trl beside metier; without it only Metier runs. `--shape` takes a model of random weights instead of the bundled one.
On a CUDA card everything runs there, and TRL with Liger's kernels is a contender where `liger_kernel` is installed. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
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

RANK, ALPHA, RATE, SEED = 8, 16.0, 1e-4, 0
TARGETS: dict[str, Any] = {"q,v": ("q_proj", "v_proj"), "all-linear": "all-linear"}
BATCH = 8
CONTENDERS = ("metier", "trl-default", "trl-best", "trl-liger")

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-1.7b": (
        "Qwen3Config",
        {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
        | {"vocab_size": 151_936, "tie_word_embeddings": True, "max_position_embeddings": 32_768},
    ),
    "llama-3.2-3b": (
        "LlamaConfig",
        {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128}
        | {"vocab_size": 128_256, "tie_word_embeddings": True, "max_position_embeddings": 32_768},
    ),
}
"""Shapes as their makers publish them; the weights are random, since speed does not depend on them."""


def examples(data: Path, count: int) -> list[tuple[str, str]]:
    """Return real questions with answers, half English, half Chinese."""
    english = json.loads(next((data / "medical" / "pubmedqa").glob("*.json")).read_text(encoding="utf-8"))
    pairs = [(f"{item['QUESTION']}\n{' '.join(item['CONTEXTS'])[:400]}", item["LONG_ANSWER"]) for item in list(english.values())[: count // 2]]
    with next((data / "medical" / "toyhom-im-sample").glob("*.csv")).open(encoding="gb18030", newline="") as stream:
        pairs += [(row["ask"], row["answer"]) for row, _ in zip(csv.DictReader(stream), range(count - len(pairs)), strict=False)]
    return pairs


def shaped(name: str, layers: int | None, folder: Path) -> None:
    """Write a model of random weights in bf16 into a folder; its tokenizer is the bundled model's."""
    import torch
    import transformers

    from metier.models import load_tokenizer, resolve

    kind, numbers = SHAPES[name]
    tokenizer = load_tokenizer(resolve("bundled/gemma-3-270m", root=Path.cwd()))
    torch.manual_seed(SEED)
    about = numbers | ({"num_hidden_layers": layers} if layers else {}) | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**about), dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encode(arguments: argparse.Namespace) -> tuple[Any, list[Any]]:
    """Return the base model and the encoded examples: all contenders train on these very tokens."""
    from metier.models import Base, Chat, Encoded, load_tokenizer, resolve
    from metier.records import Message

    folder = Path(arguments.base)
    found = Base(folder.name, folder, arguments.base, "cc0-1.0") if folder.is_dir() else resolve(arguments.base, root=Path.cwd())
    chat = Chat(load_tokenizer(found))
    pairs = examples(arguments.data, arguments.examples)
    encoded = [chat.encode([Message("user", question), Message("assistant", answer, learn=True)]) for question, answer in pairs]
    most = json.loads((found.folder / "config.json").read_bytes())["vocab_size"]
    # A vocabulary that is smaller than the tokenizer's: the model's weights are random, and so may the words be.
    return found, [Encoded(tuple(token % most for token in item.tokens), item.learn) for item in encoded]


def peak_bytes() -> int:
    """Return the largest memory that was taken: on the card, or this process's resident one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def run_metier(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one epoch with Metier's loop."""
    import torch
    from accelerate import Accelerator

    from metier.models import load_weights
    from metier.models.methods import Shape, attach_method
    from metier.models.precision import fastest_dtype, matmul_peak
    from metier.records import Record
    from metier.training import TrainingSettings
    from metier.training.batches import row_of
    from metier.training.curriculum import plan_steps
    from metier.training.environment import give_back_memory
    from metier.training.examples import Collector
    from metier.training.gather import Summing, to_device
    from metier.training.loop import run_steps
    from metier.training.objectives import cross_entropy
    from metier.training.settings import BatchSettings

    found, encoded = encode(arguments)
    accelerator = Accelerator()
    device = accelerator.device
    dtype = fastest_dtype(device.type)
    model = load_weights(found, dtype)
    attach_method(model, arguments.method, Shape(rank=RANK, alpha=ALPHA, dropout=0.0, targets=TARGETS[arguments.targets]), seed=SEED)
    model.to(device)
    settings = TrainingSettings(learning_rate=RATE, epochs=1.0, batch=BatchSettings(row_tokens=arguments.row_tokens))
    learnt = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0, fused=True)
    with Collector() as collector:
        for place, item in enumerate(encoded):
            collector.take(Record(id=str(place)), item)
    taught = collector.collected()
    plan = plan_steps(taught, settings)
    give_back_memory()
    gather = Summing(model, cross_entropy, learnt, accelerator, seed=SEED)
    began = time.perf_counter()
    results = list(run_steps(taught, plan, start=0, settings=settings, gather=gather, optimizer=optimizer))
    seconds = time.perf_counter() - began
    memory = peak_bytes()
    labels = sum(result.labels for result in results)
    with torch.no_grad():
        after = sum(float(cross_entropy(model, to_device(row_of([item]), device))) for item in encoded) / labels
    tokens = sum(result.tokens for result in results)
    body = sum(item.numel() for name, item in load_outline(found).named_parameters() if "layers" in name)
    head = model.get_output_embeddings().weight.numel()
    # Frozen weights: one product forward and one for the gradient of the input; the head likewise, at labels alone.
    flops = 4 * body * tokens + 4 * head * labels
    peak = matmul_peak(dtype, device.type) if device.type == "cpu" else matmul_peak(dtype, device.type, rows=8192, inner=4096, columns=4096)
    return {
        "tokens": tokens,
        "labels": labels,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": memory,
        "loss_after": after,
        "precision": str(dtype),
        "device": device.type,
        "flops_per_second": flops / seconds,
        "matmul_peak_flops_per_second": peak,
        "share_of_peak": flops / seconds / peak,
    }


def load_outline(base: Any) -> Any:
    """Return a model's shape without weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(base.folder, local_files_only=True))


def run_trl(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Train one epoch with TRL's SFTTrainer: its defaults, what is quickest here, or that with Liger's kernels."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from metier.models.precision import fastest_dtype

    found, encoded = encode(arguments)
    folder, best, card = found.folder, kind != "trl-default", torch.cuda.is_available()
    rows = Dataset.from_list([{"input_ids": list(item.tokens), "completion_mask": [int(learn) for learn in item.learn]} for item in encoded])
    # On a processor, of the settings tried, one example at a time is quickest: padded batches in bf16 run into the copying of frozen weights. Weights are in
    # bf16 where it is multiplied faster.
    slow = {"bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH}
    quick = {"bf16": True, "gradient_checkpointing": False, "padding_free": True, "packing": True, "use_liger_kernel": kind == "trl-liger"} if card else slow
    batch: dict[str, Any] = {"per_device_train_batch_size": 1 if card and best else BATCH} | (quick if best else {})
    with tempfile.TemporaryDirectory() as output:
        config = SFTConfig(
            output_dir=output, num_train_epochs=1, learning_rate=RATE, report_to="none", save_strategy="no",
            logging_steps=1, use_cpu=not card, seed=SEED, max_length=arguments.row_tokens, completion_only_loss=True, disable_tqdm=True, **batch,
        )  # fmt: skip
        packed = {"quantization_config": four_bits()} if arguments.method == "qlora" else {}
        packed |= {"attn_implementation": "flash_attention_2"} if card and best and importlib.util.find_spec("flash_attn") else {}
        dtype = fastest_dtype("cuda" if card else "cpu")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **packed) if best or packed else str(folder)
        targets = TARGETS[arguments.targets]
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets if isinstance(targets, str) else list(targets), task_type="CAUSAL_LM")
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
            labels = torch.tensor([token if learn else -100 for token, learn in zip(item.tokens, item.learn, strict=True)], device=trainer.model.device)
            logits = trainer.model(input_ids=torch.tensor([item.tokens], device=trainer.model.device)).logits[0, :-1].float()
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


def four_bits() -> Any:
    """Return how QLoRA packs weights: NF4, its constants packed again (Dettmers et al. 2023, arXiv 2305.14314)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)


def child(contender: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in a process of its own and return what it printed last."""
    python = sys.executable if contender == "metier" else arguments.peer_python
    command = [python, __file__, "--data", str(arguments.data), "--base", arguments.base, "--contender", contender, "--method", arguments.method]
    command += ["--examples", str(arguments.examples), "--row-tokens", str(arguments.row_tokens), "--targets", arguments.targets]
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
    """Read the command line, and compare the contenders or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a model of random weights instead of --base")
    parser.add_argument("--layers", type=int, help="of the shape: so many layers and not its own number")
    parser.add_argument("--method", choices=("lora", "qlora"), default="lora")
    parser.add_argument("--targets", choices=sorted(TARGETS), default="q,v")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--row-tokens", type=int, default=1024)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(run_metier(arguments) if arguments.contender == "metier" else run_trl(arguments, arguments.contender)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.shape:
            shaped(arguments.shape, arguments.layers, Path(folder))
            arguments.base = folder
        compare(arguments)


def has_liger(python: str) -> bool:
    """Return whether an environment has Liger's kernels, and this machine a card to run them on."""
    probe = "import importlib.util, torch; raise SystemExit(not (torch.cuda.is_available() and importlib.util.find_spec('liger_kernel')))"
    return subprocess.run([python, "-c", probe], check=False).returncode == 0


def compare(arguments: argparse.Namespace) -> None:
    """Run the contenders in turn and print the comparison."""
    peers_here = CONTENDERS[1:] if arguments.peer_python and has_liger(arguments.peer_python) else CONTENDERS[1:3]
    contenders = (CONTENDERS[0], *(peers_here if arguments.peer_python else ()))
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
