"""`psgpo prm train` end to end, every kind, and what reads its folders: `psgpo prm eval` and `psgpo firsterror run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prm_text_world import mutants, save_mutants, save_roberta
from prm_world import COMMENT, SETTINGS, random_labels, save_policy
from typer.testing import CliRunner

from psgpo.cli.firsterror import app as firsterror
from psgpo.cli.prm import app
from psgpo.errors import UserError
from psgpo.firsterror.items import Item, candidate_lines
from psgpo.jsonl import read_jsonl, write_jsonl
from psgpo.models import TokenValueModel, train_tokenizer
from psgpo.prm import ScorerRecord, build, open_scorer
from psgpo.prm.data import is_held_out
from psgpo.prm.texts import load_text_programs, text_examples
from psgpo.problems import save_problems_jsonl
from psgpo.records import Call, CallTests, Problem

SMALL = ["--epochs=5", "--patience=0", "--batch-size=8", "--learning-rate=3e-3", "--holdout=0.3", "--choosing=0.2"]
PROBLEM, GOOD_CODE, BAD_CODE = "add 1 and return", "def solve(x):\n    x = x + 1", "def solve(x):\n    x = boom"


def train(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as refusal:
        train(*arguments)
    return str(refusal.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return save_mutants(tmp_path_factory.mktemp("mutants"), problems=100)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory) -> Path:
    return save_roberta(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def folders(data, roberta, policy_dir, tmp_path_factory) -> dict[str, Path]:
    """One training of each kind."""
    out = tmp_path_factory.mktemp("trained")
    encoder = ("--kind", "encoder", "--init", roberta)
    kinds = {
        "ngrams": ("--kind", "ngrams", "--holdout", "0.3", "--choosing", "0.2"),
        "encoder": (*encoder, *SMALL, "--epochs", "7"),
        "causal": ("--init", policy_dir, *SMALL),
        "orm": ("--scope", "program", "--init", policy_dir, *SMALL),
        "encoder-orm": (*encoder, "--scope", "program", *SMALL, "--epochs", "16", "--calibration", "none"),
    }
    for name, options in kinds.items():
        (out / f"{name}.txt").write_text(train(data, "--out", out / name, *options))
    return {name: out / name for name in kinds}


@pytest.mark.parametrize("name", ["ngrams", "encoder", "causal", "orm", "encoder-orm"])
def test_every_kind_trains_calibrates_measures_and_scores(folders, name):
    out = folders[name]
    measured = json.loads((out / "measure.json").read_text())
    record = json.loads((out / "model" / "psgpo_prm.json").read_text())
    printed = out.with_name(f"{name}.txt").read_text()
    orm = "orm" in name
    assert (
        f"{measured['problems']} problems, {measured['lines']['lines']} {'programs' if orm else 'labelled'}" in printed
    )
    assert all(word in printed for word in ("majority", "AUROC", "ECE", str(out / "model")))
    assert measured["lines"]["auroc"] > 0.9
    assert record["scope"] == ("program" if orm else "line")
    assert (record["calibration"] is None) == (name == "encoder-orm") == (measured["calibration"]["fitted"] is None)
    assert not (out / "state.pt").exists()
    assert list(read_jsonl(out / "metrics.jsonl", dict))
    assert "#" in (out / "model" / "README.md").read_text()
    scorer = open_scorer(out / "model")
    if orm:
        assert scorer.score_program(PROBLEM, GOOD_CODE) > scorer.score_program(PROBLEM, BAD_CODE)
    good, bad = scorer.score_lines(PROBLEM, GOOD_CODE)[-1], scorer.score_lines(PROBLEM, BAD_CODE)[-1]
    assert good > scorer.threshold > bad
    assert scorer.probabilities(PROBLEM, GOOD_CODE)[-1] > 0.5 > scorer.probabilities(PROBLEM, BAD_CODE)[-1]
    assert scorer.score_prefixes([(PROBLEM, GOOD_CODE)])[0] == pytest.approx(float(good), abs=1e-5)
    assert scorer.score_lines(PROBLEM, "").shape == (0,)


def test_a_causal_prm_is_a_portable_value_model(folders):
    model = TokenValueModel.from_pretrained(folders["causal"] / "model")
    assert model.classifier.config.num_labels == 1
    assert model.head.bias is None or not model.head.bias.any()


def test_again_trains_nothing_and_another_calibration_costs_no_training(data, tmp_path, monkeypatch):
    out = tmp_path / "ngrams"
    options = (data, "--kind", "ngrams", "--holdout", "0.3", "--out", out)
    first = train(*options)
    weights = (out / "model" / "weights.npy").read_bytes()
    monkeypatch.setattr(build, "_train", None)
    assert train(*options) == first
    assert "with isotonic" in train(*options, "--calibration", "isotonic")
    assert open_scorer(out / "model").record.calibration["method"] == "isotonic"
    assert " with " not in train(*options, "--calibration", "none")
    assert open_scorer(out / "model").record.calibration is None
    assert (out / "model" / "weights.npy").read_bytes() == weights
    assert "epochs, seed differ" in refused(*options, "--epochs", "3", "--seed", "1")
    other = save_mutants(tmp_path / "other", problems=61)
    assert "data differ" in refused(other, *options[1:])
    monkeypatch.undo()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "job.json").write_text("{}")  # where nothing was made yet, nobody is bound
    train(data, "--kind", "ngrams", "--out", tmp_path / "half")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("name", ["causal", "encoder"])
def test_a_stopped_training_ends_as_one_that_was_not(folders, data, roberta, policy_dir, tmp_path, name, monkeypatch):
    init = {"causal": policy_dir, "encoder": roberta}[name]
    epochs = {"causal": 5, "encoder": 7}[name]
    options = (data, "--kind", name, "--init", init, *SMALL, "--epochs", epochs, "--out", tmp_path)

    def stop_at(step):
        def drawn(display):
            def progress(what, done, total):
                if (what, done) == ("training", step):
                    raise KilledError

            return progress

        return drawn

    total = json.loads((folders[name] / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    monkeypatch.setattr("psgpo.cli.prm.drawn_on", stop_at(total // 2))
    with pytest.raises(KilledError):
        train(*options)
    assert (tmp_path / "state.pt").is_file()
    monkeypatch.undo()
    assert train(*options).replace(str(tmp_path), "") == folders[name].with_name(f"{name}.txt").read_text().replace(
        str(folders[name]), ""
    )
    assert (tmp_path / "measure.json").read_bytes() == (folders[name] / "measure.json").read_bytes()
    weights = [folder / "model" / "model.safetensors" for folder in (tmp_path, folders[name])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def save_labels(folder: Path, tokenizer, problems: int = 40) -> Path:
    """As `psgpo labels make` leaves them."""
    write_jsonl(folder / "labels.jsonl", (label.to_json() for label in random_labels(tokenizer, 2 * problems)))
    tests = CallTests(function="solve", calls=(Call(args=(1,), expected=1),))
    made = [Problem(id=f"p{n}", prompt="task", tests=tests) for n in range(problems)]
    save_problems_jsonl(folder / "problems.jsonl", made)
    return folder


def test_labels_of_a_policy_train_its_own_prm(policy_dir, tokenizer, tmp_path):
    data = save_labels(tmp_path / "labels", tokenizer)
    out = tmp_path / "prm"
    train(data, "--init", policy_dir, *SMALL, "--out", out)
    scorer = open_scorer(out / "model")
    assert scorer.record.prompt_template == "# {prompt}\n"  # as the responses were sampled
    label = random_labels(tokenizer, 2)[1]
    ids = [(label.response.prompt_ids, label.response.token_ids, label.line_ends)]
    assert scorer.score_lines("task", label.response.text) == pytest.approx(scorer.scorer.score(ids)[0], abs=1e-5)
    # An n-gram model needs the text alone; the file by its name will do.
    train(data / "labels.jsonl", "--kind", "ngrams", "--out", tmp_path / "ngrams", "--holdout", "0.3")
    # Both files together, the mutants' problems being others.
    train(data, save_mutants(tmp_path / "mutants"), "--kind", "ngrams", "--out", tmp_path / "both")
    both = json.loads((tmp_path / "both" / "measure.json").read_text())
    assert (
        both["examples"]["train"] > json.loads((tmp_path / "ngrams" / "measure.json").read_text())["examples"]["train"]
    )


def test_labels_that_do_not_fit_are_refused(policy_dir, tokenizer, tmp_path):
    data = save_labels(tmp_path / "labels", tokenizer)
    from psgpo.models import create_policy

    other = train_tokenizer(["other words entirely", "x = 1"] * 4, 280)
    create_policy(
        other, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    ).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    options = ("--init", tmp_path / "other", "--out", tmp_path / "out", "--template", "# {prompt}\n")
    assert "with this tokenizer" in refused(data, *options)
    # Prompts that are no layout of the problems' texts.
    tests = CallTests(function="solve", calls=(Call(args=(1,), expected=1),))
    strange = tmp_path / "strange.jsonl"
    save_problems_jsonl(strange, [Problem(id=f"p{n}", prompt="something", tests=tests) for n in range(40)])
    given = (data, "--init", policy_dir, "--out", tmp_path / "out", "--problems", strange)
    assert "say with --template" in refused(*given)
    save_problems_jsonl(strange, [Problem(id="elsewhere", prompt="task", tests=tests)])
    assert "in none of the problem files" in refused(*given)
    assert "in none of the problem files" in refused(*given, "--template", "{prompt}")
    (data / "problems.jsonl").unlink()
    assert "give them with --problems" in refused(data, "--init", policy_dir, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "magic"), "--kind 'magic': allowed are causal, encoder, ngrams"),
        (("--scope", "word"), "--scope 'word': allowed are line, program"),
        (("--calibration", "platt"), "--calibration 'platt': allowed are temperature, isotonic, none"),
        (("--kind", "causal"), "--kind causal needs a model to start from: --init"),
        (("--kind", "encoder"), "--kind encoder needs a model to start from: --init"),
        (("--kind", "ngrams", "--init", "x"), "--kind ngrams starts from nothing; leave --init out"),
        (("--init", "x", "--max-tokens", "9"), "--max-tokens is for encoders"),
        (("--kind", "ngrams", "--max-prompt-tokens", "9"), "an n-gram model has no tokens"),
        (("--kind", "ngrams", "--template", "{prompt}"), "--template: an n-gram model"),
        (("--init", "/nowhere", "--template", "none"), "--template 'none' lacks {prompt}"),
        (("--kind", "ngrams", "--class-weights", "odd"), "--class-weights 'odd'"),
        (("--kind", "ngrams", "--learning-rate", "0"), "--learning-rate 0.0"),
        (("--kind", "ngrams", "--device", "cuda"), "--device: an n-gram model"),
        (("--kind", "ngrams", "--holdout", "0.6", "--choosing", "0.4"), "leave no problem to train on"),
        (("--kind", "ngrams", "--holdout", "0.01", "--choosing", "0.01"), "change --holdout and --choosing"),
        (("--kind", "ngrams", "--problems", "p.jsonl"), "programs.jsonl brings its problems along"),
        (("--init", "/nowhere"), "no model folder"),
        (("--kind", "encoder", "--init", "/nowhere"), "no model folder"),
    ],
)
def test_options_that_cannot_be_are_refused(data, tmp_path, options, message):
    assert message in refused(data, "--out", tmp_path / "out", *options)


def test_models_and_files_that_cannot_be_used_are_refused(data, roberta, policy_dir, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no such file" in refused(tmp_path / "none.jsonl", "--kind", "ngrams", *out)
    (tmp_path / "empty").mkdir()
    assert "holds no programs.jsonl or labels.jsonl" in refused(tmp_path / "empty", "--kind", "ngrams", *out)
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n')
    assert "neither labels.jsonl" in refused(tmp_path / "odd.jsonl", "--kind", "ngrams", *out)
    for name in ("programs.jsonl", "labels.jsonl"):
        (tmp_path / "empty" / name).write_text("")
    assert "name the one" in refused(tmp_path / "empty", "--kind", "ngrams", *out)
    assert "RobertaModel is no causal language model" in refused(data, "--init", roberta, *out)
    assert "no encoder; use --kind causal" in refused(data, "--kind", "encoder", "--init", policy_dir, *out)
    assert "no model folder (config.json)" in refused(data, "--init", tmp_path / "empty", *out)
    encoder = ("--kind", "encoder", "--init", roberta)
    assert "the encoder's context holds 128" in refused(data, *encoder, "--max-tokens", "129", *out)
    assert "fewer than 16 for the prefix" in refused(data, *encoder, "--max-tokens", "24", *out)
    few = save_mutants(tmp_path / "few", problems=12)
    assert "use --calibration none" in refused(few, "--kind", "ngrams", "--scope", "program", "--choosing", "0.3", *out)
    wrong = [p.to_json() for p in mutants(60) if p.verdict == "pass"]
    write_jsonl(tmp_path / "right.jsonl", wrong)
    assert "0 bad examples; a PRM needs both" in refused(tmp_path / "right.jsonl", "--kind", "ngrams", *out)
    torn = [mutants(1)[0].to_json() | {"code": "x = 1\ny = 2"}]
    write_jsonl(tmp_path / "torn.jsonl", torn)
    assert "torn.jsonl:1: program p0#reference: its labels and lines" in refused(
        tmp_path / "torn.jsonl", "--kind", "ngrams", *out
    )
    long = [p.to_json() | {"code": p.code.rstrip() + "\n" + COMMENT * 2000} for p in mutants(60)]
    long = [row | {"lines": [*row["lines"], COMMENT * 2000], "labels": [*row["labels"], 1]} for row in long]
    write_jsonl(tmp_path / "long.jsonl", long)
    assert "model's context holds 1024" in refused(tmp_path / "long.jsonl", "--init", policy_dir, *out)


@pytest.mark.parametrize(("scope", "part"), [("line", "measured"), ("line", "choosing"), ("program", "measured")])
def test_a_program_that_can_be_trained_on_but_not_scored_is_refused_before_training(policy_dir, tmp_path, scope, part):
    """Training reads no further than the last label; what calibrates and measures is read to its end."""
    rows = [p.to_json() for p in mutants(60)]
    measured = [is_held_out(row["problem_id"], 0.3) for row in rows]
    chosen = [is_held_out(row["problem_id"], 0.5) and not of for row, of in zip(rows, measured, strict=True)]
    long = rows[(measured if part == "measured" else chosen).index(True)]
    tail = COMMENT * 2000
    long |= {
        "code": f"{long['code'].rstrip()}\n{tail}",
        "lines": [*long["lines"], tail],
        "labels": [*long["labels"], 0],
    }
    write_jsonl(tmp_path / "programs.jsonl", rows)
    options = ("--init", policy_dir, *SMALL, "--scope", scope, "--out", tmp_path / "out")
    assert "model's context holds 1024" in refused(tmp_path / "programs.jsonl", *options)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_prm_eval_and_firsterror_read_every_kind(folders, data, tmp_path):
    for name in ("ngrams", "encoder", "causal"):
        out = tmp_path / name
        orm = folders["encoder-orm" if name == "encoder" else "orm"] / "model"
        command = ["eval", data, "--prm", folders[name] / "model", "--orm", orm, "--held-out", "0.3", "--out", out]
        command += ["--probes", "4", "--resamples", "5"]
        done = CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False)
        assert done.exit_code == 0
        scorers = json.loads((out / "summary.json").read_text())["scorers"]
        assert list(scorers) == ["prm", "orm", "position", "majority"]
        # The lines of `measure.json`, counted and scored in another way.
        measured = json.loads((folders[name] / "measure.json").read_text())["lines"]
        found = scorers["prm"]["own"]["lines"]
        assert found["lines"] == measured["lines"]
        assert found["auroc"] == pytest.approx(measured["auroc"], abs=0.02)
    items = [
        Item(
            id=p.id,
            problem_id=p.problem_id,
            prompt=p.prompt,
            code=p.code,
            first_error=p.mutated_line,
            candidates=candidate_lines(p.code),
            source="mutant",
            kind=p.kind,
        )
        for p in mutants(20, seed=5)
    ]
    write_jsonl(tmp_path / "items.jsonl", [item.to_json() for item in items])
    for name in ("ngrams", "encoder", "causal"):
        out = tmp_path / f"{name}-first"
        command = ["run", str(tmp_path / "items.jsonl"), "--prm", str(folders[name] / "model"), "--out", str(out)]
        assert CliRunner().invoke(firsterror, command, catch_exceptions=False).exit_code == 0
        assert json.loads((out / "summary.json").read_text())["all"]["f1"] > 0.8


def test_each_prefix_of_mutants_is_trained_on_once(data, policy_dir, tmp_path):
    record = ScorerRecord(kind="causal", scope="line", target="sign", prompt_template="{prompt}\n", threshold=0.0)
    job = build.PrmJob(data=(data,), out=tmp_path, record=record, settings=SETTINGS, init=policy_dir)
    examples = build.causal_examples(job)
    texts = text_examples(load_text_programs(data), "line")
    assert sum(sum(example.weights) for example in examples) == len(texts)
    assert sum(target * weight for e in examples for target, weight in zip(e.targets, e.weights, strict=True)) == sum(
        2 * e.target - 1 for e in texts
    )


def test_a_large_causal_prm_learns_adapters_in_bfloat16_and_is_saved_whole(data, policy_dir, tmp_path):
    pytest.importorskip("peft", reason="pip install 'psgpo[lora]'")
    large = ("--microbatch-tokens", 64, "--dtype", "bfloat16", "--lora-rank", 4, "--epochs", 1)
    train(data, "--out", tmp_path / "prm", "--init", policy_dir, *SMALL, *large)
    start, trained = (TokenValueModel.from_policy(policy_dir), TokenValueModel.from_pretrained(tmp_path / "prm/model"))
    assert trained.state_dict().keys() == start.state_dict().keys()
    moved = {name for name, value in trained.state_dict().items() if not value.equal(start.state_dict()[name])}
    assert any("layers" in name for name in moved)  # where adapters were merged
    assert not any("embed" in name or "norm" in name for name in moved)
    assert json.loads((tmp_path / "prm" / "job.json").read_text())["compute"]["dtype"] == "bfloat16"


def test_a_prm_of_the_first_layers_of_a_model(data, tmp_path):
    save_policy(tmp_path / "policy", layers=2)
    train(data, "--out", tmp_path / "prm", "--init", tmp_path / "policy", *SMALL, "--epochs", 1, "--layers", 1)
    model = TokenValueModel.from_pretrained(tmp_path / "prm" / "model")
    assert model.classifier.config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "ngrams", "--dtype", "bfloat16"), "--dtype: for --kind causal; kind ngrams"),
        (("--kind", "ngrams", "--microbatch-tokens", 5), "--microbatch-tokens is for --kind causal"),
        (("--kind", "ngrams", "--layers", 1), "--layers is for --kind causal"),
        (("--layers", 9), "layers = 9: the model to start from has 1; give no more"),
        (("--dtype", "half"), "--dtype 'half': write float32 or bfloat16"),
    ],
)
def test_how_a_model_computes_is_checked(data, policy_dir, tmp_path, options, message):
    init = () if "ngrams" in options else ("--init", policy_dir)
    assert message in refused(data, "--out", tmp_path / "prm", *init, *options)
