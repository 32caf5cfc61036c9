"""Tiny random encoder–decoders, and tokenizers trained with their families' pre-tokenizers."""

from __future__ import annotations

from functools import cache

import torch
from models_world import TEXT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5GemmaConfig,
    T5GemmaModuleConfig,
)

from psgpo.prompts import encode_prompt, set_encoder_prompts

SEQ2SEQ = ("t5", "t5-1.1", "bart", "t5gemma")
"""One matrix for both embeddings, and its states scaled; a head of its own and gated layers; learned positions; a soft
cap behind the head."""
PLAIN = ("t5", "t5-1.1", "bart")
"""Those whose logits are a matrix times their states."""

BART_SHAPE = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}


@cache
def code_tokenizer() -> PreTrainedTokenizerFast:
    """As CodeT5's: byte-level BPE, `<s> text </s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return _wrapped(tokenizer, bos_token="<s>")


@cache
def sentence_tokenizer() -> PreTrainedTokenizerFast:
    """As T5's: unigrams of words behind a mark, `text </s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT.splitlines() * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer, **more: str) -> PreTrainedTokenizerFast:
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"} | more
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    set_encoder_prompts(made, True)
    return made


def tiny_seq2seq(name: str, vocab_size: int = 300) -> PreTrainedModel:
    """A random model whose logits spread enough for sampling to matter; it has dropout, as real ones have."""
    ids = {"vocab_size": vocab_size, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocab_size}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1}
    torch.manual_seed(3)
    if name == "bart":
        shape = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in BART_SHAPE.items()}
        config = BartConfig(d_model=32, max_position_embeddings=96, bos_token_id=1, **shape, **ids)
    elif name == "t5gemma":
        module = T5GemmaModuleConfig(**sizes, **heads, final_logit_softcapping=2.0, bos_token_id=0)
        config = T5GemmaConfig(encoder=module, decoder=module, **ids)
    elif name == "t5-1.1":
        config = T5Config(**t5, **ids, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    else:
        config = T5Config(**t5, **ids)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if name == "t5-1.1":  # transformers ties what it makes; published checkpoints hold two matrices, and keep them
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
        if name == "t5":
            model.lm_head.weight.mul_(4.0)
    return model.eval()


def rows(tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[int]], list[int]]:
    """Rows of prompt and response of unlike lengths, and the lengths of their prompts."""
    prompts = [encode_prompt(tokenizer, text) for text in ("add 3 to each", "sum", "keep the even numbers; then x")]
    responses = [[5, 9, 30, 41, 2], [7, 50, 8, 8, 60, 71, 33, 2], [9]]
    return [[*p, *r] for p, r in zip(prompts, responses, strict=True)], [len(p) for p in prompts]
