"""Hashed features of a line in its place, for linear models.

n-grams of the line in several disguises, so that what is learned of one name holds for others:

    text      its tokens
    place     each name by how many lines ago it was seen, whether once, and whether the task has the word
    shape     each name by its number in the line
    role      each name by how it came up (`psgpo.prm.above`)
    last      each name by what stood around it the last time
    link      each name by its number in the line above, in the block's header and among the parameters

and how the line goes with the task (its words, the types of its tests), with the lines above (names not used yet,
repeated runs of tokens and shapes), and with the indentation.
"""

# F features of one line

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from psgpo.prm.above import KNOWN, Above, indent_of, is_name, is_quoted, is_variable, numbered, shape, tokens_of

BUCKETS = 2**20
_MIX, _END = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd constants: multiplying by them, modulo 2^64, is one-to-one."""
_SHIFT = np.uint64(40)
Hashes = NDArray[np.uint64]


def features(problem: str, lines: Sequence[str]) -> NDArray[np.int64]:
    """Buckets of a prefix; one may come twice. Shape: (F,).

    Args:
        lines: of the prefix, the last one being judged.
    """
    return line_features(Above(problem, lines[:-1]), tokens_of(lines[-1]), indent_of(lines[-1]))


def line_features(above: Above, tokens: Sequence[str], indent: int) -> NDArray[np.int64]:
    """`features` of a line that is given as its tokens and its indentation in characters."""
    first = tokens[0] if tokens else ""
    header = above.header(indent)
    places, roles, lasts = _disguised(above, tokens)
    shapes, links = shape(tokens), _links(above, header, tokens)
    both = [place + mark if mark.startswith("v") else place for place, mark in zip(places, shapes, strict=True)]
    hashed: list[Hashes] = []
    for tag, sequence, shortest, longest in (
        ("text", tokens, 1, 4),
        ("place", places, 1, 3),
        ("shape", shapes, 1, 6),
        ("place+shape", both, 2, 4),
        ("role", roles, 1, 4),
        ("last", lasts, 2, 3),
        ("link", links, 1, 4),
    ):
        hashed += _ngrams(tag, sequence, shortest, longest)
    telling = [t for t in dict.fromkeys(tokens) if t in KNOWN or not (is_name(t) or is_quoted(t))]
    hashed.append(_crossed("word", sorted(above.task.words), telling))
    hashed.append(_crossed("above", map(above.role_of, above.previous), [first]))
    single = [
        *_of_task(above, tokens, roles, indent),
        *_of_place(above, tokens, links, header, indent),
        *_of_names(above, tokens),
        *_of_repeats(above, tokens, shapes),
        f"shape {' '.join(shapes)}",
        f"role {' '.join(roles)}",
        f"link {' '.join(links)}",
        f"length {min(20, len(tokens))}",
        f"repeated {len(tokens) - len(set(tokens))}",
    ]
    hashed.append(_hashes(single) * _END)
    return ((np.concatenate(hashed) >> _SHIFT) % np.uint64(BUCKETS)).astype(np.int64)


# --- disguises


def _disguised(above: Above, tokens: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """(places, roles, lasts)"""
    places, roles, lasts = [], [], []
    for token in tokens:
        if is_name(token):
            rows = above.seen.get(token)
            ago = "new" if rows is None else f"{min(3, len(above.rows) - rows[-1])}{'once' if len(rows) == 1 else ''}"
            known = token if token in KNOWN else ""
            places.append(f"{known or 'I'}{ago}{'q' if token.lower() in above.task.words else ''}")
            roles.append(known or above.role.get(token, "?"))
            lasts.append(known or above.last.get(token, "?"))
            continue
        plain = token
        if is_quoted(token):
            asked = len(token) > 2 and token[1:-1] in above.task.text
            plain = f"S{'e' if len(token) == 2 else ''}{'q' if asked else ''}"
        elif token.isdigit() and token not in "012":
            plain = f"D{'q' if token in above.task.words else ''}"
        places.append(plain)
        roles.append(plain)
        lasts.append(plain)
    return places, roles, lasts


def _links(above: Above, header: Sequence[str], tokens: Iterable[str]) -> list[str]:
    where = (("h", numbered(header)), ("p", numbered(above.previous)), ("d", above.parameters))
    links = []
    for token in tokens:
        if is_variable(token):
            link = "".join(f"{tag}{numbers[token]}" for tag, numbers in where if token in numbers)
            links.append(link or ("i" if token in above.seen else "n"))
        else:
            links.append(token)
    return links


# --- how the line goes with what is around it


def _of_task(above: Above, tokens: Sequence[str], roles: Sequence[str], indent: int) -> list[str]:
    first, result = tokens[0] if tokens else "", above.task.result_type
    found = [f"number {'asked ' if token in above.task.words else ''}{token}" for token in tokens if token.isdigit()]
    if first == "return":
        what = roles[1] if len(roles) > 1 else "$"
        found += [f"returns {result} {' '.join(roles)}", f"returns {result} {what}"]
        found += [f"returns {result} {' '.join(roles[1:3])}", f"returns at {indent // 4} {what}"]
    else:
        found.append(f"gives {result} {first}")
    if first == "def":
        found.append(f"parameters {len(above.task.argument_types)} {tokens.count(',')}")
    return found


def _of_place(
    above: Above, tokens: Sequence[str], links: Sequence[str], header: Sequence[str], indent: int
) -> list[str]:
    first, number = tokens[0] if tokens else "", min(12, len(above.rows))
    found = [f"line {number}", f"line {number} {first}"]
    if above.previous:
        step = int(np.sign(indent - above.indents[-1]))
        found += [f"after {above.previous[0]} {first} {step}", f"after {above.previous[-1]} {step}", f"{step} {first}"]
    if header:
        kind = " ".join(token if not is_variable(token) else "I" for token in header[:3])
        found += [f"inside {kind} {' '.join(links)}", f"inside {kind} {first}"]
    if first in ("if", "elif", "while", "return"):
        found.append(f"brackets {above.brackets} {len(tokens) > 1 and tokens[1] == '('}")
    return found


def _of_names(above: Above, tokens: Sequence[str]) -> list[str]:
    first, held = tokens[0] if tokens else "", frozenset(tokens)
    unused = [name for name in above.variables if len(above.seen[name]) == 1 and name not in held]
    fresh = sum(above.seen[name][0] == len(above.rows) - 1 for name in unused)
    found = [f"unused {min(4, len(unused))} {first}", f"fresh {min(4, fresh)} {first}"]
    found += [f"unused {above.role[name]} {first}" for name in unused]
    for name in numbered(tokens):
        found.append(f"times {min(4, tokens.count(name))}")
        stem, _, ending = name.rpartition("_")
        if stem:
            found.append(f"ending {ending} {name in above.seen} {stem in above.seen}")
        elif name not in above.seen:
            found.append(f"new {name[-3:]}")
    return found


def _of_repeats(above: Above, tokens: Sequence[str], shapes: Sequence[str]) -> list[str]:
    spaces, first = max(1, len(tokens) - 1), tokens[0] if tokens else ""
    pairs = 6 * sum(pair in above.pairs for pair in pairwise(tokens)) // spaces
    triples = 6 * sum(run in above.triples for run in zip(tokens, tokens[1:], tokens[2:], strict=False)) // spaces
    return [
        f"pairs {pairs}",
        f"pairs {pairs} {first}",
        f"triples {triples}",
        f"again {tuple(tokens) in above.whole_lines}",
        f"shape again {' '.join(shapes) in above.shapes}",
    ]


# --- hashing


@lru_cache(maxsize=2**19)
def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def _hashes(texts: Iterable[str]) -> Hashes:
    return np.array([_hash(text) for text in texts], dtype=np.uint64)


def _ngrams(tag: str, sequence: Sequence[str], shortest: int, longest: int) -> list[Hashes]:
    single = _hashes([f"{tag} ^", *(f"{tag} {token}" for token in sequence), f"{tag} $"])
    made, run = [], single
    for n in range(1, min(longest, len(single)) + 1):
        if n > 1:
            run = run[:-1] * _MIX + single[n - 1 :]
        if n >= shortest:
            made.append(run * _END)
    return made


def _crossed(tag: str, left: Iterable[str], right: Sequence[str]) -> Hashes:
    """One feature per pair."""
    first = _hashes(f"{tag} {text}" for text in left)
    second = _hashes(f"{tag}| {text}" for text in right)
    pairs: Hashes = (first[:, None] * _MIX + second[None, :]).ravel() * _END
    return pairs
