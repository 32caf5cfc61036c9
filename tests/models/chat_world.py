"""Tokenizers of chat models' families, trained on a few lines, with their special tokens and short chat templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models_world import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

CORPUS = ["def f(x):\n    y = x + 1\n\n    return y\n", "# add 1 to x; then return it\n", "system user assistant\n"] * 3
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

QWEN = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + date_string + '\n\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}<|eot_id|>"
    "{% for message in messages if message.role != 'system' %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token }}[INST] {{ message.content | trim }} "
    "[/INST]{% else %} {{ message.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>"
    "{{ ('model' if message.role == 'assistant' else message.role) + '\n' + message.content | trim }}<end_of_turn>"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is special about the tokenizers of a family."""

    specials: tuple[str, ...]
    eos: str
    pad: str
    bos: str | None
    """Put in front of every text."""
    template: str | None
    end: str | None
    """What closes a turn of the chat."""
    pieces: bool = False
    """SentencePiece's way, with a space in front, in place of bytes."""


FAMILIES = {
    "qwen2.5-base": Family(
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        bos=None,
        template=QWEN,
        end="<|im_end|>",
    ),
    "qwen2.5-instruct": Family(
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        pad="<|endoftext|>",
        bos=None,
        template=QWEN,
        end="<|im_end|>",
    ),
    "llama3": Family(
        specials=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        eos="<|end_of_text|>",
        pad="<|end_of_text|>",
        bos="<|begin_of_text|>",
        template=LLAMA3,
        end="<|eot_id|>",
    ),
    "llama2": Family(
        specials=("<unk>", "<s>", "</s>"), eos="</s>", pad="</s>", bos="<s>", template=LLAMA2, end="</s>", pieces=True
    ),
    "gemma": Family(
        specials=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        pad="<pad>",
        bos="<bos>",
        template=GEMMA,
        end="<end_of_turn>",
    ),
    "gpt2": Family(
        specials=("<|endoftext|>",), eos="<|endoftext|>", pad="<|endoftext|>", bos=None, template=None, end=None
    ),
}
CHATS = [name for name, family in FAMILIES.items() if family.template]


def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer like those of the family."""
    family = FAMILIES[name]
    tokenizer = _pieces(family) if family.pieces else _bytes(family)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.specials])
    if family.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A $B",
            special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))],
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=family.eos,
        pad_token=family.pad,
        bos_token=family.bos,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = family.template
    return made


def _bytes(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=list(family.specials), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _pieces(family: Family) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [*family.specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def tiny_qwen(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """A folder with a random Qwen2 of one layer."""
    config = Qwen2Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=8192,
    )
    return save(AutoModelForCausalLM.from_config(config), tokenizer, folder)
