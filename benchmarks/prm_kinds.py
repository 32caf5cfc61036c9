"""Every kind of PRM on the same mutants, small and from scratch, against the trivial baselines.

    psgpo mutate ... --split test --out labels/mbpp-test
    python benchmarks/prm_kinds.py labels/mbpp-test --out prm-kinds

Makes an untrained causal model and an untrained encoder (RoBERTa), trains each kind with `psgpo prm train`, measures it
on the held-out problems with `psgpo prm eval`, and prints a table. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from psgpo.models import create_policy, train_tokenizer
from psgpo.prm.data import is_held_out
from psgpo.prm.texts import load_text_programs

HOLDOUT = 0.2
SMALL = ["--class-weights", "balanced", "--epochs", "3", "--batch-size", "32", "--learning-rate", "2e-3"]
KINDS: dict[str, list[str]] = {
    "ngrams": ["--kind", "ngrams"],
    "ngrams, balanced": ["--kind", "ngrams", "--class-weights", "balanced"],
    "causal": ["--kind", "causal", "--init", "{start}/causal", "--max-prompt-tokens", "60", *SMALL],
    "encoder": ["--kind", "encoder", "--init", "{start}/encoder", "--max-prompt-tokens", "60", *SMALL],
}
"""Options of `psgpo prm train`."""


def make_starts(texts: list[str], folder: Path) -> None:
    """`causal` and `encoder`: untrained, with a tokenizer made from the texts."""
    if (folder / "encoder" / "tokenizer.json").is_file():
        return
    tokenizer = train_tokenizer(texts, 2048)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 2}
    create_policy(tokenizer, num_hidden_layers=2, **sizes).save_pretrained(folder / "causal")
    tokenizer.save_pretrained(folder / "causal")
    paired = PreTrainedTokenizerFast(
        tokenizer_object=with_pairs(tokenizer),
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(paired),
        num_hidden_layers=2,
        max_position_embeddings=320,
        pad_token_id=paired.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **sizes,
    )
    RobertaModel(config).save_pretrained(folder / "encoder")
    paired.save_pretrained(folder / "encoder")


def with_pairs(tokenizer: PreTrainedTokenizerFast) -> object:
    """The backend with a layout of pairs: problem <eos> prefix <eos>."""
    from tokenizers import Tokenizer, processors

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    return backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of psgpo mutate")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    programs = [p for p in load_text_programs(args.data) if not is_held_out(p.problem_id, HOLDOUT)]
    make_starts([f"{p.prompt}\n{p.code}\n" for p in programs[::5]], args.out / "start")
    rows: dict[str, str] = {}
    for name, options in KINDS.items():
        folder = args.out / name.replace(", ", "-")
        psgpo(
            "train", args.data, "--out", folder, "--holdout", HOLDOUT, "--calibration", "isotonic",
            *(option.format(start=args.out / "start") for option in options),
        )  # fmt: skip
        psgpo(
            "eval", args.data, "--prm", folder / "model", "--held-out", HOLDOUT, "--probes", 0, "--out", folder / "eval"
        )
        scorers = json.loads((folder / "eval" / "summary.json").read_text())["scorers"]
        rows[name] = row(scorers["prm"], "own")
        rows |= {other: row(scorers[other], "fitted") for other in ("position", "majority")}
    print("| PRM | accuracy | of good | of bad | AUROC | ECE raw | fitted | first error exact | F1 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, text in rows.items():
        print(f"| {name} {text}")


def psgpo(command: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "psgpo", "prm", command, *map(str, arguments)], check=True)


def row(scorer: dict[str, dict], by: str) -> str:  # type: ignore[type-arg]
    """The cells of one scorer, decided by its own or by a fitted threshold."""
    lines, errors, ece = scorer[by]["lines"], scorer[by]["first_error"], scorer.get("calibration") or {}
    low, high = scorer[by]["intervals"]["auroc"]
    raw, fitted = (f"{ece[way]['ece']:.3f}" if way in ece else "" for way in ("raw", "calibrated"))
    return (
        f"| {lines['accuracy']:.3f} | {lines['accuracy_good']:.3f} | {lines['accuracy_bad']:.3f} "
        f"| {lines['auroc']:.3f} ({low:.3f}–{high:.3f}) | {raw} | {fitted} "
        f"| {errors['acc_wrong']:.3f} | {errors['f1']:.3f} |"
    )


if __name__ == "__main__":
    main()
