"""`psgpo rerank` end to end on six problems, a policy that has just learned two-line functions, and untrained PRMs."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_world import family_tokenizer
from seq2seq_world import code_tokenizer, tiny_seq2seq
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from psgpo.cli.rerank import app
from psgpo.config import EvaluationSettings, SamplingSettings, SftSettings
from psgpo.errors import UserError
from psgpo.evaluation import mean_pass_at_k
from psgpo.evaluation.evaluate import evaluate_policy
from psgpo.evaluation.summary import read_results
from psgpo.execution import Sandbox
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.labeling.identity import tokenizer_fingerprint
from psgpo.lines import TokenText, code_lines
from psgpo.models import TokenValueModel, create_policy, load_policy, load_tokenizer, train_tokenizer
from psgpo.prm import ScorerRecord, open_scorer
from psgpo.problems import save_problems_jsonl
from psgpo.problems.programs import chat_prompt
from psgpo.records import Call, CallTests, Completion, Problem, Response
from psgpo.rerank import search as search_module
from psgpo.rerank.drive import Driver, Player, stops_at_lines
from psgpo.rerank.render import render_search
from psgpo.rerank.scores import aggregates, open_readers, prm_columns
from psgpo.rerank.strategies import Attempt, Row, beam
from psgpo.sampling import open_sampler
from psgpo.seeds import derive_seed
from psgpo.sft import train_sft

TEMPLATE = "# {prompt}\n"
RECORD = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template=TEMPLATE, threshold=0.0)
PROBLEMS = [
    Problem(
        id=f"p{i}",
        prompt=f"add {i}",
        tests=CallTests(function="solve", calls=tuple(Call(args=(x,), expected=x + i) for x in (1, 5))),
    )
    for i in range(6)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policy/model, prm/, orm/, problems.jsonl, sft/samples.jsonl."""
    folder = tmp_path_factory.mktemp("world")
    torch.set_num_threads(1)
    programs = [f"def solve(x):\n{note}    return x + {i}\n" for i in range(6) for note in ("", "    # note\n")]
    pairs = [(f"# add {i // 2}\n", program) for i, program in enumerate(programs)]
    tokenizer = train_tokenizer([prompt + program for prompt, program in pairs], 290)
    policy = create_policy(tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    train_sft(
        policy, tokenizer, pairs * 30, SftSettings(learning_rate=1e-2, batch_size=8), out=folder / "policy", seed=0
    )
    for name, scope in (("prm", "line"), ("orm", "program")):
        value = TokenValueModel.from_policy(folder / "policy" / "model", head_init="normal", seed=1)
        value.save_pretrained(folder / name, tokenizer)
        dataclasses.replace(RECORD, scope=scope).save(folder / name)
    save_problems_jsonl(folder / "problems.jsonl", PROBLEMS)
    with Sandbox(workers=1, timeout=1.0) as sandbox:
        evaluate_policy(
            folder / "policy" / "model",
            PROBLEMS,
            sandbox,
            EvaluationSettings(samples=4, bootstrap=50),
            SamplingSettings(max_new_tokens=24, batch_size=32),
            folder / "sft",
            prompt_template=TEMPLATE,
        )
    return folder


def command(name: str, world: Path, out: Path, *more: str) -> str:
    arguments = [name, "--problems", str(world / "problems.jsonl"), "--out", str(out), "--resamples", "50", *more]
    done = CliRunner().invoke(app, [*arguments, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    return done.stdout


def rerank(world: Path, out: Path, *more: str) -> str:
    given = ["--prm", f"mine={world / 'prm'}", "--orm", str(world / "orm"), "--policy", str(world / "policy/model")]
    return command("samples", world, out, str(world / "sft" / "samples.jsonl"), *given, *more)


def search(world: Path, out: Path, *more: str) -> str:
    given = ["--prm", str(world / "prm"), "--policy", str(world / "policy/model"), "--budget", "60"]
    return command("search", world, out, *given, "--width", "2", "--expansions", "2", "--max-new-tokens", "24", *more)


def summary_of(out: Path):
    return json.loads((out / "summary.json").read_text())


def test_samples_are_ranked_by_everything(world: Path, tmp_path: Path) -> None:
    printed = rerank(world, tmp_path / "out")
    summary = summary_of(tmp_path / "out")
    methods = summary["methods"]
    ranked = [f"mine-{kind}" for kind in ("last", "mean", "min", "product")]
    assert set(methods) == {"random", "oracle", "majority", "likelihood-mean", "likelihood-sum", "orm", *ranked}
    assert all(name in printed for name in methods)
    results = read_results(world / "sft" / "samples.jsonl")
    for n in range(1, 5):
        at = {name: method["curve"][n - 1] for name, method in methods.items()}
        expected = mean_pass_at_k(results, n, resamples=50)
        assert at["oracle"]["value"] == pytest.approx(expected.value)
        assert at["oracle"]["low"] == pytest.approx(expected.low)
        assert at["random"]["value"] == pytest.approx(mean_pass_at_k(results, 1).value)
        assert all(point["value"] <= at["oracle"]["value"] + 1e-9 for point in at.values())
        assert len({point["tokens"] for point in at.values()}) == 1
    tokens = [len(row["token_ids"]) for row in read_jsonl(world / "sft" / "samples.jsonl", dict) if not row["greedy"]]
    assert methods["oracle"]["curve"][3]["tokens"] == pytest.approx(4 * np.mean(tokens))
    assert methods["oracle"]["closed"]["value"] == pytest.approx(1.0)
    assert set(methods["orm"]["minus"]) == {"random", "likelihood-mean", "majority"}
    with (tmp_path / "out" / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * len(methods)
    for name in ("over-n.png", "over-tokens.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_a_cut_off_reranking_goes_on_to_the_same_summary(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rerank(world, out)
    whole = (out / "summary.json").read_bytes()
    kept = {}
    for name in ("scores/mine.jsonl", "scores/likelihood.jsonl", "outputs.jsonl"):
        data = (out / name).read_bytes()
        kept[name] = sorted(data.splitlines())
        (out / name).write_bytes(data[: len(data) // 2])  # in the middle of a row
    rerank(world, out)
    assert (out / "summary.json").read_bytes() == whole
    assert {name: sorted((out / name).read_bytes().splitlines()) for name in kept} == kept


def test_scores_of_an_orm_that_read_the_prose_are_refused(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rerank(world, out)
    (prm,), (orm,) = open_readers([("mine", world / "prm")], [("orm", world / "orm")], "cpu")
    jobs = {name: out / "scores" / f"{name}.job.json" for name in ("mine", "orm")}
    jobs["orm"].write_text(json.dumps({"model": orm.identity["model"]}))  # as earlier versions wrote it
    assert json.loads(jobs["mine"].read_text()) == prm.identity == {"model": prm.identity["model"]}
    with pytest.raises(UserError, match=r"orm.job.json: holds another job \(reads differ\)"):
        rerank(world, out)


def test_wrong_input_is_named(world: Path, tmp_path: Path) -> None:
    samples = list(read_jsonl(world / "sft" / "samples.jsonl", dict))

    def refused(rows, match: str, *more: str) -> None:
        write_jsonl(tmp_path / "samples.jsonl", rows)
        with pytest.raises(UserError, match=match):
            command("samples", world, tmp_path / "out", str(tmp_path / "samples.jsonl"), "--no-majority", *more)

    refused(
        [row | {"problem_id": "q7"} for row in samples[:2]], r"samples.jsonl:1: problem 'q7' .* other problems than"
    )
    other = samples[0] | {"verdict": samples[0]["verdict"] | {"tests_total": 9}}
    refused([other], r"judged by 9 tests, and problem p0 has 2: these samples are of other problems")
    refused(
        [row for row in samples if row["index"] == 0], r"p0 has 1 sampled responses; every problem needs at least 2"
    )
    refused([row for row in samples if row["greedy"]], "no sampled response")
    refused([samples[0], samples[0]], r"samples.jsonl:2: response 0 of p0 \(sft\) is here twice")
    refused([{"task_id": "p0", "completion": "x"}], "no response with token ids and a verdict")
    refused(
        [row for row in samples if row["problem_id"] not in ("p1", "p4")],
        r"2 of the 6 problems in .*problems.jsonl have no sampled response \(p1, p4\); give samples of all",
    )
    refused(samples, "orm: an ORM: give it as --orm", "--prm", str(world / "orm"))
    refused(samples, "prm: a PRM, which scores lines: give it as --prm", "--orm", str(world / "prm"))
    prm, orm = str(world / "prm"), world / "orm"
    refused(samples, r"--orm .*/orm: the name 'prm' is taken by --prm .*/prm;", "--prm", prm, "--orm", f"prm={orm}")
    refused(samples, "the name 'prm-last' is taken by --prm", "--prm", prm, "--orm", f"prm-last={orm}")
    refused(samples, "the name 'likelihood-mean' is taken by a method", "--orm", f"likelihood-mean={orm}")
    refused(samples, "the name 'likelihood' is taken by the policy", "--prm", f"likelihood={prm}")
    refused(samples, "nothing: no such folder", "--prm", str(world / "nothing"))
    assert not list((tmp_path / "out").iterdir())  # refused before anything was written
    rerank(world, tmp_path / "out")
    again = [row | {"verdict": row["verdict"] | {"status": "WRONG_ANSWER"}} for row in samples]
    refused(again, "holds another job")


@pytest.mark.parametrize("name", ["samples", "search"])
def test_intervals_need_a_resample(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--resamples", "0"])
    assert done.exit_code == 2
    assert "--resamples" in done.output
    assert "greater than or equal to 1" in re.sub(r"[\s│]+", " ", done.output)


def test_a_half_finished_evaluation_of_a_run_is_refused(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    folder = run / "evaluation" / "dense"
    shutil.copytree(world / "sft", folder)
    (run / "recipe.json").write_text("{}")
    summary = (folder / "summary.json").rename(tmp_path / "later.json")  # it is written last
    given = ["samples", world, tmp_path / "out", str(folder / "samples.jsonl"), "--no-majority"]
    go_on = f"psgpo run '{run}/recipe.json' --set 'out={run}' --until evaluate-dense"
    with pytest.raises(UserError, match=f"evaluation of dense has not come to its end.*; run: {re.escape(go_on)}$"):
        command(*given)
    assert not list((tmp_path / "out").glob("*.json"))
    summary.rename(folder / "summary.json")
    assert "pass@1 of the one that is chosen" in command(*given)


def test_a_problem_with_fewer_responses_ends_every_curve_and_is_named(world: Path, tmp_path: Path) -> None:
    rows = [row for row in read_jsonl(world / "sft" / "samples.jsonl", dict) if not row["greedy"]]
    write_jsonl(tmp_path / "samples.jsonl", [row for row in rows if (row["problem_id"], row["index"]) != ("p2", 3)])
    printed = command("samples", world, tmp_path / "out", str(tmp_path / "samples.jsonl"), "--no-majority")
    assert "n ends at 3, the fewest responses of a problem (p2); others have up to 4" in printed


@pytest.fixture(scope="module")
def searched(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searched")
    (out / "printed.txt").write_text(search(world, out))
    return out


def test_search_compares_at_equal_tokens(searched: Path, world: Path) -> None:
    summary = summary_of(searched)
    strategies = ["best-of-n", "beam", "rejection"]
    assert set(summary["methods"]) == {*strategies, "random", "oracle", "majority", "likelihood-mean"}
    assert all(name in (searched / "printed.txt").read_text() for name in summary["methods"])
    assert "beam: only the last column is a run of its budget" in (searched / "printed.txt").read_text()
    assert summary["majority"] is None
    assert "majority is left out: scripts\n" in render_search(summary | {"majority": "scripts"})
    tokenizer = load_tokenizer(world / "policy" / "model")
    for name in strategies:
        rows = list(read_jsonl(searched / f"{name}.jsonl", dict))
        assert [row["problem_id"] for row in rows] == [problem.id for problem in PROBLEMS]
        for row in rows:
            assert row["spent"] <= 60
            ids = [candidate["response"]["token_ids"] for candidate in row["candidates"]]
            assert all(one[-1] == tokenizer.eos_token_id and len(one) <= 24 for one in ids)
            spent = [candidate["tokens"] for candidate in row["candidates"]]
            assert spent == sorted(spent)
            if name == "best-of-n":  # what is in no finished program was cut off at 24 tokens
                assert all(not lost % 24 for lost in np.array(spent) - np.cumsum([len(one) for one in ids]))
        # By hand: at the largest budget, of the candidates the best by score.
        best = [max(row["candidates"], key=lambda c: c["scores"]["min"], default=None) for row in rows]
        passed = [one is not None and one["response"]["verdict"]["status"] == "PASSED" for one in best]
        last = summary["methods"][name]["curve"][-1]
        assert (last["tokens"], last["value"]) == (60, pytest.approx(np.mean(passed)))


def test_an_orm_judges_the_programs_of_a_search_that_is_done(searched: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(searched, out)
    printed = search(world, out, "--orm", f"judge={world / 'orm'}")
    assert re.search(r"^judge ", printed, re.MULTILINE)
    assert (out / "best-of-n.jsonl").read_text() == (searched / "best-of-n.jsonl").read_text()
    orm, prompts = open_scorer(world / "orm"), {problem.id: problem.prompt for problem in PROBLEMS}
    passed = []
    for row in read_jsonl(out / "best-of-n.jsonl", dict):
        pool = [c["response"] for c in row["candidates"]]
        scores = [round(orm.score_program(prompts[row["problem_id"]], one["text"]), 4) for one in pool]
        best = [one["verdict"]["status"] == "PASSED" for one, s in zip(pool, scores, strict=True) if s == max(scores)]
        passed.append(np.mean(best) if best else 0.0)
    assert summary_of(out)["methods"]["judge"]["curve"][-1]["value"] == pytest.approx(np.mean(passed))
    with pytest.raises(UserError, match="the name 'beam' is taken by a method"):
        search(world, out, "--orm", f"beam={world / 'orm'}")
    with pytest.raises(UserError, match="prm: a PRM, which scores lines: give it as --prm"):
        search(world, out, "--orm", str(world / "prm"))


def test_what_search_wrote_is_no_file_of_samples(searched: Path, world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"best-of-n.jsonl:1: no response with token ids .* of a run, or the folder of"):
        command("samples", world, tmp_path / "out", str(searched / "best-of-n.jsonl"), "--no-majority")


def test_what_guides_is_what_chooses(searched: Path, world: Path) -> None:
    """Prefixes, one by one, get the scores that their lines have in the whole program."""
    scorer, tokenizer = open_scorer(world / "prm"), load_tokenizer(world / "policy" / "model")
    attempt = Attempt(budget=1, max_new_tokens=1, text=TokenText(tokenizer), stops=frozenset())
    prompts = {problem.id: problem.prompt for problem in PROBLEMS}
    compared = 0
    for name in ("best-of-n", "beam", "rejection"):
        for row in read_jsonl(searched / f"{name}.jsonl", dict):
            prompt = prompts[row["problem_id"]]
            for candidate in row["candidates"]:
                text = candidate["response"]["text"]
                neutral = [line.neutral for line in code_lines(text)]
                if all(neutral):
                    continue
                scores = scorer.score_lines(prompt, text)
                assert candidate["scores"] == pytest.approx(aggregates(scores, neutral, RECORD), abs=1e-4)
                prefixes = attempt.prefixes(Row(ids=tuple(candidate["response"]["token_ids"]), finished=True))
                guiding = scorer.score_prefixes([(prompt, prefix) for prefix in prefixes])
                assert guiding == pytest.approx(scores[~np.array(neutral)], abs=1e-4)
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("target", ["sign", "progress"])
def test_search_and_samples_score_the_same_programs_alike(
    target: str, searched: Path, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "prm", tmp_path / "prm")
    dataclasses.replace(RECORD, target=target).save(tmp_path / "prm")
    out = tmp_path / "out"
    search(world, out, "--prm", str(tmp_path / "prm"), "--method", "beam")
    candidates = [c for row in read_jsonl(out / "best-of-n.jsonl", dict) for c in row["candidates"]]
    commented = [c for c in candidates if {False, True} == {line.neutral for line in code_lines(c["response"]["text"])}]
    assert commented
    responses = {str(n): Response.from_json(c["response"]) for n, c in enumerate(commented)}
    (reader,), _ = open_readers([("mine", tmp_path / "prm")], [], "cpu")
    problems = {problem.id: problem for problem in PROBLEMS}
    columns = prm_columns(reader, responses, problems, tmp_path / "read", progress=lambda done, total: None)
    for n, candidate in enumerate(commented):
        found = {kind: columns[f"mine-{kind}"][str(n)] for kind in ("last", "mean", "min", "product")}
        assert candidate["scores"] == pytest.approx(found, abs=1e-4)


def test_the_likelihood_is_at_temperature_1_whatever_the_sampling(world: Path, tmp_path: Path) -> None:
    search(world, tmp_path / "out", "--method", "beam", "--temperature", "0.5")
    model, _ = load_policy(world / "policy" / "model")
    candidates = [c for row in read_jsonl(tmp_path / "out" / "best-of-n.jsonl", dict) for c in row["candidates"]]
    assert len(candidates) > 10
    for candidate in candidates:
        prompt, ids = candidate["response"]["prompt_ids"], candidate["response"]["token_ids"]
        with torch.no_grad():
            table = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        each = [float(table[len(prompt) + n - 1, token]) for n, token in enumerate(ids)]
        assert candidate["logprob"] == pytest.approx(np.mean(each), abs=1e-4)


def test_best_of_n_is_plain_sampling(searched: Path, world: Path) -> None:
    sampler, tokenizer = open_sampler(f"hf:{world / 'policy' / 'model'}")
    for row, problem in zip(read_jsonl(searched / "best-of-n.jsonl", dict), PROBLEMS, strict=True):
        prompt = tokenizer(f"# {problem.prompt}\n", add_special_tokens=False)["input_ids"]
        seed = derive_seed(0, "rerank", problem.id, 0)
        (plain,) = sampler.sample([prompt], seeds=[seed], max_new_tokens=24)
        first = row["candidates"][0] if row["candidates"] else None
        if plain.finished:
            assert first is not None
            assert tuple(first["response"]["token_ids"]) == plain.token_ids
            assert first["logprob"] == pytest.approx(np.mean(plain.logprobs), abs=1e-4)


def test_lines_put_together_are_the_whole(world: Path) -> None:
    sampler, tokenizer = open_sampler(f"hf:{world / 'policy' / 'model'}")
    prompt = tuple(tokenizer("# add 3\n", add_special_tokens=False)["input_ids"])
    (greedy,) = sampler.sample([prompt], seeds=[0], temperature=0.0, max_new_tokens=24)
    assert greedy.finished
    attempt = Attempt(
        budget=len(greedy.token_ids), max_new_tokens=24, text=TokenText(tokenizer), stops=sampler.stop_ids
    )

    class Zeros:
        def score_prefixes(self, pairs):
            assert all("\n" in text for _, text in pairs)
            return np.zeros(len(pairs))

    lines = stops_at_lines(sampler, tokenizer)
    Driver(sampler=sampler, line_sampler=lines, scorer=Zeros(), temperature=0.0, top_p=1.0, seed=0).run(
        [Player(problem_id="p", prompt="", prompt_ids=prompt, asking=beam(attempt, width=1, expansions=1))]
    )
    assert attempt.candidates[0].row.ids == greedy.token_ids
    assert attempt.drawn > 1


def test_a_cut_off_search_goes_on_to_the_same_files(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "CHUNK", 2)
    out = tmp_path / "out"
    search(world, out, "--method", "rejection")
    names = ["best-of-n.jsonl", "rejection.jsonl", "summary.json", "curves.csv"]
    whole = {name: (out / name).read_text() for name in names}
    for name in names[:2]:
        rows = whole[name].splitlines(keepends=True)
        (out / name).write_text("".join(rows[:3]) + rows[3][:40])  # one chunk, half of the next, and a torn row
    search(world, out, "--method", "rejection")
    assert {name: untimed((out / name).read_text()) for name in names} == {n: untimed(t) for n, t in whole.items()}


def untimed(text: str) -> str:
    """Without the times in the verdicts of programs that were judged again."""
    rows = [json.loads(line) for line in text.splitlines()] if text.startswith('{"') else []
    for row in rows:
        for candidate in row["candidates"]:
            for key in ("cpu_seconds", "wall_seconds", "cached"):
                candidate["response"]["verdict"].pop(key)
    return json.dumps(rows) if rows else text


def llama() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """With a tokenizer as Qwen2.5's: other merges, other special tokens, other ids than the PRM's."""
    tokenizer = family_tokenizer("qwen2.5-base")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special)
    return LlamaForCausalLM(config), tokenizer


def t5() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An encoder–decoder with a tokenizer as CodeT5's."""
    return tiny_seq2seq("t5"), code_tokenizer()


@pytest.mark.parametrize("make", [llama, t5])
def test_any_model_of_transformers_can_be_searched(make, world: Path, tmp_path: Path) -> None:
    model, tokenizer = make()
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(load_tokenizer(world / "prm"))
    pairs = [(f"# add {i}\n", f"def solve(x):\n    return x + {i}\n") for i in range(6)]
    settings = SftSettings(learning_rate=1e-2, batch_size=8)
    train_sft(model, tokenizer, pairs * 120, settings, out=tmp_path / "policy", seed=0)
    out, folder = tmp_path / "out", tmp_path / "policy" / "model"
    search(world, out, "--policy", f"hf:{folder}", "--max-new-tokens", "40", "--budget", "160", "--temperature", "0.5")
    scorer, own = open_scorer(world / "prm"), load_tokenizer(folder)
    prompts = {problem.id: problem.prompt for problem in PROBLEMS}
    methods, statuses = summary_of(out)["methods"], set[str]()
    for name in ("best-of-n", "beam", "rejection"):
        rows = list(read_jsonl(out / f"{name}.jsonl", dict))
        found = [(row["problem_id"], candidate) for row in rows for candidate in row["candidates"]]
        assert len(found) > len(PROBLEMS)
        assert all(row["spent"] <= 160 for row in rows)
        for problem, candidate in found:
            response = candidate["response"]
            ids = response["token_ids"]
            assert response["finished"]
            assert ids[-1] == own.eos_token_id
            assert own.decode(ids, skip_special_tokens=True) == response["text"]
            neutral = [line.neutral for line in code_lines(response["text"])]
            if not all(neutral):  # the PRM reads the text of the policy's tokens, cut its own way
                scores = scorer.score_lines(prompts[problem], response["text"])
                assert candidate["scores"] == pytest.approx(aggregates(scores, neutral, RECORD), abs=1e-4)
        assert methods[name]["curve"][-1]["value"] == pytest.approx(np.mean([passed_by_min(row) for row in rows]))
        statuses |= {candidate["response"]["verdict"]["status"] for _, candidate in found}
    assert "PASSED" in statuses


def passed_by_min(row: dict[str, Any]) -> float:
    """Share of passing programs among those with the highest least score: a tie is broken at random."""
    scores = [-np.inf if c["scores"]["min"] is None else c["scores"]["min"] for c in row["candidates"]]
    tied = [c for c, score in zip(row["candidates"], scores, strict=True) if score == max(scores)]
    return float(np.mean([c["response"]["verdict"]["status"] == "PASSED" for c in tied])) if tied else 0.0


FENCED = "Sure! Here it is:\n```python\ndef solve(x):\n    # add\n    return x + {0}\n```\n"
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


def chatty_policy(world: Path, tmp_path: Path) -> Path:
    """The world's policy, with a tokenizer that has a chat template."""
    folder = tmp_path / "chatty"
    shutil.copytree(world / "policy" / "model", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_that_talks_around_its_code_is_searched_line_by_line(world: Path, tmp_path: Path) -> None:
    folder = chatty_policy(world, tmp_path)
    tokenizer = load_tokenizer(folder)
    models = search_module.open_models(str(folder), world / "prm", template="chat", batch_size=8, device="cpu")
    prompt = models.prompt_ids(PROBLEMS[2])
    assert models.fences
    assert tokenizer.decode(prompt) == f"<user>{chat_prompt(PROBLEMS[2])}\n<assistant>"
    answer = [*tokenizer(FENCED.format(2) + "It adds.")["input_ids"], tokenizer.eos_token_id]
    block = len(tokenizer(FENCED.format(2))["input_ids"])

    class Script:
        model, stop_ids = models.sampler.model, models.sampler.stop_ids

        def sample(self, prefixes, *, max_new_tokens, **_):
            drawn = []
            for prefix, limit in zip(prefixes, max_new_tokens, strict=True):
                rest = answer[len(prefix) - len(prompt) :][:limit]
                stop = next((n for n, token in enumerate(rest) if token in self.stop_ids), len(rest) - 1)
                ids = tuple(rest[: stop + 1])
                done = ids[-1] in self.stop_ids
                drawn.append(Completion(token_ids=ids, logprobs=(-1.0,) * len(ids), finished=done))
            return drawn

    settings = search_module.SearchSettings(budget=2 * len(answer), max_new_tokens=len(answer), width=1, expansions=1)
    scripted = dataclasses.replace(models, sampler=Script())
    limits = {"timeout": 2.0, "memory_mb": 256, "workers": 1}
    search_module.run_search(PROBLEMS[2:3], scripted, settings, tmp_path / "out", limits=limits, resamples=5)
    scores = open_scorer(world / "prm").score_lines(PROBLEMS[2].prompt, FENCED.format(2))
    expected = aggregates(scores, [False, True, False], RECORD)
    for name in ("best-of-n", "beam", "rejection"):
        (row,) = read_jsonl(tmp_path / "out" / f"{name}.jsonl", dict)
        first = row["candidates"][0]
        assert first["response"]["text"] == FENCED.format(2)
        assert first["response"]["verdict"]["status"] == "PASSED"
        assert first["response"]["finished"]  # with its fence: nothing is cut off
        assert first["tokens"] == block
        assert first["scores"] == pytest.approx(expected, abs=1e-4)


def test_only_chats_wait_for_a_fence(world: Path, tmp_path: Path) -> None:
    folder = chatty_policy(world, tmp_path)
    templates = {None: False, "# {prompt}\n": False, "completion": False, "<user>Do {prompt}\n<assistant>": True}
    for template, fences in templates.items():
        models = search_module.open_models(str(folder), world / "prm", template=template, batch_size=8, device="cpu")
        assert models.fences is fences


def test_benchmarks_are_searched_and_reranked_by_name(world: Path, tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    write_jsonl(tmp_path / "HumanEval.jsonl", [row, row | {"task_id": "HumanEval/1"}])
    benchmark = ["--problems", "humaneval", "--data", str(tmp_path / "HumanEval.jsonl"), "--limit", "1"]
    search(world, tmp_path / "out", "--method", "beam", "--template", "completion", *benchmark)
    assert [r["problem_id"] for r in read_jsonl(tmp_path / "out" / "beam.jsonl", dict)] == ["HumanEval/0"]
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (job["timeout"], job["test_timeout"], job["memory_mb"]) == (10.0, 5.0, 512)  # HumanEval's own
    search(world, tmp_path / "opchain", "--problems", "opchain", "--operations", "1", "--limit", "1", "--split", "test")
    job = json.loads((tmp_path / "opchain" / "job.json").read_text())
    assert (job["timeout"], job["memory_mb"]) == (0.5, 96)
    for command_of in (search, rerank):
        with pytest.raises(UserError, match="nothing: unknown benchmark; known: humaneval"):
            command_of(world, tmp_path / "none", "--problems", "nothing")
    with pytest.raises(UserError, match="these samples are of other problems than humaneval"):
        rerank(world, tmp_path / "samples", *benchmark)


def test_a_search_of_a_version_that_read_otherwise_is_refused(searched: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(searched, out)
    job = json.loads((out / "job.json").read_text())
    del job["reading"]
    (out / "job.json").write_text(json.dumps(job))
    with pytest.raises(UserError, match=r"job.json: holds another job \(reading differ\); delete"):
        search(world, out)


def test_search_refuses_what_cannot_work(world: Path, tmp_path: Path) -> None:
    for match, more in (
        ("--method guess: write beam or rejection", ["--method", "guess"]),
        ("less than one token for each of the 8 x 8", ["--width", "8", "--expansions", "8"]),
        ("--temperature above 0", ["--temperature", "0"]),
        ("no such folder; search takes FOLDER", ["--policy", "openai:http://nowhere#m"]),
        ("an ORM, which was never taught to read prefixes", ["--prm", str(world / "orm")]),
        (r"lacks \{prompt\}", ["--template", "do it"]),
    ):
        with pytest.raises(UserError, match=match):
            search(world, tmp_path / "out", *more)


def test_aggregates_by_hand() -> None:
    scores, neutral = [0.5, -1.0, 0.0, 1.0], [False, True, False, False]
    found = aggregates(scores, neutral, RECORD)
    assert found == pytest.approx({"last": 1.0, "mean": 0.5, "min": 0.0, "product": np.log(0.75 * 0.5 * 1.0)})
    # A progress PRM's margins are T max(0, R) + 1/2 - m: with T = 2 and max R = 0.75 they are 1 and 0.
    progress = aggregates([1.0, 0.0], [False, False], dataclasses.replace(RECORD, target="progress"))
    assert progress["last"] == pytest.approx(0.75)
    assert all(np.isnan(value) for value in aggregates([0.5], [True], RECORD).values())
