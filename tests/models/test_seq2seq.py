"""Encoder–decoders: rows split and come together again, and logprobs are those of the model's own forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from seq2seq_world import PLAIN, SEQ2SEQ, code_tokenizer, rows, sentence_tokenizer, tiny_seq2seq
from transformers import PreTrainedModel

from psgpo.config import LoraSettings, ModelSettings
from psgpo.errors import UserError
from psgpo.models import (
    adapters_off,
    load_policy,
    prepare_training,
    right_pad,
    save_merged,
    token_logprobs,
    token_loss,
)
from psgpo.models.dropout import switch_off_dropout
from psgpo.models.logprobs import plain_head
from psgpo.models.seq2seq import split_rows


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made, prompts = rows(code_tokenizer())
    ids, mask = right_pad(made, 0)
    return ids, mask, mask * (torch.arange(ids.shape[1]) >= torch.tensor(prompts)[:, None])


def own_logprobs(model: PreTrainedModel, temperature: float = 1.0) -> list[torch.Tensor]:
    """Of every response, by the model's forward with labels, one row at a time and without padding."""
    found = []
    for row, prompt in zip(*rows(code_tokenizer()), strict=True):
        labels = torch.tensor([row[prompt:]])
        logits = model(input_ids=torch.tensor([row[:prompt]]), labels=labels).logits[0] / temperature
        found.append(logits.log_softmax(-1).gather(1, labels[0][:, None])[:, 0])
    return found


def test_rows_split_behind_the_first_end_and_states_go_back_to_their_places() -> None:
    ids, mask = right_pad([[5, 2, 7, 8, 2], [6, 6, 6, 2], [2, 9]], 0)
    split = split_rows(ids, mask, start=1, end=2, pad=0)
    assert split.encoder_ids.tolist() == [[5, 2, 0, 0], [6, 6, 6, 2], [2, 0, 0, 0]]
    assert split.encoder_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert split.decoder_ids.tolist() == [[1, 7, 8, 2], [1, 0, 0, 0], [1, 9, 0, 0]]
    assert split.decoder_mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    states = torch.arange(1.0, 13.0).view(3, 4, 1)
    assert split.spread(states)[..., 0].tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 5, 0], [9, 10, 0, 0, 0]]


def test_a_row_without_an_end_is_refused() -> None:
    with pytest.raises(UserError, match="no end-of-sequence token"):
        split_rows(*right_pad([[5, 2], [6, 7]], 2), start=0, end=2, pad=2)


@pytest.mark.parametrize(("name", "scale"), [("t5", 32**-0.5), ("t5-1.1", 1.0), ("bart", 1.0)])
def test_the_scale_before_the_head_is_found_out(name: str, scale: float) -> None:
    head = plain_head(tiny_seq2seq(name))
    assert head is not None
    assert head.scale == scale


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", SEQ2SEQ)
@pytest.mark.filterwarnings("ignore:T5GemmaForConditionalGeneration")
def test_logprobs_and_gradients_are_those_of_the_models_own_forward(name: str, temperature: float) -> None:
    model = tiny_seq2seq(name)
    ids, mask, marked = batch()
    want = torch.cat(own_logprobs(model, temperature))
    weight_N = torch.linspace(-1.0, 2.0, len(want))
    (weight_N * want).sum().backward()
    wanted = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    assert len(wanted) == len(list(model.parameters()))
    largest = max(float(grad.abs().max()) for grad in wanted.values())

    def compare(loss: torch.Tensor) -> None:
        model.zero_grad()
        loss.backward()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[key], rtol=1e-4, atol=1e-5 * largest)

    logprobs, entropy = token_logprobs(model, ids, mask, marked, temperature=temperature, with_entropy=True)
    assert entropy is not None
    torch.testing.assert_close(logprobs[marked.bool()], want.detach(), rtol=1e-5, atol=1e-5)
    assert not logprobs[~marked.bool()].any()
    assert bool((entropy[marked.bool()] > 0).all())
    compare((weight_N * logprobs[marked.bool()]).sum())
    loss, _ = token_loss(
        model, ids, mask, marked, lambda logprob_N, part: (weight_N[part] * logprob_N).sum(), temperature=temperature
    )
    compare(loss)


@pytest.mark.parametrize("name", PLAIN)
def test_neighbours_and_padding_do_not_matter(name: str) -> None:
    model = tiny_seq2seq(name)
    ids, mask, marked = batch()
    with torch.no_grad():
        together = token_logprobs(model, ids, mask, marked)[0]
        turned = token_logprobs(model, ids.flip(0), mask.flip(0), marked.flip(0))[0].flip(0)
        wide = [torch.nn.functional.pad(tensor, (0, 7)) for tensor in (ids, mask, marked)]
        padded = token_logprobs(model, *wide)[0][:, : ids.shape[1]]
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_dropout_is_off_in_training_too(name: str) -> None:
    model = tiny_seq2seq(name).train()
    noisy = token_logprobs(model, *batch())[0]
    assert not torch.equal(noisy, token_logprobs(model, *batch())[0])
    switch_off_dropout(model)
    torch.testing.assert_close(
        token_logprobs(model, *batch())[0], token_logprobs(model.eval(), *batch())[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", PLAIN)
def test_under_autocast_products_are_bfloat16_and_gradients_float32(name: str) -> None:
    model = tiny_seq2seq(name)
    exact = token_logprobs(model, *batch())[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = token_logprobs(model, *batch())[0]
        want = torch.cat(own_logprobs(model))
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert not torch.equal(rough, exact)
    assert float((rough[batch()[2].bool()] - want).detach().abs().max()) < 0.15


@pytest.mark.parametrize("name", PLAIN)
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    model, again = tiny_seq2seq(name), tiny_seq2seq(name)
    switch_off_dropout(again)
    prepare_training(again, ModelSettings(gradient_checkpointing=True))
    kept: list[list[torch.Tensor]] = []
    for one in (model, again.train()):
        token_logprobs(one, *batch())[0].sum().backward()
        kept.append([p.grad for p in one.parameters()])
    largest = max(float(grad.abs().max()) for grad in kept[0])
    for mine, theirs in zip(*kept, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("name", PLAIN)
def test_adapters_learn_and_are_switched_off_and_merged(name: str, tmp_path: Path) -> None:
    model = tiny_seq2seq(name)
    before = token_logprobs(model, *batch())[0].detach()
    prepare_training(model, ModelSettings(lora=LoraSettings(rank=4)), seed=1)
    assert not any("lora" in key for key, _ in model.lm_head.named_parameters())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        optimizer.zero_grad()
        (-token_logprobs(model, *batch())[0].sum()).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
    after = token_logprobs(model, *batch())[0].detach()
    assert float((after - before).abs().max()) > 0.01
    with adapters_off(model):
        # Attention takes another kernel where the position bias wants no gradient.
        torch.testing.assert_close(token_logprobs(model, *batch())[0], before, rtol=1e-5, atol=1e-5)
    save_merged(model, tmp_path)
    code_tokenizer().save_pretrained(tmp_path)
    loaded, _ = load_policy(tmp_path)
    torch.testing.assert_close(token_logprobs(loaded, *batch())[0], after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [code_tokenizer, sentence_tokenizer])
def test_responses_of_both_tokenizer_families_are_told_from_their_prompts(make) -> None:
    made, prompts = rows(make())
    ids, mask = right_pad(made, 0)
    split = split_rows(ids, mask, start=0, end=2, pad=0)
    assert split.encoder_mask.sum(1).tolist() == prompts
    assert (split.decoder_mask.sum(1) - 1).tolist() == [len(row) - p for row, p in zip(made, prompts, strict=True)]
