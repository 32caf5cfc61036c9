"""`psgpo rerank search` end to end, on the embedded model."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rerank_world import PROBLEMS, RECORD, command, search, summary_of

from psgpo.errors import UserError
from psgpo.jsonl import read_jsonl
from psgpo.lines import TokenText, code_lines
from psgpo.models import load_policy, load_tokenizer
from psgpo.prm import open_scorer
from psgpo.prm.programs import Encoder, PromptShape
from psgpo.records import Response
from psgpo.rerank import search as search_module
from psgpo.rerank.drive import Driver, Player, stops_at_lines
from psgpo.rerank.render import render_search
from psgpo.rerank.scores import aggregates, open_readers, prm_columns
from psgpo.rerank.strategies import Attempt, Row, beam
from psgpo.sampling import open_sampler
from psgpo.seeds import derive_seed


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


def test_a_search_of_a_version_that_read_otherwise_is_refused(searched: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(searched, out)
    job = json.loads((out / "job.json").read_text())
    del job["reading"]
    (out / "job.json").write_text(json.dumps(job))
    with pytest.raises(UserError, match=r"job.json: holds another job \(reading differ\); delete"):
        search(world, out)


def test_what_is_too_long_for_the_prm_has_no_score_and_ends_no_search(
    searched: Path, world: Path, tmp_path: Path
) -> None:
    prm, out = tmp_path / "prm", tmp_path / "out"
    shutil.copytree(world / "prm", prm)
    prompts = {problem.id: problem.prompt for problem in PROBLEMS}
    encoder = Encoder(load_tokenizer(prm), PromptShape(template=RECORD.prompt_template))
    whole = [
        (encoder.tokens(prompts[row["problem_id"]], candidate["response"]["text"]), candidate["scores"])
        for row in read_jsonl(searched / "best-of-n.jsonl", dict)
        for candidate in row["candidates"]
    ]
    context = sorted(tokens for tokens, _ in whole)[len(whole) // 2]
    long = sum(tokens > context for tokens, _ in whole)
    assert 0 < long < len(whole)
    config = json.loads((prm / "config.json").read_text())
    (prm / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    printed = search(world, out, "--prm", str(prm))
    rows = list(read_jsonl(out / "best-of-n.jsonl", dict))
    scores = [candidate["scores"] for row in rows for candidate in row["candidates"]]
    for (tokens, wanted), found in zip(whole, scores, strict=True):
        assert set(found.values()) == {None} if tokens > context else found == pytest.approx(wanted, abs=1e-4)
    unread = summary_of(out)["data"]["unread"]
    assert unread["best-of-n"] == {"programs": long, "prefixes": 0}
    assert all(unread[name]["prefixes"] > 0 for name in ("beam", "rejection"))
    assert f"best-of-n: {long} finished programs and 0 prefixes were too long for the PRM" in printed
    assert "too long" not in (searched / "printed.txt").read_text()
    # What was not read is chosen where there is nothing else.
    worth = []
    for row in rows:
        read = [c for c in row["candidates"] if c["scores"]["min"] is not None]
        chosen = [max(read, key=lambda c: c["scores"]["min"])] if read else row["candidates"]
        worth.append(np.mean([c["response"]["verdict"]["status"] == "PASSED" for c in chosen]) if chosen else 0.0)
    assert summary_of(out)["methods"]["best-of-n"]["curve"][-1]["value"] == pytest.approx(np.mean(worth))
    assert search(world, out, "--prm", str(prm)) == printed


def test_a_copy_of_the_models_goes_on_with_a_search(searched: Path, world: Path, tmp_path: Path) -> None:
    out, prm = tmp_path / "out", tmp_path / "prm"
    shutil.copytree(searched, out)
    shutil.copytree(world / "prm", prm, copy_function=shutil.copyfile)
    assert search(world, out, "--prm", str(prm)).replace(str(out), str(searched)) == (
        (searched / "printed.txt").read_text()
    )
    job = json.loads((out / "job.json").read_text())
    (out / "job.json").write_text(json.dumps(job | {"prm": "0123456789abcdef"}))
    with pytest.raises(UserError, match=r"\(prm differ\); an older psgpo wrote it"):
        search(world, out, "--prm", str(prm))


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
