"""Programs as `psgpo mutate` writes them, bad from the line that says `boom` on, and tiny untrained encoders."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from prm_world import BAD, COMMENT, GOOD
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from psgpo.jsonl import write_jsonl
from psgpo.mutation.labelled import LabelledProgram

TEXTS = ["\n".join(["add 1 and return", "def solve(x):", *GOOD, BAD, COMMENT, "    return x"])] * 4
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.05,
}
SIZES |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0}  # type: ignore[dict-item]


def mutants(problems: int, seed: int = 0) -> list[LabelledProgram]:
    """A right and a wrong program for every problem."""
    rng = random.Random(seed)
    return [program for n in range(problems) for program in _pair(n, rng)]


def _pair(number: int, rng: random.Random) -> list[LabelledProgram]:
    lines = ["def solve(x):", *(rng.choice([*GOOD, COMMENT]) for _ in range(rng.randint(1, 5))), GOOD[0]]
    where = rng.randrange(1, len(lines))
    made = []
    for bug in (None, where):
        rows = [BAD if m == bug else line for m, line in enumerate(lines)]
        known = len(rows) if bug is None else bug
        labels = [0 if row == COMMENT else 1 if m < known else -1 if m == bug else 0 for m, row in enumerate(rows)]
        made.append(
            LabelledProgram(
                id=f"p{number}#{'reference' if bug is None else bug}",
                problem_id=f"p{number}",
                prompt=f"add {number % 7} and return",
                code="\n".join(rows) + ("\n" if number % 3 else ""),
                lines=tuple(rows),
                labels=tuple(labels),
                mutated_line=None if bug is None else bug + 1,
                reference_line=None if bug is None else lines[bug],
                in_place=True,
                family="reference" if bug is None else "bug",
                kind="reference" if bug is None else "constant",
                operator="reference",
                teacher="reference",
                verdict="pass" if bug is None else "fail",
                status="PASSED" if bug is None else "WRONG_ANSWER",
                decided_by="" if bug is None else "tests",
            )
        )
    return made


def save_mutants(folder: Path, problems: int = 60) -> Path:
    write_jsonl(folder / "programs.jsonl", (program.to_json() for program in mutants(problems)))
    return folder


def save_roberta(folder: Path, positions: int = 130) -> Path:
    """Byte-level BPE, `<s> problem </s></s> prefix </s>`; RoBERTa keeps two of its positions for itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = RobertaConfig(vocab_size=len(fast), max_position_embeddings=positions, pad_token_id=1, **SIZES)
    return _saved(RobertaModel, config, fast, folder)


def save_bert(folder: Path) -> Path:
    """WordPiece with segments: `[CLS] problem [SEP] prefix [SEP]`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(vocab_size=len(fast), max_position_embeddings=96, pad_token_id=0, **SIZES)
    return _saved(BertModel, config, fast, folder)


def _saved(kind, config, tokenizer, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
