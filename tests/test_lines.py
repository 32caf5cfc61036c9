"""Lines: classification of partial programs, and alignment under real byte-level BPEs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from psgpo.lines import TokenText, code_lines, extract_code, line_end_tokens


def neutral(text: str) -> list[bool]:
    return [line.neutral for line in code_lines(text)]


def test_comments_blanks_and_docstrings_are_neutral() -> None:
    text = 'def f(x):\n    """Doc.\n\n    More."""\n    # why\n\n    y = "# no"  # yes\n    return y\n'
    assert neutral(text) == [False, True, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""open docstring\nstill open', [True, True]),
        ('x = """a\nb"""\ny = 1', [False, False, False]),
        ('"""a\nb""".strip()\n', [False, False]),
        ("'bare'\n'bare' + x\nf'{g()}'\n", [True, False, False]),
        ("f(\n'''a\nb''')\n", [False, False, False]),
        ("if x:\n    r'raw'  # note\n", [False, True]),
        ("def f(", [False]),
        ("'never closed\nx = 1", [True, False]),
        ('x = 1\n"""', [False, True]),
        ("# only", [True]),
        ("return g(\n    'abc'\n)\n", [False, False, False]),
        ("x = 'a' \\\n    'b'\n", [False, False]),
    ],
)
def test_partial_programs(text: str, expected: list[bool]) -> None:
    assert neutral(text) == expected


def test_only_newline_ends_a_line() -> None:
    lines = code_lines("x = 1\x0cy\u2028z\r\nw\n")
    assert [line.text for line in lines] == ["x = 1\x0cy\u2028z\r", "w"]


def test_trailing_blank_lines_are_no_lines_and_offsets_cut_the_text() -> None:
    text = "a = 1\n\nb = 2\n\n\n   \n"
    lines = code_lines(text)
    assert [text[line.start : line.end] for line in lines] == ["a = 1\n", "\n", "b = 2\n"]
    assert code_lines("  \n\n") == ()


def test_fenced_code_is_unwrapped_and_prose_is_no_line() -> None:
    text = "Sure:\n```python\nx = 1\n\n# c\n```\nDone `x`.\n```\nother\n```"
    assert extract_code(text) == "x = 1\n\n# c\n"
    assert [text[line.start : line.end] for line in code_lines(text)] == ["x = 1\n", "\n", "# c\n"]
    assert extract_code("```py\nx = 1") == "x = 1"


def byte_level(corpus: list[str], pattern: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `corpus`; without the GPT-2 pattern, merges cross newlines freely."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


CORPUS = 20 * [
    "def f(x):\n    y = [\n        1,\n    ]\n\n    return y\n",
    "# ünïcode λ → 数\n\n\nx = '数λ'\n",
    "if x:\n\n\n    pass\n",
]
TOKENIZERS = [byte_level(CORPUS, True), byte_level(CORPUS, False)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["gpt2-pattern", "merged-newlines"])
@settings(max_examples=150)
@given(text=st.text(alphabet="ab:# \n\n\r\t'\"λ数→é😀", max_size=60))
def test_alignment_every_line_ends_in_the_token_with_its_newline(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    decoded, char_ends = TokenText(tokenizer).decode_with_ends(ids)
    assert decoded == text == tokenizer.decode(ids, skip_special_tokens=True)
    lines = code_lines(text)
    for line, end in zip(lines, line_end_tokens(char_ends, lines), strict=True):
        if not text[line.start : line.end].endswith("\n"):
            assert end == len(ids) - 1
            continue
        before = char_ends[end - 1] if end else 0
        assert before < line.end <= char_ends[end]  # the newline, the line's last character, is in this token
        assert decoded[: char_ends[end]].startswith(text[: line.end])


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["gpt2-pattern", "merged-newlines"])
@settings(max_examples=50)
@given(text=st.text(alphabet="a \nλ😀", max_size=30))
def test_linear_decoding_equals_decoding_every_prefix(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    fast, slow = TokenText(tokenizer), TokenText(tokenizer)
    slow._bytes = None
    assert fast.decode_with_ends(ids) == slow.decode_with_ends(ids)


def test_broken_bytes_keep_text_and_offsets_in_step() -> None:
    tokenizer = TOKENIZERS[0]
    ids = tokenizer("aλ\n")["input_ids"]
    cut = [ids[0], *tokenizer("λ")["input_ids"][:1], *tokenizer("\n")["input_ids"]]
    text, ends = TokenText(tokenizer).decode_with_ends(cut)
    assert ends[-1] == len(text)
    assert ends == sorted(ends)


def test_a_bare_fence_after_a_continued_function_closes_the_prompts_block():
    assert extract_code("    x = 1\n    return x\n```\n\nThat is all.\n") == "    x = 1\n    return x\n"
    assert extract_code("  # first\n\n  return 1\n```") == "  # first\n\n  return 1\n"
    assert extract_code(" Sure!\n```\ndef f():\n    pass\n```\n") == "def f():\n    pass\n"
    assert extract_code("    Here it is:\n```python\npass\n```\n") == "pass\n"
