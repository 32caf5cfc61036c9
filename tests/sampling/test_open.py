"""One line of text to a sampler, and what is wrong with other lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from models_world import save, tiny_policy
from test_openai import Toy
from transformers import PreTrainedTokenizerFast

from model_server import fake_server
from psgpo.errors import UserError
from psgpo.sampling import HFSampler
from psgpo.sampling.open import open_sampler, options_taken
from psgpo.sampling.rows import folder_stop_ids


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_policy("llama", tokenizer), tokenizer, tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("form", ["hf:{}", "{}"])
def test_a_folder_is_a_model_of_this_process(form: str, folder: Path) -> None:
    sampler, tokenizer = open_sampler(form.format(folder), batch_size=3)
    assert isinstance(sampler, HFSampler)
    assert sampler.batch_size == 3
    prefix = tokenizer("def solve(x):\n")["input_ids"]
    assert len(sampler.sample([prefix], seeds=[1], max_new_tokens=4)[0].token_ids) <= 4
    with pytest.raises(UserError, match="context of 96"):
        sampler.sample([prefix], seeds=[1], max_new_tokens=96)


def test_a_server_is_asked_with_the_key_and_the_folders_end_tokens(
    folder: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with fake_server(Toy(tokenizer, "ids")) as state:
        sampler, own = open_sampler(f"openai:{state.url}#toy", tokenizer=folder, api_key_env="MY_KEY", batch_size=2)
        completion = sampler.sample([own("def solve(x):\n")["input_ids"]], seeds=[0], max_new_tokens=60)[0]
    assert own.decode(completion.token_ids) == "return sum(x)\n<eos>"
    assert state.headers[0]["Authorization"] == "Bearer secret"
    assert state.requests[0]["stop_token_ids"] == [1]


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("nowhere", {}, "no such folder, and none of the forms hf:FOLDER"),
        ("hf:nowhere", {}, "nowhere: no such folder"),
        ("hf:", {}, "write hf:FOLDER"),
        ("hf:FOLDER", {"timeout": 3}, "takes no timeout; its options are dtype"),
        ("hf:FOLDER", {"dtype": "tiny"}, "dtype 'tiny'"),
        ("openai:http://127.0.0.1:9/v1", {"tokenizer": "FOLDER"}, "name the model too"),
        ("openai:http://127.0.0.1:9/v1#m", {}, "needs the folder of the model's tokenizer"),
        ("openai:http://127.0.0.1:9/v1#m", {"tokenizer": "FOLDER", "tries": 1}, "does not answer"),
        ("openai:localhost:8000#m", {"tokenizer": "FOLDER"}, "not an http address"),
        ("vllm:nowhere", {}, "nowhere: no such folder"),
    ],
)
def test_wrong_specs_say_what_to_write(spec: str, options: dict[str, object], words: str, folder: Path) -> None:
    filled = {name: str(folder) if value == "FOLDER" else value for name, value in options.items()}
    with pytest.raises(UserError, match=words):
        open_sampler(spec.replace("FOLDER", str(folder)), **filled)


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        ("hf:folder", {"dtype": 3}),
        ("folder", {"dtype": 3}),
        ("openai:http://x/v1#m", {"timeout": 1, "tries": 2}),
        ("vllm:folder", {"dtype": 3, "max_model_len": 4}),  # what no other kind names may be one of vLLM's own
    ],
)
def test_an_option_goes_to_the_samplers_that_take_it(spec: str, taken: dict[str, int]) -> None:
    assert options_taken(spec, {"timeout": 1, "tries": 2, "dtype": 3, "max_model_len": 4}) == taken


def test_without_vllm_the_error_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install vllm.*requirements/vllm.txt"):
        open_sampler(f"vllm:{folder}")


def test_end_tokens_of_a_folder(folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert folder_stop_ids(folder, tokenizer) == {1}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert folder_stop_ids(tmp_path, tokenizer) == {1, 7, 9}
    (tmp_path / "generation_config.json").unlink()
    assert folder_stop_ids(tmp_path, tokenizer) == {1}
