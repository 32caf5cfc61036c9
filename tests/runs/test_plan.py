"""`psgpo plan`: counts by hand, what fits, what to change, and that config.json is all it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from psgpo.cli.main import app
from psgpo.config import ModelSettings, Recipe, load_recipe, parse_recipe
from psgpo.errors import UserError
from psgpo.records import AssertTests, Problem
from psgpo.runs import dry
from psgpo.runs.plan import Wanted, make_plan, render
from psgpo.runs.plan.devices import GIB, room
from psgpo.runs.plan.make import model_config, planner_of, refuse_small_device
from psgpo.runs.plan.mutants import described, programs, references
from psgpo.runs.plan.network import Network
from psgpo.runs.plan.share import gathered
from psgpo.runs.plan.work import Assumed, label_completions, stages_work

ROOT = Path(__file__).parents[2]
ASSUMED = Assumed(
    prompt_tokens=100,
    response_tokens=160,
    line_tokens=10,
    pass_rate=0.25,
    problems={"train": 10, "label": 6, "test": 4},
)


def recipe(**tables: dict[str, Any]) -> Recipe:
    table = {
        "name": "p",
        "out": "runs/p",
        "problems": {"kind": "opchain"},
        "sft": {"examples": 50, "epochs": 2},
        "sampling": {"max_new_tokens": 128, "batch_size": 32},
        "rl": {"steps": 5, "prompts_per_step": 8, "checkpoints": 2, "value_fit_responses": 20},
        "labels": {"responses_per_problem": 3, "holdout": 0.25},
        "prm": {"sign": {"target": "sign", "epochs": 4}},
        "arms": {"baseline": {}, "both": {"line_reward": "sum", "prm": "sign", "value_init": "sign"}},
        "evaluation": {"samples": 3, "greedy": True},
    }
    for name, values in tables.items():
        table[name] = {**table[name], **values} if isinstance(table.get(name), dict) else values
    return parse_recipe(table, origin="r")


def llama(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8}
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 2000,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(values | sizes | changes))
    return folder


def test_label_completions_by_hand() -> None:
    # T = 16 lines: log2 16 + 1 = 5 probes of 20; half accepted after half: 3/4.
    assert label_completions(recipe(), ASSUMED) == (100, 75)
    assert label_completions(recipe(labels={"strategy": "linear-scan"}), ASSUMED) == (320, 240)
    assert label_completions(recipe(labels={"strategy": "soft"}), ASSUMED) == (320, 320)
    assert label_completions(recipe(labels={"strategy": "noisy", "budget": 9}), ASSUMED) == (9, 9)


def test_work_by_hand() -> None:
    work = {stage.stage: stage for stage in stages_work(recipe(), ASSUMED)}
    assert set(work) == {
        "sft", "rl-baseline", "rl-both", "labels", "prm-sign", "evaluate-sft", "evaluate-baseline", "evaluate-both",
    }  # fmt: skip
    assert work["sft"].trained == 50 * 2 * 260
    assert work["rl-baseline"].generated == 5 * 8 * 160
    assert work["rl-both"].judged == 5 * 8 + 20  # ValueInit's fit draws too
    assert work["rl-baseline"].generations == 5 * 160  # 8 rows at once
    responses = 6 * 3 * 2
    failed = 27
    assert work["labels"].judged == responses + failed * 75
    assert work["labels"].generated == responses * 160 + failed * 75 * 80
    assert work["prm-sign"].trained == 27 * 4 * 260
    assert work["evaluate-sft"].judged == 4 * 4
    # Per token: reference, old values; policy and critic forward and backward.
    assert work["rl-baseline"].passes == 5 * 8 * 260 * (2 + 2 * 3)
    assert work["rl-both"].passes == (5 * 8 + 20) * 260 * 3 + 5 * 8 * 260 * 6


def test_twins_are_run_and_learned_from() -> None:
    by_splicing = {"labels": {"strategy": "splice", "references": True, "responses_per_problem": 3, "holdout": 0.25}}
    plain = {one.stage: one for one in stages_work(recipe(**by_splicing), ASSUMED)}
    twins = {"prm": {"sign": {"target": "sign", "epochs": 4, "twins": True}}}
    work = {one.stage: one for one in stages_work(recipe(**by_splicing, **twins), ASSUMED)}
    assert "twins" not in plain
    assert work["twins"].judged == 2 * round(0.75 * 6 * 3 * 2)
    assert work["twins"].generated == 0
    assert work["prm-sign"].trained == pytest.approx(2.4 * plain["prm-sign"].trained, rel=0.02)


def test_a_smaller_prm_is_planned_smaller() -> None:
    prm = {"sign": {"target": "sign"}, "small": {"target": "sign", "layers": 1}}
    planner = planner_of(recipe(prm=prm), 100)
    whole, small = (planner.reader(name) for name in ("sign", "small"))
    assert whole is not None
    assert small is not None
    assert small.parameters < whole.parameters


def test_what_is_frozen_is_planned_in_bfloat16() -> None:
    whole, half = (
        {stage.stage: stage.parts for stage in planner_of(recipe(model={"dtype": dtype}), 100).stages()}
        for dtype in ("float32", "bfloat16")
    )
    # A new model's, 64 wide: what mixes the two tokens before, and 3 layers of queries, one head of four for keys and
    # for values, an output, and 128 inside the MLP. Its head is its embedding, which stays.
    matrices = 2 * 64 * 64 + 3 * (64 * (64 + 2 * 16) + 64 * 64 + 3 * 64 * 128)
    assert whole["rl-both"]["reference"] - half["rl-both"]["reference"] == 2 * matrices
    assert whole["rl-both"]["PRM"] - half["rl-both"]["PRM"] == 2 * (matrices + 64 + 1)
    for part in ("policy", "critic", "Adam"):
        assert whole["rl-both"][part] == half["rl-both"][part]


def test_config_json_is_all_it_needs_and_weights_are_float32(tmp_path: Path) -> None:
    folder = llama(tmp_path / "m")
    made = make_plan(recipe(model={"path": str(folder)}, sft={"optimizer": "adamw"}), Wanted(device="rtx4090"))
    # Embeddings and head, 3 layers of four square and three wide matrices and two norms, the last norm.
    parameters = 2 * 2000 * 256 + 3 * (4 * 256**2 + 3 * 256 * 512 + 2 * 256) + 256
    assert made.parameters["policy"] == parameters
    by_stage = {stage.stage: stage.parts for stage in made.memory}
    assert by_stage["rl-baseline"]["policy"] == pytest.approx(4 * parameters, rel=1e-3)  # and the rotary buffer
    assert by_stage["rl-baseline"]["Adam"] == pytest.approx(2 * 4 * (parameters + parameters - 2000 * 256), rel=1e-3)
    assert "PRM" not in by_stage["rl-baseline"]
    assert by_stage["rl-both"]["PRM"] == by_stage["rl-both"]["critic"]
    said = render(made)
    assert f"{parameters:,} parameters" in said
    assert said.endswith("fits\n")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]


def test_adapters_have_no_reference_and_little_to_learn(tmp_path: Path) -> None:
    path = {"path": str(llama(tmp_path / "m"))}
    sft = {"optimizer": "adamw"}
    full = next(iter(planner_of(recipe(model=path, sft=sft), 50).stages()))
    lora = next(iter(planner_of(recipe(model=path | {"lora": {"rank": 4}}, sft=sft), 50).stages()))
    assert "reference" in full.parts
    assert "reference" not in lora.parts
    assert lora.parts["Adam"] < 0.1 * full.parts["Adam"]


def test_what_does_not_fit_is_said_with_settings_that_do(tmp_path: Path) -> None:
    big = recipe(
        model={"path": str(llama(tmp_path / "m"))},
        sft={"optimizer": "adamw", "batch_size": 64},
        sampling={"max_new_tokens": 1000},
        rl={"prompts_per_step": 64, "minibatches": 1},
    )
    wanted = Wanted(device="l4", memory_gb=2.5, prompt_tokens=100)
    made = make_plan(big, wanted)
    assert made.largest.peak > room(int(2.5 * GIB))
    assert made.remedy is not None
    said = render(made)
    assert "DOES NOT FIT: " in said
    assert made.remedy in said
    # What it says does it, and the last setting was needed.
    settings = dict(part.split(" = ") for part in made.remedy.removeprefix("set ").split(", "))
    tables: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        tables.setdefault(section, {})[name] = {"true": True, "{}": {}}.get(value, value)
    table = big.model_dump(mode="json")
    for section, values in tables.items():
        table[section] |= values
    if "microbatch_tokens" in tables.get("sft", {}):
        table["prm"]["sign"]["microbatch_tokens"] = tables["sft"]["microbatch_tokens"]
    assert make_plan(parse_recipe(table, origin="r"), wanted).remedy is None


def test_a_model_that_is_not_here_is_named_with_the_one_file_to_get(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hf download Qwen/Nothing-7B config\.json .*set model\.path"):
        make_plan(recipe(model={"path": "Qwen/Nothing-7B"}, sft={"optimizer": "adamw"}), Wanted())


def test_a_gpu_that_is_too_small_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(model={"path": str(llama(tmp_path / "m", num_hidden_layers=1))}, sft={"optimizer": "adamw"})
    largest = max(stage.peak for stage in planner_of(made, 1).stages())
    refuse_small_device(made, largest)
    with pytest.raises(UserError, match=r"^(sft|rl-both) needs .* GiB on a device of .* GiB; .*see psgpo plan\)$"):
        refuse_small_device(made, largest - 1)
    monkeypatch.setattr(dry, "_only_gpu", lambda: 1000)
    with pytest.raises(UserError, match=r"needs .* GiB on a device of 0\.0 GiB"):
        dry._fits(made, "cuda")
    dry._fits(made, "cpu")
    monkeypatch.setattr(dry, "_only_gpu", lambda: None)
    dry._fits(made, "cuda")


def test_an_unknown_device(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--device 'tpu': known are a100-40g, .*--memory"):
        make_plan(recipe(), Wanted(device="tpu"))


def t5(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 500}
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True} | sizes | changes))
    return folder


def roberta(folder: Path) -> Path:
    folder.mkdir()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    values = {"model_type": "roberta", "vocab_size": 400, "max_position_embeddings": 514, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(values | sizes))
    return folder


@pytest.mark.slow
def test_prlcoder_is_planned_whole(tmp_path: Path) -> None:
    """A T5, a smaller one as critic, encoders as PRM and ORM, mutants, 100 samples of two test sets."""
    encoder = roberta(tmp_path / "e")
    folders = {
        "model.path": t5(tmp_path / "m"),
        "critic.path": t5(tmp_path / "c", d_model=32),
        "prm.lines.init": encoder,
        "prm.program.init": encoder,
    }
    options = [f"--set={key}={path}" for key, path in folders.items()]
    path = ROOT / "recipes" / "prlcoder-mbpp.toml"
    done = CliRunner().invoke(app, ["plan", str(path), *options])
    assert done.exit_code == 0, done.output
    loaded = load_recipe(path, [option.removeprefix("--set=") for option in options])
    made = make_plan(loaded, Wanted())
    stages = [stage.stage for stage in made.memory]
    assert stages == ["rl-prm", "rl-baseline", "sft", "prm-lines", "evaluate"]
    work = {stage.stage: stage for stage in made.work}
    lines = 374 * 7
    assert work["mutants"].judged == lines * 7 + 374
    assert work["evaluate-orm"].judged == (100 + 1) * (500 + 164)  # and a greedy one
    # A bug gives one prefix of 7 lines, a rewrite four, the reference its own.
    pairs = lines * (1 + 4 + 3 * 4)
    assert work["prm-lines"].trained == round(pairs * 0.8 * 10 * (300 + 35))
    assert work["prm-program"].trained == (lines * 7 + 374) * 8 * (300 + 70)
    assert "2,618 lines of reference solutions (assumed" in done.output
    weights = {stage.stage: stage.parts for stage in made.memory}
    assert 0 < weights["rl-prm"]["critic"] < weights["rl-prm"]["policy"]
    # Where it pays, the matrices of its linear layers are kept in bfloat16.
    assert weights["prm-lines"]["PRM"] / 2 < weights["rl-prm"]["PRM"] < weights["prm-lines"]["PRM"]
    assert "PRM" not in weights["rl-baseline"]
    # A PRM that is not here is named; all else is planned.
    absent = CliRunner().invoke(app, ["plan", str(path), *options[:3], "--set=prm.program.init=No/Such"])
    assert absent.exit_code == 0, absent.output
    assert "prm.program is not planned: init = 'No/Such'" in absent.output
    assert "prm-lines" in absent.output
    assert "prm-program" not in absent.output


def test_an_encoders_attention_keeps_no_scores_on_a_gpu(tmp_path: Path) -> None:
    config = model_config(roberta(tmp_path / "e"), "prm.lines.init")
    gpu, cpu = (
        Network(config, "encoder", ModelSettings(), gpu=on).update_bytes([[(200, 200)] * 4]) for on in (True, False)
    )
    assert gpu < cpu - 4 * 2 * 400**2 * 4  # rows, heads, tokens, bytes


def test_lines_of_references_that_are_here_are_counted(tmp_path: Path) -> None:
    problems = tmp_path / "p.jsonl"
    text = "def f(a):\n    # doubles\n    b = a + a\n    return b\n"
    judged = AssertTests(entry_point="f", checks=("assert f(1) == 2",))
    rows = [Problem(id=str(n), prompt="p", tests=judged, reference_solution=text) for n in range(5)]
    problems.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    source = {"kind": "jsonl", "train": str(problems), "test": str(tmp_path / "absent.jsonl")}
    mutated = parse_recipe(
        recipe().model_dump(mode="json", exclude_none=True)
        | {"problems": source, "labels": {"source": "mutation"}, "mutation": {"bugs_per_line": 2}},
        origin="r",
    )
    made = references(mutated, 9)
    assert (made.problems, made.lines, made.known) == (5, 15, True)
    assert programs(mutated, made) == 15 * (2 + 3) + 5
    assert "15 lines of reference solutions (counted)" in described(mutated, made)


def test_processes_share_rows_or_everything(tmp_path: Path) -> None:
    path = {"path": str(llama(tmp_path / "m"))}
    plain = recipe(model=path, sft={"optimizer": "adamw"}, rl={"prompts_per_step": 8, "minibatches": 1})
    sharded = plain.model_copy(update={"parallel": plain.parallel.model_copy(update={"strategy": "fsdp"})})
    one, two, four = (
        {stage.stage: stage for stage in made.memory}
        for made in (
            make_plan(plain, Wanted()),
            make_plan(plain, Wanted(processes=2)),
            make_plan(sharded, Wanted(processes=4)),
        )
    )
    for key in ("policy", "critic", "reference", "Adam"):
        assert two["rl-baseline"].parts[key] == one["rl-baseline"].parts[key]
        assert four["rl-baseline"].parts[key] == pytest.approx(one["rl-baseline"].parts[key] / 4, abs=1)
    assert four["sft"].parts["optimizer"] == one["sft"].parts["optimizer"] / 4
    assert one["sft"].parts["update"] > two["sft"].parts["update"]
    assert two["labels"] == one["labels"] == four["labels"]  # dealt, not shared
    hours = [make_plan(plain, Wanted(processes=n)).seconds["rl-both"] for n in (1, 2)]
    assert hours[0] == pytest.approx(2 * hours[1])
    said = render(make_plan(sharded, Wanted(processes=4)))
    assert "4 processes, each on one a100-80g (80 GiB), fsdp" in said
    assert "peak memory of each process" in said


def test_what_is_gathered_by_hand(tmp_path: Path) -> None:
    """Embedding, head and last norm, and two of three blocks; gradients of one."""
    network = planner_of(recipe(model={"path": str(llama(tmp_path / "m"))}, sft={"optimizer": "adamw"}), 9).policy
    block = 4 * (4 * 256**2 + 3 * 256 * 512 + 2 * 256)
    root = 4 * (2 * 2000 * 256 + 256)
    assert gathered(network, gradients=False) == root + 2 * block
    assert gathered(network, gradients=True) == 2 * root + 3 * block


def test_the_command(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--prompt-tokens", "20", "--set", "rl.steps=7", "--set", "rl.checkpoints=1"]
    done = CliRunner().invoke(app, ["plan", str(ROOT / "recipes" / "demo.toml"), *options])
    assert done.exit_code == 0, done.output
    assert "demo on one cpu (16 GiB)" in done.output
    loaded = load_recipe(ROOT / "recipes" / "demo.toml", ["rl.steps=7", "rl.checkpoints=1"])
    assert f"{7 * loaded.rl.prompts_per_step * 128:,}" in done.output
    assert "binary-search: 60 completions expected for a failed response of 13 lines, 80 at most" in done.output


def test_what_only_draws_is_planned_in_the_recipes_precision() -> None:
    def parts(**tables: Any) -> dict[str, dict[str, int]]:
        planned = planner_of(recipe(**tables), 100).stages()
        return {stage.stage: stage.parts for stage in planned if stage.stage in ("labels", "evaluate")}

    whole, half = parts(), parts(model={"dtype": "bfloat16"})
    assert half["labels"]["checkpoints"] * 2 == whole["labels"]["checkpoints"] == 2 * whole["evaluate"]["policy"]
    assert half["evaluate"]["policy"] * 2 == whole["evaluate"]["policy"]
    assert half["labels"]["sampling"] < whole["labels"]["sampling"]
    last = parts(labels={"completer": "last"})["labels"]
    assert last["checkpoints"] * 2 == whole["labels"]["checkpoints"]
