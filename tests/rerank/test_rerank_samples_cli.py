"""`psgpo rerank samples` end to end."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rerank_world import RECORD, command, rerank, summary_of
from typer.testing import CliRunner

from psgpo.cli.rerank import app
from psgpo.errors import UserError
from psgpo.evaluation import mean_pass_at_k
from psgpo.evaluation.summary import read_results
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.rerank.scores import aggregates, open_readers


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
    mine, orm = methods["mine-min"], methods["orm"]
    assert set(mine["minus"]) == {"random", "likelihood-mean", "majority", "orm"}
    apart = mine["curve"][-1]["value"] - orm["curve"][-1]["value"]
    assert mine["minus"]["orm"]["value"] == pytest.approx(apart)
    assert "minus orm" in printed
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


def test_aggregates_by_hand() -> None:
    scores, neutral = [0.5, -1.0, 0.0, 1.0], [False, True, False, False]
    found = aggregates(scores, neutral, RECORD)
    assert found == pytest.approx({"last": 1.0, "mean": 0.5, "min": 0.0, "product": np.log(0.75 * 0.5 * 1.0)})
    # A progress PRM's margins are T max(0, R) + 1/2 - m: with T = 2 and max R = 0.75 they are 1 and 0.
    progress = aggregates([1.0, 0.0], [False, False], dataclasses.replace(RECORD, target="progress"))
    assert progress["last"] == pytest.approx(0.75)
    assert all(np.isnan(value) for value in aggregates([0.5], [True], RECORD).values())
