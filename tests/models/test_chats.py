"""Chat templates as prompts: the tokenizer's own ids, one BOS, and answers that end as its chat ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_world import CHATS, FAMILIES, family_tokenizer
from models_world import save
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config

from psgpo.chats import TODAY, answers_in_chat, chat_layout, end_of_turn, end_with_turns
from psgpo.config import SftSettings
from psgpo.errors import UserError
from psgpo.lines import TokenText
from psgpo.models import load_policy
from psgpo.parallel.replica import Replica
from psgpo.parallel.team import ALONE
from psgpo.prm.layout import sampled_template
from psgpo.prompts import build_prompt_ids, encode_prompt, fill
from psgpo.records import AssertTests, LineLabels, Problem, Response, Status, Verdict
from psgpo.sampling import HFSampler
from psgpo.sampling.rows import folder_stop_ids
from psgpo.sft import _backward, _tokenise, train_sft

TEXTS = ["add 1 to x", " # add 1\n\n", "return {x}\n", "a <|im_end|> b </s>", "{prompt|trim} {prompt}"]


def policy(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer) + 3,  # padded, as Qwen2.5's is
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def by_transformers(tokenizer: Any, content: str, system: str | None = None) -> tuple[int, ...]:
    messages = [{"role": "user", "content": content}]
    before = [] if system is None else [{"role": "system", "content": system}]
    found = tokenizer.apply_chat_template(
        before + messages, add_generation_prompt=True, tokenize=True, return_dict=False, date_string=TODAY
    )
    return tuple(found)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_filled_layout_has_the_ids_of_the_tokenizers_own_chat(name: str, text: str) -> None:
    tokenizer = family_tokenizer(name)
    ids = encode_prompt(tokenizer, fill(chat_layout(tokenizer), text))
    assert ids == by_transformers(tokenizer, text)
    message = "Write Python.\n{prompt}\nOnly code."
    asked = fill(chat_layout(tokenizer, message), text)
    assert encode_prompt(tokenizer, asked) == by_transformers(tokenizer, fill(message, text))


@pytest.mark.parametrize("name", ["qwen2.5-base", "llama3"])
def test_a_system_prompt_takes_the_templates_place_for_one(name: str) -> None:
    tokenizer = family_tokenizer(name)
    layout = chat_layout(tokenizer, "{prompt}", "Write Python.")
    assert encode_prompt(tokenizer, fill(layout, "add")) == by_transformers(tokenizer, "add", "Write Python.")
    assert "You are Qwen." not in layout
    assert layout.count("Write Python.") == 1


@pytest.mark.parametrize(("name", "chat"), [*((name, False) for name in FAMILIES), *((name, True) for name in CHATS)])
def test_a_prompt_has_one_bos_where_the_tokenizer_puts_one_and_no_other_end(name: str, chat: bool) -> None:
    tokenizer = family_tokenizer(name)
    problem = Problem(id="p", prompt="add 1", tests=AssertTests(entry_point="f", checks=("assert f(1) == 2",)))
    ids = build_prompt_ids(tokenizer, chat_layout(tokenizer) if chat else "# {prompt}\n", problem)
    bos = FAMILIES[name].bos
    if bos:
        assert [at for at, token in enumerate(ids) if token == tokenizer.bos_token_id] == [0]
    if not chat:
        assert not set(ids[1:]) & set(tokenizer.all_special_ids)
        assert TokenText(tokenizer).decode(ids).strip() == "# add 1"


def test_a_template_that_forgets_the_bos_gets_it() -> None:
    tokenizer = family_tokenizer("llama3")
    tokenizer.chat_template = tokenizer.chat_template.removeprefix("{{ bos_token }}")
    ids = encode_prompt(tokenizer, fill(chat_layout(tokenizer), "add"))
    assert ids == (tokenizer.bos_token_id, *by_transformers(tokenizer, "add"))


@pytest.mark.parametrize("name", CHATS)
def test_what_ends_a_turn_is_read_off_the_template(name: str) -> None:
    assert end_of_turn(family_tokenizer(name)) == FAMILIES[name].end


@pytest.mark.parametrize("name", CHATS)
def test_a_template_is_known_for_a_chat_by_where_its_answer_begins(name: str) -> None:
    tokenizer = family_tokenizer(name)
    assert answers_in_chat(tokenizer, chat_layout(tokenizer, "Do this: {prompt}\nOnly code."))
    assert not answers_in_chat(tokenizer, "# {prompt}\n")
    assert not answers_in_chat(family_tokenizer("gpt2"), chat_layout(tokenizer))


def test_a_chat_of_plain_words_has_no_end_of_its_own() -> None:
    tokenizer = family_tokenizer("gpt2")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    model = policy(tokenizer)
    end_with_turns(model, tokenizer)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert chat_layout(tokenizer) == "user: {prompt}\nassistant:"


@pytest.mark.parametrize(
    ("name", "system", "template", "words"),
    [
        ("gpt2", None, None, "no chat template; set prompt_chat = false"),
        ("gemma", "Write Python.", None, "System role not supported.*leave prompt_system out"),
        ("gpt2", None, "{{ messages[0].content | upper }}", "changes the user's message"),
        ("gpt2", None, "{{ messages[0].content", "refuses"),
    ],
)
def test_templates_that_cannot_be_used_are_refused_in_one_line(
    name: str, system: str | None, template: str | None, words: str
) -> None:
    tokenizer = family_tokenizer(name)
    tokenizer.chat_template = template or tokenizer.chat_template
    with pytest.raises(UserError, match=words) as caught:
        chat_layout(tokenizer, "{prompt}", system)
    assert "\n" not in str(caught.value)


def test_sft_of_a_base_model_ends_answers_as_its_chat_does(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("qwen2.5-base")
    model, layout = policy(tokenizer), chat_layout(tokenizer)
    end_with_turns(model, tokenizer)
    settings = SftSettings(epochs=14, batch_size=8, optimizer="adamw", learning_rate=1e-2)
    pairs = [(fill(layout, f"add {n}"), "return x\n") for n in range(8)] * 4
    train_sft(model, tokenizer, pairs, settings, out=tmp_path, seed=0)
    trained, loaded = load_policy(tmp_path / "model")
    end = loaded.convert_tokens_to_ids("<|im_end|>")
    assert loaded.eos_token_id == end
    assert loaded.pad_token == "<|endoftext|>"
    assert folder_stop_ids(tmp_path / "model", loaded) == {end, loaded.pad_token_id}
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"][0] == end
    prompt = encode_prompt(loaded, fill(layout, "add 3"))
    (found,) = HFSampler(trained, loaded).sample([prompt], seeds=[0], temperature=0.0, top_p=1.0, max_new_tokens=20)
    assert found.finished
    assert found.token_ids[-1] == end
    assert TokenText(loaded).decode(found.token_ids) == "return x\n"


def test_the_end_is_learned_where_the_same_id_pads() -> None:
    same, apart = family_tokenizer("qwen2.5-base"), family_tokenizer("qwen2.5-base")
    apart.pad_token = "<|im_start|>"
    assert same.pad_token_id == same.eos_token_id != apart.pad_token_id
    pairs = [("# add\n", "return x\n"), ("# add 1 to x\n", "y = x + 1\nreturn y\n"), ("#", "x")]
    found = []
    for tokenizer in (same, apart):
        model = policy(tokenizer)
        examples = _tokenise(tokenizer, pairs, 200)
        assert all(ids[-1] == tokenizer.eos_token_id for ids, _ in examples)
        loss, count = _backward(Replica(model, ALONE, "cpu"), examples, tokenizer.pad_token_id, None, "float32")
        assert count == sum(len(tokenizer(text)["input_ids"]) + 1 for _, text in pairs)
        found.append((loss, model.lm_head.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)
    # By hand: the last position's loss is part of the sum.
    ids, prompt = examples[2]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    alone = -sum(float(logits[t - 1, ids[t]]) for t in range(prompt, len(ids))) / (len(ids) - prompt)
    loss, _ = _backward(Replica(model, ALONE, "cpu"), [examples[2]], apart.pad_token_id, None, "float32")
    assert loss == pytest.approx(alone, rel=1e-5)


def test_added_tokens_stay_in_the_text_of_a_response_and_special_ones_do_not() -> None:
    tokenizer = family_tokenizer("qwen2.5-base")
    tokenizer.add_tokens(["<tab>"])
    ids = tokenizer("<tab>return x<|im_end|>", add_special_tokens=False)["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<tab>")
    assert TokenText(tokenizer).decode(ids) == "<tab>return x"


def labelled(response: Response) -> LineLabels:
    nothing = {"probes": (), "completions": 0, "tokens": 0, "executions": 0}
    return LineLabels(
        response=response, line_ends=(0,), labels=(1.0,), last_solvable=1, strategy="binary-search", **nothing
    )


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("texts", [["add 1", "add 2"], ["add 1", " add\n"]])
def test_the_layout_of_labelled_chats_is_found_again(name: str, texts: list[str], tmp_path: Path) -> None:
    tokenizer = family_tokenizer(name)
    layout = chat_layout(tokenizer, "Do: {prompt}")
    rows = []
    for number, text in enumerate(texts):
        response = Response(
            problem_id=str(number),
            index=0,
            checkpoint="c",
            token_ids=(5,),
            text="x",
            finished=True,
            verdict=Verdict(status=Status.PASSED, tests_passed=1, tests_total=1),
            prompt_ids=encode_prompt(tokenizer, fill(layout, text)),
        )
        rows.append(labelled(response).to_json())
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sampled_template([path], {str(n): text for n, text in enumerate(texts)}, tokenizer)
    for text in texts:
        assert encode_prompt(tokenizer, fill(found, text)) == encode_prompt(tokenizer, fill(layout, text))


def test_a_chat_prompt_of_a_saved_folder(tmp_path: Path) -> None:
    """The template is part of the folder, so a critic, a PRM and a checkpoint have it too."""
    tokenizer = family_tokenizer("qwen2.5-base")
    _, loaded = load_policy(save(policy(tokenizer), tokenizer, tmp_path))
    assert chat_layout(loaded) == chat_layout(tokenizer)
