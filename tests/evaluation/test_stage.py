import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.bilingual import BOTH, commit_adapter, commit_run, make_pack, poor, right, small_dataset
from metier.evaluation import EvaluationSettings, evaluate
from metier.models import LocalModel
from metier.store import Store
from metier.testing import ScriptedModel


def evaluated(store, dataset, adapter, pack, model=None, key="evaluation", run=None, **settings):
    chosen = EvaluationSettings(retention_items=40, question="What is a river? 河是什么？", **settings)
    return evaluate(dataset, adapter, model or ScriptedModel(right, poor), pack, chosen, BOTH, workspace=store.workspace(key), run=run)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory):
    """One evaluation, made once for the tests that only read it, with the arguments it was made of."""
    root = tmp_path_factory.mktemp("example")
    store = Store(root / ".metier")
    dataset = small_dataset(store)
    arguments = store, dataset, commit_adapter(store, dataset), make_pack(root)
    return evaluated(*arguments, run=commit_run(store, dataset)), arguments


@pytest.fixture
def evaluation(example):
    return example[0]


def test_the_artefact_has_its_parents_and_files(example):
    evaluation, (_, dataset, adapter, _) = example
    assert evaluation.kind == "evaluation"
    assert evaluation.parents == (dataset.digest, adapter.digest)
    samples = {f"samples/{name}.jsonl" for name in ("feel", "add", "held-out", "held-out-answers", "retention")}
    assert set(evaluation.files) == {"results.json", "report.html", *samples}


def test_the_facts_hold_the_summary_table(evaluation):
    row = evaluation.facts["tasks"]["add"]["exact_match"]
    # All 40 items agree: the exact bound is .025^(1/40), not an interval without width.
    assert row["tuned"] == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 40)), "high": 1.0}
    assert row["base"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 40))}
    assert row["delta"]["value"] == 1.0
    assert (row["n"], row["invalid"], row["verdict"]) == (40, {"base": 40, "tuned": 0}, "gain")
    assert evaluation.facts["tasks"]["feel"]["roc_auc"]["tuned"]["value"] == 1.0
    assert evaluation.facts["tasks"]["held-out"]["bits_per_character"]["verdict"] == "gain"
    assert evaluation.facts["format"]["add"]["delta"]["format"] is None
    assert evaluation.facts["question"] == {"text": "What is a river? 河是什么？", "base": "?", "tuned": "a river 河"}
    assert evaluation.facts["retention"]["forgetting"]["value"] == 0.0


def test_results_have_the_shape_of_lm_eval(evaluation):
    results = json.loads(evaluation.file("results.json").read_text(encoding="utf-8"))
    for key in ("results", "configs", "versions", "n-shot", "n-samples", "higher_is_better"):
        assert set(results[key]) == {"feel", "add", "held-out", "held-out-answers", "retention"}
    assert results["n-shot"]["add"] == 2
    assert results["versions"]["add"] == "2.1"
    assert results["n-samples"]["held-out"] == {"original": 80, "effective": 80}
    assert results["higher_is_better"]["feel"]["brier_score"] is False
    assert results["configs"]["add"]["generation_kwargs"] == {"max_gen_toks": 16}
    assert results["results"]["add"]["exact_match"]["tuned"]["value"] == 1.0


def test_every_item_is_kept_with_both_answers_and_its_hashes(evaluation):
    rows = [json.loads(line) for line in evaluation.file("samples/add.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    row = next(row for row in rows if row["prompt"][-1]["content"] == "3 加 1 等于几？")
    assert (row["target"], row["language"]) == ("答案：4", "zh")
    assert (row["tuned"]["text"], row["tuned"]["label"], row["tuned"]["valid"]) == ("答案：4", "4", True)
    assert (row["base"]["text"], row["base"]["valid"], row["base"]["scores"]["exact_match"]) == ("a number", False, 0.0)
    assert {len(row[key]) for key in ("doc_hash", "prompt_hash", "target_hash")} == {64}
    feel = [json.loads(line) for line in evaluation.file("samples/feel.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(len(row["tuned"]["likelihoods"]) == len(row["choices"]) == 2 for row in feel)


def test_the_scores_in_the_samples_give_the_mean_in_the_facts(evaluation):
    rows = [json.loads(line) for line in evaluation.file("samples/held-out-answers.jsonl").read_text(encoding="utf-8").splitlines()]
    mean = sum(row["base"]["scores"]["chrf"] for row in rows) / len(rows)
    assert evaluation.facts["tasks"]["held-out-answers"]["chrf"]["base"]["value"] == pytest.approx(mean)


def test_the_same_inputs_give_the_same_digest(example):
    evaluation, (store, dataset, adapter, pack) = example
    again = evaluated(store, dataset, adapter, pack, key="again", run=commit_run(store, dataset))
    assert again.digest == evaluation.digest


def test_a_real_model_without_adapter_differs_from_itself_nowhere(base, example):
    _, (store, dataset, adapter, pack) = example
    model = LocalModel.open(base)
    found = evaluated(store, dataset, adapter, pack, model=model, key="real", tasks=("feel", "held-out"), limit=3, free_text_limit=1, max_new_tokens=8)
    deltas = [row["delta"]["value"] for rows in found.facts["tasks"].values() for row in rows.values()]
    assert deltas == [0.0] * len(deltas)
    bits = found.facts["tasks"]["held-out"]["bits_per_character"]["base"]["value"]
    # An untrained model spreads over its vocabulary of at most 768 tokens, each of at least a third of a Chinese character.
    assert 0.5 < bits < 3.5 * 9.6
    assert found.facts["question"]["base"] == found.facts["question"]["tuned"]


def test_equal_sides_have_no_gain_anywhere(store, dataset, adapter, pack):
    found = evaluated(store, dataset, adapter, pack, model=ScriptedModel(poor))
    verdicts = {row["verdict"] for rows in found.facts["tasks"].values() for row in rows.values()}
    assert verdicts == {"no clear difference"}
    assert "No clear difference between the tuned model and its base" in found.file("report.html").read_text(encoding="utf-8")


def test_a_worse_tuned_model_is_called_a_loss(store, dataset, adapter, pack):
    found = evaluated(store, dataset, adapter, pack, model=ScriptedModel(poor, right))
    assert found.facts["tasks"]["feel"]["acc"]["verdict"] == "loss"
    assert found.facts["tasks"]["held-out"]["bits_per_character"]["verdict"] == "loss"
    assert found.facts["retention"]["retention"]["value"] < 0.8


def test_the_base_model_is_asked_once_for_all_experts_by_the_same_code(store, dataset, adapter, pack):
    asked: list[str] = []

    def base(prompt):
        asked.append(prompt[-1].content if prompt else "text")
        return poor(prompt)

    def by(key: str, code: str, **settings):
        chosen = EvaluationSettings(retention_items=40, question="What is a river? 河是什么？", **settings)
        workspace = replace(store.workspace(key), code=code)
        return evaluate(dataset, adapter, ScriptedModel(right, base), pack, chosen, BOTH, workspace=workspace)

    first, once = by("one", "c"), len(asked)
    second = by("two", "c")
    assert len(asked) == once > 0
    assert second.facts["tasks"] == first.facts["tasks"]
    by("three", "other code")
    assert len(asked) == 2 * once
    by("four", "")
    by("five", "")
    assert len(asked) == 4 * once, "nothing is shared where the code is not known"
    by("six", "c", max_new_tokens=7)
    assert 4 * once < len(asked) < 5 * once, "only what is written out is asked anew"


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from evaluation.bilingual import BOTH, make_pack, poor, right
from metier.evaluation import EvaluationSettings, evaluate
from metier.store import Store
from metier.testing import ScriptedModel

root, dataset, adapter, stop = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
log = root / "asked.txt"

class Killed(ScriptedModel):
    def _note(self, prompts):
        side = "base" if self._answer is self._base else "tuned"
        with log.open("a") as stream:
            stream.writelines(side + repr([message.content for message in prompt]) + chr(10) for prompt in prompts)
        if len(log.read_text().splitlines()) > stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def generate(self, prompts, settings, **rest):
        self._note(prompts)
        return super().generate(prompts, settings, **rest)

    def choose(self, prompts, choices, **rest):
        self._note([[*prompt, *map(type(prompt[-1]), ["user"] * len(options), options)] for prompt, options in zip(prompts, choices)])
        return super().choose(prompts, choices, **rest)

store = Store(root / "project" / ".metier")
settings = EvaluationSettings(retention_items=40, question="What is a river? 河是什么？", batch=8)
given = store.open("dataset", dataset), store.open("adapter", adapter), Killed(right, poor), make_pack(root)
found = evaluate(*given, settings, BOTH, workspace=store.workspace("killed"))
print(found.digest)
"""


def test_killed_twice_the_evaluation_ends_with_the_same_result(store, dataset, adapter, pack, tmp_path: Path):
    script = textwrap.dedent(CHILD).format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", script, str(tmp_path), dataset.digest, adapter.digest]
    for stop in (50, 250):
        assert subprocess.run([*command, str(stop)], env=os.environ, check=False, capture_output=True).returncode == -signal.SIGKILL
    done = subprocess.run([*command, "1000000"], env=os.environ, check=True, capture_output=True, text=True)
    undisturbed = evaluated(store, dataset, adapter, pack, batch=8)
    assert done.stdout.strip() == undisturbed.digest
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    # 40 + 40 + 80 + 40 + 40 items and the question, on two sides; each kill can cost one batch of 8.
    assert len(set(asked)) == 2 * 241
    assert 2 * 241 < len(asked) <= 2 * 241 + 2 * 8
