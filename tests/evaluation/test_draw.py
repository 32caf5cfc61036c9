"""Samples of a model for a benchmark: resumable, seeded per task, cut where the function ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_server import fake_server
from psgpo.errors import UserError
from psgpo.evaluation.draw import DrawSettings, LoadedModel, draw_samples, end_of_function
from psgpo.labeling.identity import folder_fingerprint, tokenizer_fingerprint
from psgpo.models import create_policy, load_tokenizer, train_tokenizer
from psgpo.problems.programs import end_of_answer
from psgpo.records import AssertTests, Call, CallTests, Completion, Problem

TESTS = CallTests(function="f", calls=(Call(args=(), expected=1),))
PROBLEMS = [
    Problem(id=f"T/{i}", prompt=f"add {i}", tests=TESTS, starter_code=f"def f{i}(x):\n" if i else "") for i in range(3)
]
SETTINGS = DrawSettings(samples=4, temperature=1.0, max_new_tokens=12, seed=5)
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


def save_model(folder: Path, *, chat_template: str | None = None, seed: int = 0) -> Path:
    text = "def f(x):\n    return x + 1\n<user>add 1\n<assistant>"
    tokenizer = train_tokenizer([text] * 4, 280)
    tokenizer.chat_template = chat_template
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    policy = create_policy(tokenizer, seed=seed, max_position_embeddings=64, **sizes)
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


class CountingModel(LoadedModel):
    """Counts how often it is loaded, and what is asked of the sampler."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, batch_size=4, device="cpu")
        self.loads = 0
        self.prefixes: list[tuple[int, ...]] = []
        self.seeds: list[int] = []
        self.limits: list[int] = []

    def load(self) -> Any:
        self.loads += 1
        sampler, self.tokenizer, context = super().load()
        model = self

        class Watched:
            def sample(self, prefixes: Any, *, seeds: Any, max_new_tokens: Any, **options: Any) -> list[Completion]:
                model.prefixes += prefixes
                model.seeds += seeds
                model.limits += max_new_tokens
                return sampler.sample(prefixes, seeds=seeds, max_new_tokens=max_new_tokens, **options)

        return Watched(), self.tokenizer, context


def draw(folder: Path, out: Path, **changes: Any) -> tuple[list[dict[str, Any]], CountingModel]:
    model = CountingModel(folder)
    prompt_of: Callable[[Problem], str] = changes.pop("prompt_of", lambda problem: f"{problem.prompt}\n")
    arguments = {"problems": PROBLEMS, "settings": SETTINGS} | changes
    path = draw_samples(model, out=out, prompt_of=prompt_of, benchmark="x", chunk=5, **arguments)
    return [json.loads(line) for line in path.read_text().splitlines()], model


def test_the_file_has_every_sample_in_order(folder: Path, tmp_path: Path) -> None:
    rows, model = draw(folder, tmp_path)
    assert [(row["task_id"], row["sample_id"]) for row in rows] == [(f"T/{i}", n) for i in range(3) for n in range(4)]
    assert all(isinstance(row["completion"], str) and 1 <= row["tokens"] <= 12 for row in rows)
    assert len(set(model.seeds)) == 12
    assert len({row["completion"] for row in rows}) > 4
    again, _ = draw(folder, tmp_path / "again")
    assert again == rows
    other, _ = draw(folder, tmp_path / "other", settings=DrawSettings(samples=4, max_new_tokens=12, seed=6))
    assert other != rows


def test_the_ids_of_an_answer_are_kept(folder: Path, tmp_path: Path) -> None:
    """Of a completion that is cut: up to the token in which it ends. `tokens` counts all that were sampled."""
    tokenizer = load_tokenizer(folder)
    text = "    return 1\n\nprint(2)\n"
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    class Scripted(LoadedModel):
        def load(self) -> Any:
            class Sampler:
                def sample(self, prefixes: Any, **_: Any) -> list[Completion]:
                    return [Completion(token_ids=ids, logprobs=(0.0,) * len(ids), finished=False)] * len(prefixes)

            return Sampler(), tokenizer, None

    model = Scripted(folder, batch_size=4, device="cpu")
    settings = DrawSettings(samples=1)
    path = draw_samples(model, PROBLEMS, settings, tmp_path, prompt_of=lambda problem: problem.prompt, benchmark="x")
    whole, cut, _ = (json.loads(line) for line in path.read_text().splitlines())
    assert (whole["completion"], whole["token_ids"]) == (text, list(ids))
    assert cut["completion"] == "    return 1\n\n"
    assert tokenizer.decode(cut["token_ids"]) == cut["completion"]
    assert len(cut["token_ids"]) < cut["tokens"] == whole["tokens"] == len(ids)
    assert tokenizer.decode(cut["prompt_ids"]) == "add 1"
    assert {whole["tokenizer"], cut["tokenizer"]} == {tokenizer_fingerprint(tokenizer)}


def test_a_killed_call_draws_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done >= 10:
            raise KilledError

    whole, _ = draw(folder, tmp_path / "whole")
    with pytest.raises(KilledError):
        draw(folder, tmp_path / "part", progress=kill)
    path = tmp_path / "part" / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # the tenth row is torn
    rows, model = draw(folder, tmp_path / "part")
    assert len(model.seeds) == 3
    assert rows == whole
    rows, model = draw(folder, tmp_path / "part")
    assert (rows, model.loads) == (whole, 0)


def test_another_model_or_setting_is_refused(folder: Path, tmp_path: Path) -> None:
    rows, _ = draw(folder, tmp_path / "out")
    with pytest.raises(UserError, match=r"\(temperature differ\)"):
        draw(folder, tmp_path / "out", settings=DrawSettings(samples=4, temperature=0.5, max_new_tokens=12, seed=5))
    with pytest.raises(UserError, match=r"\(model differ\)"):
        draw(save_model(tmp_path / "other", seed=1), tmp_path / "out")
    with pytest.raises(UserError, match=r"\(prompts differ\)"):
        draw(folder, tmp_path / "out", prompt_of=lambda problem: problem.prompt)
    assert draw(folder, tmp_path / "out")[0] == rows


def test_chat_form_asks_in_the_models_template(folder: Path, tmp_path: Path) -> None:
    chatty = save_model(tmp_path / "chatty", chat_template=CHAT)
    settings = DrawSettings(samples=1, max_new_tokens=4, prompt="chat")
    rows, model = draw(chatty, tmp_path / "out", settings=settings)
    assert model.tokenizer.decode(model.prefixes[1]) == "<user>add 1\n\n<assistant>"
    assert all("solution" in row and "completion" not in row for row in rows)
    with pytest.raises(UserError, match="no chat template; give --prompt completion"):
        draw(folder, tmp_path / "plain", settings=settings)


def test_the_context_bounds_the_sample(folder: Path, tmp_path: Path) -> None:
    settings = DrawSettings(samples=1, max_new_tokens=500)
    _, model = draw(folder, tmp_path / "fits", settings=settings)
    assert [len(prefix) + limit for prefix, limit in zip(model.prefixes, model.limits, strict=True)] == [64] * 3
    with pytest.raises(UserError, match=r"T/0: its prompt of \d+ tokens fills the model's context of 64"):
        draw(folder, tmp_path / "full", settings=settings, prompt_of=lambda problem: "add " * 100)


@pytest.mark.parametrize(
    "settings",
    [
        DrawSettings(samples=0),
        DrawSettings(temperature=-1),
        DrawSettings(top_p=0),
        DrawSettings(samples=2, temperature=0),
        DrawSettings(max_new_tokens=0),
    ],
)
def test_settings_without_sense(settings: DrawSettings, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--"):
        draw(folder, tmp_path, settings=settings)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n\n\ndef other():\n    pass\n", "    return 1\n\n\n"),
        ("    return 1\n\nif __name__ == '__main__':\n    main()", "    return 1\n\n"),
        ("    return 1\n```\nExplanation", "    return 1\n"),
        ("    if x:\n        return 1\n    return 2\n# end\n", "    if x:\n        return 1\n    return 2\n"),
        # The whole function again: its own first line is no end.
        ("\ndef f(x):\n    return 1\n\nprint(f(1))", "\ndef f(x):\n    return 1\n\n"),
        ("```python\ndef f(x):\n    return 1\n```\nDone", "```python\ndef f(x):\n    return 1\n```\nDone"),
        ("    return iffy\nifs = 1\n", "    return iffy\nifs = 1\n"),
        ("nothing indented\ndef g", "nothing indented\ndef g"),
    ],
)
def test_a_completion_ends_with_its_function(text: str, kept: str) -> None:
    assert end_of_function(text) == kept


def test_samples_of_another_program_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text(json.dumps({"task_id": "p0", "completion": "    return 1\n"}) + "\n")
    with pytest.raises(UserError, match=r"samples.jsonl:1: no sample that psgpo eval drew; choose another --out"):
        draw(folder, tmp_path, settings=DrawSettings(max_new_tokens=4))
    assert [file.name for file in tmp_path.iterdir()] == ["samples.jsonl"]


BODY, CLASS_BODY = "def f(x):\n", "class Solution:\n    def f(self, x):\n        "


@pytest.mark.parametrize(
    ("starter", "text", "end"),
    [
        (BODY, "    return 1\nprint(f(1))\n", "    return 1\n"),
        (BODY, "    # first\n    return 1\nif x", "    # first\n    return 1\n"),
        (BODY, "\treturn 1\n```\n", "\treturn 1\n"),
        (BODY, "    return 1\nif", None),  # it may become `ifs = 1`
        (BODY, "    return 1\nifs = 1\n", None),
        (BODY, "    return 1\n", None),
        (BODY, "def g(x):\n    return x\n\ndef f(x):\n", None),  # a whole program, which may not define `f` yet
        (BODY, " Sure.\n\n### Solution\n```python\ndef f(x):\n    return 1\n```\n", None),  # prose
        (BODY, "", None),
        ("", "    return 1\nprint(f(1))\n", None),
        ("def f(x): return", "    1\nprint(f(1))\n", "    1\n"),
        (CLASS_BODY, "y = x\n        return y\n\nprint(1)\n", "y = x\n        return y\n\n"),
        (CLASS_BODY, "return x\nprint(1)\n", "return x\n"),
        (
            CLASS_BODY,
            "if not x:\n            return 0\n        return 1\n\nprint(1)\n",
            "if not x:\n            return 0\n        return 1\n\n",
        ),
        (CLASS_BODY, "import math\nclass Solution:\n    def f(self, x):\n", None),
    ],
)
def test_where_a_response_inside_a_function_is_over(starter: str, text: str, end: str | None) -> None:
    problem = Problem(id="p", prompt="p", tests=AssertTests(entry_point="f", checks=("f",)), starter_code=starter)
    assert end_of_answer(problem, text) == (None if end is None else len(end))
    if end is not None:  # nothing that follows moves it
        for more in (
            "x",
            "\n",
            "\ndef g(): pass\n",
            "```\n",
            "```python\n",
            "\n```python\ndef f(x):\n    return 7\n",
            "~~~py\n",
        ):
            assert end_of_answer(problem, text + more) == len(end)
    if starter == CLASS_BODY:
        assert end_of_answer(problem, text, talks=True) is None


def test_the_space_a_text_begins_with_survives(tmp_path: Path) -> None:
    """Decoders in the manner of SentencePiece strip the first space of whatever they are given."""
    from psgpo.evaluation.draw import _continuation

    class Stripping:
        words = ("def f():\n", " ", "   return 1")

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(self.words[i] for i in ids).removeprefix(" ")

    assert _continuation(Stripping(), [0], [1, 2]) == "    return 1"


def test_a_server_draws_the_samples(folder: Path, tmp_path: Path) -> None:
    """The server writes one program, by ids; the file holds it for every task, under the server's name."""
    tokenizer = load_tokenizer(folder)
    ids = [*tokenizer("    x\n", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def answer(asked: dict[str, Any], number: int) -> dict[str, Any]:
        shown = ids[: asked["max_tokens"]]  # the probe asks for one
        ending = "stop" if shown == ids else "length"
        choice = {"text": "", "finish_reason": ending, "token_ids": shown, "prompt_token_ids": asked["prompt"]}
        return {"choices": [choice], "usage": {"prompt_tokens": len(asked["prompt"])}}

    with fake_server(answer, [{"id": "m", "max_model_len": 64}]) as server:
        model = LoadedModel(f"openai:{server.url}#m", batch_size=2, device="cpu", tokenizer=folder)
        options = {"settings": SETTINGS, "out": tmp_path, "prompt_of": lambda problem: f"{problem.prompt}\n"}
        path = draw_samples(model, PROBLEMS, benchmark="x", **options)
        assert model.load()[2] == 64
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == len(PROBLEMS) * SETTINGS.samples
    assert {row["completion"] for row in rows} == {"    x\n"}
    assert json.loads((tmp_path / "sampling.json").read_text())["model"] == "openai m"
    assert LoadedModel(f"hf:{folder}", batch_size=1, device="cpu").fingerprint() == folder_fingerprint(folder)
    assert LoadedModel(f"vllm:{folder}", batch_size=1, device="cpu").fingerprint() != folder_fingerprint(folder)
