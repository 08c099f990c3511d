from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.errors import InputError
from metier.models import Base, Chat, Encoded, LocalModel, load_tokenizer, load_weights
from metier.models.lora import attach
from metier.records import Message
from metier.shards import read_drops
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, order, pack, row_of
from metier.training.checking import check
from metier.training.curriculum import plan_steps
from metier.training.loop import learning_rate_at
from metier.training.objectives import answer_losses, cross_entropy
from metier.training.settings import AdaptationSettings, BatchSettings, CheckpointSettings, OptimizerSettings, ValidationSettings

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗桌椅车"]
SETTINGS = TrainingSettings(
    adaptation=AdaptationSettings(rank=4),
    epochs=4,
    learning_rate=5e-3,
    precision="float32",
    batch=BatchSettings(row_tokens=128, rows=1, maximum_tokens=128),
    validation=ValidationSettings(times=2, limit=8),
    checkpoint=CheckpointSettings(steps=1),
)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS[:12], validation=ROWS[12:14], test=ROWS[14:])


def examples_of(base: Base) -> list[Encoded]:
    chat = Chat(load_tokenizer(base))
    return [chat.encode(record.messages) for record in ROWS]


def losses_of(run: Artifact) -> list[float]:
    return [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]


def test_the_packed_loss_is_the_unpacked_loss_and_that_of_transformers(base: Base) -> None:
    examples = examples_of(base)
    model = load_weights(base, torch.float32)
    row = row_of(examples)
    packed = cross_entropy(model, row) / len(row.labels)
    alone = sum(cross_entropy(model, row_of([example])) for example in examples) / len(row.labels)
    assert abs(float(packed) - float(alone)) < 1e-4
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    total = 0.0
    for example in examples:
        labels = [token if learn else -100 for token, learn in zip(example.tokens, example.learn, strict=True)]
        count = sum(example.learn)
        total += float(reference(input_ids=torch.tensor([example.tokens]), labels=torch.tensor([labels])).loss) * count
    assert abs(float(packed) - total / len(row.labels)) < 1e-4


def test_gradients_are_those_of_plain_autograd(base: Base) -> None:
    examples = examples_of(base)[:4]
    gradients = []
    for plain in (False, True):
        model = load_weights(base, torch.float32)
        attach(model, rank=4, alpha=8, dropout=0, targets="all-linear", seed=3)
        parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
        for name, item in parameters.items():
            if name.endswith("lora_b"):
                torch.nn.init.normal_(item, 0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        row = row_of(examples)
        if plain:
            from metier.models.attention import Packed

            for layer in (module for module in model.modules() if hasattr(module, "lora_a")):
                layer.dropout = 1e-12  # takes the branch that autograd differentiates by itself
            model.train()
            states = model.get_decoder()(input_ids=row.tokens[None], position_ids=row.positions[None], plan=Packed(row.lengths), use_cache=False)
            logits = states.last_hidden_state[0][row.sources] @ model.get_output_embeddings().weight.T
            torch.nn.functional.cross_entropy(logits, row.labels, reduction="sum").backward()
        else:
            cross_entropy(model, row).backward()
        gradients.append({name: item.grad for name, item in parameters.items()})
    for name, ours in gradients[0].items():
        assert torch.allclose(ours, gradients[1][name], atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize(("row_tokens", "rows"), [(1024, 1), (128, 8), (40, 32)])
def test_a_step_weighs_tokens_alike_however_they_are_gathered(make_dataset: MakeDataset, store: Store, base: Base, row_tokens: int, rows: int) -> None:
    dataset = make_dataset(train=ROWS)
    batch = BatchSettings(row_tokens=row_tokens, rows=rows, maximum_tokens=128)
    settings = SETTINGS.model_copy(update={"batch": batch, "epochs": 2.0, "validation": ValidationSettings(times=0)})
    run, _ = train(dataset, base, settings, workspace=store.workspace(f"rows-{rows}"))
    assert losses_of(run) == pytest.approx([7.404254, 7.101239], abs=1e-3)


def test_training_lowers_the_loss_and_the_expert_answers_as_taught(dataset: Artifact, base: Base, store: Store) -> None:
    settings = SETTINGS.model_copy(
        update={"epochs": 60.0, "learning_rate": 1e-2, "adaptation": AdaptationSettings(rank=16), "validation": ValidationSettings(times=0)}
    )
    run, adapter = train(dataset, base, settings, workspace=store.workspace("learn"))
    losses = losses_of(run)
    assert losses[-1] < 0.2 < 5 < losses[0]
    model = LocalModel.open(base, adapter.path, dtype=torch.float32)
    from metier.models import GenerationSettings

    question = ROWS[0].messages[:1]
    assert model.generate([question], GenerationSettings(max_new_tokens=24))[0].text == "书在左边"
    assert adapter.facts["base"]["digest"] == base.digest
    assert adapter.parents == (run.digest, dataset.digest, base.digest)


def test_asked_and_effective_settings_stand_side_by_side(dataset: Artifact, base: Base, store: Store) -> None:
    run, _ = train(dataset, base, TrainingSettings(epochs=1, seed=5), workspace=store.workspace("auto"))
    assert run.facts["settings"]["asked"] == {"epochs": 1, "seed": 5}
    assert run.facts["settings"]["effective"]["adaptation"]["rank"] == 8
    assert run.facts["settings"]["effective"]["adaptation"]["alpha"] == 16
    assert run.facts["settings"]["effective"]["precision"] in {"bfloat16", "float32"}
    assert run.facts["flops_per_second"] == pytest.approx(run.facts["flops"] / run.facts["seconds"], rel=0.1)
    assert 0 < run.facts["share_of_peak"] < 1


def test_an_example_that_is_too_long_is_left_out_whole_and_written_down(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    long = conversation("长" * 200, "短")
    dataset = make_dataset(train=[*ROWS, long], validation=ROWS[:2])
    run, _ = train(dataset, base, SETTINGS, workspace=store.workspace("long"))
    drops = list(read_drops(run.file("drops.parquet")))
    assert [drop.record_id for drop in drops] == [long.id]
    assert drops[0].reason.startswith("too_many_tokens:")
    assert run.facts["dropped"] == 1
    assert run.facts["examples"] == len(ROWS)


def test_control_tokens_in_the_training_texts_are_counted(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    dataset = make_dataset(train=[*ROWS, conversation("<eos>在哪里？<eos>", "这里")], validation=ROWS[:2])
    run, _ = train(dataset, base, SETTINGS, workspace=store.workspace("control"))
    assert run.facts["control_tokens_broken_up"] == 2


def test_data_without_a_single_usable_example_is_refused(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    dataset = make_dataset(train=[conversation("长" * 200, "短")])
    with pytest.raises(InputError, match="maximum_tokens"):
        train(dataset, base, SETTINGS, workspace=store.workspace("nothing"))


def test_early_stopping_keeps_the_best_adapter(dataset: Artifact, base: Base, store: Store) -> None:
    settings = SETTINGS.model_copy(
        update={
            "epochs": 40.0,
            "learning_rate": 0.2,
            "validation": ValidationSettings(times=20, patience=2),
            "optimizer": OptimizerSettings(schedule="constant"),
        }
    )
    run, adapter = train(dataset, base, settings, workspace=store.workspace("early"))
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    checks = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    best = min(checks, key=lambda item: item[1])
    assert run.facts["stopped_early"]
    assert run.facts["best_step"] == best[0] < rows[-1]["step"]
    assert run.facts["validation_loss"] == best[1]
    model = load_weights(base, torch.float32)
    from metier.models.lorafile import load_adapter

    load_adapter(model, adapter.path)
    chat = Chat(load_tokenizer(base))
    checks = encode_records(ROWS[12:14], chat, 128)
    checked = check(model, checks, answer_losses, row_tokens=128, accelerator=Accelerator(cpu=True), seen=lambda _: None)
    assert checked.mean() == pytest.approx(best[1], abs=1e-5)


CHILD = """
import sys
from pathlib import Path
from metier.store import Store
from metier.testing import tiny_base
from metier.training import TrainingSettings, train
root, digest, settings = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = Store(root)
dataset, base = store.open("dataset", digest), tiny_base(Path(sys.argv[4]))
run, adapter = train(dataset, base, TrainingSettings.model_validate_json(settings), workspace=store.workspace("killed"))
print(run.digest, adapter.digest)
"""


def test_killed_at_any_point_and_started_again_the_losses_are_bit_for_bit_the_same(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 8.0, "adaptation": AdaptationSettings(rank=4, dropout=0.1)})
    run, adapter = train(dataset, base, settings, workspace=store.workspace("straight"))
    arguments = [sys.executable, "-c", textwrap.dedent(CHILD), str(store.root), dataset.digest, settings.model_dump_json(), str(base.folder)]
    metrics = store.root / "work" / "killed" / "metrics.jsonl"
    for wanted in (3, 9):
        child = subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
        while child.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < wanted):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert child.returncode == -signal.SIGKILL, "the child ended before it could be killed"
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
    again = store.open("run", done.stdout.split()[0])
    assert losses_of(again) == losses_of(run)
    weights = store.open("adapter", done.stdout.split()[1]).file("adapter_model.safetensors")
    assert weights.read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()


def test_a_torn_checkpoint_is_not_believed(dataset: Artifact, base: Base, store: Store) -> None:
    workspace = store.workspace("torn")
    half = workspace.folder / "checkpoints" / ".writing"
    half.mkdir(parents=True)
    (half / "tensors.safetensors").write_bytes(b"half")
    run, _ = train(dataset, base, SETTINGS, workspace=workspace)
    straight, _ = train(dataset, base, SETTINGS, workspace=store.workspace("straight"))
    assert losses_of(run) == losses_of(straight)


def test_rows_hold_every_example_once_and_never_more_than_their_capacity() -> None:
    lengths = [3, 60, 17, 40, 8, 90, 33, 21, 5, 64] * 7
    rows = list(pack(lengths, order(len(lengths), 1, 0), 100))
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 100 for row in rows)
    assert sum(lengths) / (100 * len(rows)) > 0.85


def test_the_order_of_the_dataset_is_kept_where_it_is_asked_for(base: Base) -> None:
    taught = encode_records(ROWS * 3, Chat(load_tokenizer(base)), 128)
    examples = taught.examples
    batch = SETTINGS.batch.model_copy(update={"row_tokens": max(map(len, examples)), "rows": 1})
    plan = plan_steps(taught, SETTINGS.model_copy(update={"epochs": 1.0, "batch": batch.model_copy(update={"order": "dataset"})}))
    firsts = [step[0][0] for step in plan.steps]
    assert firsts == sorted(firsts)
    assert sorted(index for step in plan.steps for row in step for index in row) == list(range(len(examples)))
    drawn = plan_steps(taught, SETTINGS.model_copy(update={"epochs": 1.0, "batch": batch}))
    assert [step[0][0] for step in drawn.steps] != sorted(step[0][0] for step in drawn.steps)


def test_an_epoch_has_its_own_order_and_a_share_of_an_epoch_its_share_of_rows(base: Base) -> None:
    taught = encode_records(ROWS, Chat(load_tokenizer(base)), 128)
    assert order(100, 0, 0) != order(100, 0, 1)
    assert order(100, 0, 1) == order(100, 0, 1)
    whole = plan_steps(taught, SETTINGS.model_copy(update={"epochs": 1.0}))
    half = plan_steps(taught, SETTINGS.model_copy(update={"epochs": 0.5}))
    assert list(half.steps) == whole.steps[: -(-len(whole.steps) // 2)]


def test_the_learning_rate_rises_and_falls_as_the_schedule_says() -> None:
    settings = OptimizerSettings(warmup=0.1, schedule="cosine")
    rates = [learning_rate_at(step, 100, 1.0, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    linear = OptimizerSettings(warmup=0.0, schedule="linear")
    assert learning_rate_at(25, 100, 1.0, linear) == 0.75


def test_messages_that_are_not_learnt_carry_no_loss(base: Base) -> None:
    chat = Chat(load_tokenizer(base))
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d", learn=True)]
    row = row_of([chat.encode(messages)])
    assert chat.tokenizer.decode(row.labels) == "d<eos>"
    assert chat.tokenizer.decode(row.tokens[row.sources + 1]) == "d<eos>"
