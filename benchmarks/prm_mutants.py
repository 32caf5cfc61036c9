"""A PRM on verified mutants, trained from scratch here, against majority, position and n-grams.

    psgpo mutate ... --split train --out labels/mbpp-train       # and test, validation, humaneval: docs/prm.md
    python benchmarks/prm_mutants.py --measured labels/mbpp-train --more labels/mbpp-test labels/mbpp-validation \
        labels/humaneval --out prm-mutants

1. Planted: bugs and rewrites of the catalogue in functions of the standard library and three installed packages.
   Nothing of it runs; the model learns which lines look planted.
2. Verified: the mutants of problems that are not held out.
3. Measured once, on held-out problems of `--measured`; problems whose program is nearly that of a held-out one are not
   trained on. Other held-out problems choose the epoch, the calibration and the thresholds.

Goes on where it stopped: training after its last epoch, everything else is quick.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from psgpo.config import PrmSettings
from psgpo.models import create_policy, load_tokenizer
from psgpo.mutation.composites import LabelledText, Variants, planted_variants, verified_variants
from psgpo.mutation.corpus import Function, functions, restyled, source_folders
from psgpo.mutation.labelled import LabelledProgram, load_programs
from psgpo.mutation.program import UnusableError
from psgpo.prm.data import PrmExample
from psgpo.prm.programs import Encoder, PromptShape, line_examples
from psgpo.prm.record import ScorerRecord
from psgpo.prm.train import train_prm
from psgpo.seeds import derive_seed

PACKAGES = ("networkx", "mpmath", "sympy")
"""Installed with PyTorch and matplotlib; much of their code is small algorithms."""
WORDS = r"\n|[ \t]+(?=[ \t])| ?[^\W\d_]+|_|\d| ?(?:[=!<>+\-*/%&|^]=|\*\*|//|<<|>>)| ?[^\w\s]|\s"
"""First cut of the tokenizer: words, single digits, operators. A newline stays alone."""
SHAPE = PromptShape(template="{prompt}\n", max_tokens=80)
RECORD = ScorerRecord(
    kind="causal", scope="line", target="sign", prompt_template=SHAPE.template, threshold=0.0, max_prompt_tokens=80
)
HELD_OUT, CHOOSING, TWIN = 0.3, 0.12, 0.6


def share(problem_id: str, purpose: str) -> float:
    """A number in [0, 1) that is the same for a problem in every run."""
    digest = hashlib.blake2b(f"{purpose}\x1f{problem_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def shingles(code: str) -> set[tuple[str, ...]]:
    """Runs of four tokens, names replaced by the order in which they come."""
    names: dict[str, str] = {}
    tokens = re.findall(r"\w+|[^\w\s]", code)
    plain = [names.setdefault(t, f"n{len(names)}") if t.isidentifier() else t for t in tokens]
    return {tuple(plain[i : i + 4]) for i in range(len(plain) - 3)}


def split(measured: Sequence[LabelledProgram], more: Sequence[LabelledProgram]) -> dict[str, list[LabelledProgram]]:
    """`train`, `choose`, `test` by problem, and `twins`: what is left out because it is nearly a held-out program."""
    test = {p.problem_id for p in measured if share(p.problem_id, "prm-mutants-test") < HELD_OUT}
    programs = [*measured, *more]
    references = {p.problem_id: shingles(p.code) for p in programs if p.family == "reference"}
    twins = set()
    for problem, runs in references.items():
        for other in test:
            theirs = references[other]
            if problem not in test and len(runs & theirs) >= TWIN * max(1, min(len(runs), len(theirs))):
                twins.add(problem)
    parts: dict[str, list[LabelledProgram]] = {"train": [], "choose": [], "test": [], "twins": []}
    for program in programs:
        problem = program.problem_id
        chooses = share(problem, "prm-mutants-choose") < CHOOSING
        part = "test" if problem in test else "twins" if problem in twins else "choose" if chooses else "train"
        parts[part].append(program)
    return parts


def make_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE inside words; every string round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=["<pad>", "<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def planted(corpus: Sequence[Function], encoder: Encoder, seed: int) -> Callable[[int], list[PrmExample]]:
    """Half of the corpus every epoch, with new changes each time."""

    def examples(epoch: int) -> list[PrmExample]:
        rng = random.Random(derive_seed(seed, "planted", epoch))
        half = [f for i, f in enumerate(corpus) if i % 2 == epoch % 2]
        return line_examples(encoder, [planted_text(f, rng) for f in half])

    return examples


def planted_text(function: Function, rng: random.Random) -> LabelledText:
    """One function with some lines changed by the catalogue."""
    code = restyled(function.code, rng)
    try:
        variants = planted_variants(
            function.name, function.words, code, bugs_per_line=2, rewrites_per_line=2, seed=rng.randrange(2**32)
        )
    except UnusableError:
        lines = tuple(code.split("\n"))
        return LabelledText(problem_id=function.name, prompt=function.words, code=code, labels=(1,) * len(lines))
    return variants.composite(rng, bug=0.25, rewrite=0.2, ending=0.35)


def verified(all_variants: Sequence[Variants], encoder: Encoder, copies: int, seed: int) -> Callable[[int], Any]:
    """Every problem `copies` times every epoch: half exact mutants, half composites."""

    def examples(epoch: int) -> list[PrmExample]:
        rng = random.Random(derive_seed(seed, "verified", epoch))
        texts = [
            variants.exact(rng) if rng.random() < 0.5 else variants.composite(rng, bug=0.25, rewrite=0.2, ending=0.3)
            for variants in all_variants
            for _ in range(copies)
        ]
        return line_examples(encoder, texts)

    return examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--measured", type=Path, required=True, help="folder of psgpo mutate; its problems are measured"
    )
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders to train on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--planted-epochs", type=int, default=5, help="each half of the corpus")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--copies", type=int, default=8, help="examples per problem and epoch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = split(
        load_programs(args.measured / "programs.jsonl"),
        [p for f in args.more for p in load_programs(f / "programs.jsonl")],
    )
    for name, programs in parts.items():
        print(f"{name}: {len({p.problem_id for p in programs})} problems, {len(programs)} programs", flush=True)
    corpus = functions(source_folders(PACKAGES))
    random.Random(args.seed).shuffle(corpus)
    print(f"corpus: {len(corpus)} functions, {sum(f.code.count(chr(10)) + 1 for f in corpus)} lines", flush=True)
    start = args.out / "start"
    if not (start / "config.json").is_file():
        texts = [f.words + "\n" + restyled(f.code, random.Random(i)) for i, f in enumerate(corpus)]
        texts += [p.prompt + "\n" + p.code for p in parts["train"] if p.family == "reference"] * 4
        tokenizer = make_tokenizer(texts, 4096)
        create_policy(
            tokenizer,
            seed=args.seed,
            hidden_size=args.hidden,
            intermediate_size=8 * args.hidden // 3 // 32 * 32,
            num_hidden_layers=args.layers,
            num_attention_heads=args.hidden // 32,
            num_key_value_heads=args.hidden // 32,
        ).save_pretrained(start)
        tokenizer.save_pretrained(start)
    encoder = Encoder(load_tokenizer(start), SHAPE)
    choosing = line_examples(
        encoder, [v.exact(random.Random(i)) for i in range(12) for v in verified_variants(parts["choose"])]
    )
    settings = PrmSettings(
        target="sign",
        epochs=args.planted_epochs,
        batch_size=32,
        learning_rate=2e-3,
        class_weights="balanced",
        optimizer="muon",
        muon_learning_rate=0.01,
        weight_decay=0.05,
    )
    if not (args.out / "planted" / "model").is_dir():
        rng = random.Random(0)
        some = line_examples(encoder, [planted_text(f, rng) for f in corpus[:600]])
        train_prm(
            start,
            planted(corpus[600:], encoder, args.seed),
            [*some, *choosing],
            settings,
            args.out / "planted",
            record=RECORD,
            seed=args.seed,
            progress=said("planted"),
        )
    if not (args.out / "verified" / "model").is_dir():
        chosen = settings.model_copy(update={"epochs": args.epochs, "learning_rate": 1e-3, "muon_learning_rate": 0.005})
        train_prm(
            args.out / "planted" / "model",
            verified(verified_variants(parts["train"]), encoder, args.copies, args.seed),
            choosing,
            chosen,
            args.out / "verified",
            record=RECORD,
            seed=args.seed,
            progress=said("verified"),
        )


def said(name: str) -> Callable[[int, int], None]:
    """Progress in a file that is read by people."""

    def say(done: int, total: int) -> None:
        if done % 50 == 0:
            print(f"{name}: {done} of {total} steps", flush=True)

    return say


if __name__ == "__main__":
    main()
