"""From a problem to the prompt of a model, and from the model's answer to the program that is graded.

Text that is a program stays as it is; only prose around fenced blocks is taken off. Nothing here parses or runs what a
model wrote: hostile text costs a scan. A single block is the one that `psgpo.lines` finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from psgpo.lines import CodeLine, code_lines, code_span, goes_on_inside
from psgpo.records import AssertTests, CallTests, Problem, StdioTests

_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)([^\n]*)", re.MULTILINE)
_TRIPLE_QUOTE = re.compile(r"\"\"\"|'''")
_INDENTED = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]+[^\s#]")
"""The first line that is neither empty nor a comment is indented: the text continues a function."""
_PYTHON_TAGS = frozenset({"python", "py", "python3"})
_BLANK = re.compile(r"[ \t\f]*(?:#[^\n]*)?(?:\n|\r\n)")
_DOCSTRING = re.compile(r"[rRuU]?(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"[^\"\n]*\"|'[^'\n]*')[ \t;]*\r?\n")
_FUTURE = re.compile(r"from[ \t]+__future__[ \t]+import[ \t]*(?:\([^)]*\)|[^\n(;#]*)[^\n]*(?:\n|\Z)")
_NEW_TOP_LEVEL = re.compile(r"\n(?=class\b|def\b|async def\b|@|#|if\b|print\b|assert\b|import\b|from\b|```)")
_WHOLE_PROGRAM = re.compile(r"\s*(?:class\b|def\b|async def\b|@|import\b|from\b|```|~~~)")
"""How no line inside a function begins, or hardly any."""
_FIRST_INDENTED = re.compile(r"^[ \t]+\S", re.MULTILINE)


def program_of(problem: Problem, *, completion: str | None = None, solution: str | None = None) -> str:
    """The whole program that is graded.

    Args:
        completion: continues the problem's starter code. One that holds the whole function again is a program too.
        solution: a whole program. The imports and helpers of the prompt are put before it.

    Either may hold prose around fenced blocks; then the last block that defines the entry point counts. Where none
    does, it is the last block marked as Python, the last without a mark, the last.

    Raises:
        ValueError: not exactly one of the two is given.
    """
    code = answered_code(problem, completion=completion, solution=solution)
    if solution is not None or not continues(problem, code):
        return _whole(problem, code)
    joined = problem.starter_code + code
    return joined if _prompt_is_code(problem) else _whole(problem, joined)


def answered_code(problem: Problem, *, completion: str | None = None, solution: str | None = None) -> str:
    """The part of an answer that `program_of` makes the program of; see there."""
    if (completion is None) == (solution is None):
        raise ValueError("give either a completion or a solution")
    name = entry_name(problem)
    if solution is not None:
        return _unwrapped(solution, name)
    assert completion is not None
    return _unwrapped(_cut_at_closing_fence(completion), name)


def end_of_function(text: str) -> str:
    """The text up to where new top-level code begins after the first indented line; fenced text stays whole."""
    body = _FIRST_INDENTED.search(text)
    if text.lstrip().startswith("```") or body is None:
        return text
    end = _NEW_TOP_LEVEL.search(text, body.end())
    return text if end is None else text[: end.start() + 1]


def end_of_answer(problem: Problem, text: str, *, talks: bool = False) -> int | None:
    """Where a response that goes on inside the problem's starter code is over: behind the function, in characters.

    None while it may go on, and for whole programs, which may define the function after others. More text behind `text`
    does not move an end that is there.

    Args:
        talks: a response may begin with prose, so that only indentation shows that it goes on inside.
    """
    lead = problem.starter_code.rpartition("\n")[2]
    if not problem.starter_code:
        return None
    if lead.strip() or talks or _WHOLE_PROGRAM.match(text):
        lead = ""  # else the response begins behind indentation that the starter code has
    code = lead + text
    if not goes_on_inside(code):
        return None
    kept = end_of_function(code)
    # A letter more, and `print` is no `print` any more: the word that begins the next line may go on.
    over = len(kept) < len(code) and end_of_function(code + "x") == kept
    return len(kept) - len(lead) if over else None


def judged_program(problem: Problem, code: str) -> str:
    """The program that is judged for the code in a policy's response, which is the code itself where the problem adds
    nothing.

    Code that continues the problem's starter code is judged behind it, up to the end of the function; a whole program
    behind the preamble.
    """
    if not problem.starter_code and not problem.preamble and "." not in (getattr(problem.tests, "function", "")):
        return code
    if continues(problem, code):
        return program_of(problem, completion=end_of_function(code))
    return program_of(problem, solution=code)


def judged_lines(problem: Problem, text: str) -> tuple[CodeLine, ...]:
    """The code lines of a policy's response that `judged_program` judges: those up to the function's end, where the
    response continues the starter code; else all of `psgpo.lines.code_lines`. What is not judged earns no reward."""
    lines = code_lines(text)
    if not problem.starter_code:
        return lines
    start, end = code_span(text)
    code = text[start:end]
    if not continues(problem, code):
        return lines
    kept = start + len(end_of_function(code))
    return tuple(line for line in lines if line.start < kept)


def continues(problem: Problem, code: str) -> bool:
    """Whether code goes on where the problem's starter code ends; else it is a whole program."""
    whole = _defines(code, entry_name(problem)) and not _INDENTED.match(code)
    return bool(problem.starter_code) and not whole


def completion_prompt(problem: Problem) -> str:
    """What a base model continues: the starter code, after the task as a docstring where the code does not say it."""
    if _prompt_is_code(problem):
        return problem.starter_code
    return _docstring(plain_prompt(problem)) + problem.starter_code


def chat_prompt(problem: Problem) -> str:
    """What a chat model is asked. Its answer goes to `program_of` as a solution."""
    task, starter = problem.prompt.strip(), problem.starter_code.rstrip()
    if _prompt_is_code(problem):
        task = f"Complete this Python code; repeat what is given.\n\n```python\n{starter}\n```"
    elif starter:
        task += f"\n\nStart from this code:\n\n```python\n{starter}\n```"
    elif isinstance(problem.tests, StdioTests):
        task += "\n\nWrite a Python program that reads its input from standard input and prints the answer."
    return f"{task}\n\nAnswer with one block of Python code that holds the whole program.\n"


def plain_prompt(problem: Problem) -> str:
    """The task in its own words, without a frame. MBPP's are followed by the tests, which name the function."""
    text = problem.metadata.get("text")
    if isinstance(text, str) and isinstance(problem.tests, AssertTests):
        return "\n".join([text.strip(), *problem.tests.checks])
    return problem.prompt


def entry_name(problem: Problem) -> str | None:
    """The top-level name that a program must define; None for programs that read standard input."""
    if isinstance(problem.tests, CallTests):
        return problem.tests.function.split(".")[0]
    return problem.tests.entry_point if isinstance(problem.tests, AssertTests) else None


def _prompt_is_code(problem: Problem) -> bool:
    """Then the starter code is all there is, imports and helpers included."""
    return bool(problem.starter_code) and problem.starter_code == problem.prompt


def _docstring(text: str) -> str:
    quoted = text.strip().replace("\\", "\\\\").replace('"""', "'''")
    return f'"""\n{quoted}\n"""\n'


def _whole(problem: Problem, code: str) -> str:
    """The preamble, after the program's own future imports, then the program."""
    code = _with_class(problem, code)
    if not problem.preamble:
        return code
    start = _end_of_future_imports(code) if "__future__" in code else 0
    head, preamble = code[:start], problem.preamble
    if head and not head.endswith("\n"):
        head += "\n"
    return head + preamble + ("" if preamble.endswith("\n") else "\n") + code[start:]


def _end_of_future_imports(code: str) -> int:
    """Offset after the last future import at the head of a program; 0 when there is none."""
    position = end = 0
    docstring_allowed = True
    while True:
        if match := _BLANK.match(code, position):
            pass
        elif docstring_allowed and (match := _DOCSTRING.match(code, position)):
            docstring_allowed = False
        elif match := _FUTURE.match(code, position):
            end, docstring_allowed = match.end(), False
        else:
            return end
        position = match.end()


def _with_class(problem: Problem, code: str) -> str:
    """A bare function where the tests call a method of `Solution` is put into that class."""
    if not isinstance(problem.tests, CallTests) or "." not in problem.tests.function:
        return code
    owner, method = problem.tests.function.split(".", 1)
    if _defines(code, owner) or not _defines(code, method):
        return code
    return f"{code}\n\nclass {owner}:\n    {method} = staticmethod({method})\n"


@lru_cache(maxsize=4096)
def _definition(name: str) -> re.Pattern[str]:
    word = re.escape(name)
    return re.compile(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|^{word}[ \t]*(?::[^=\n]*)?=(?!=)", re.MULTILINE)


def _defines(code: str, name: str | None) -> bool:
    """Whether a line at the margin defines or assigns the name."""
    return name is not None and _definition(name).search(code) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    code: str
    tag: str


def _unwrapped(text: str, name: str | None) -> str:
    first = _FENCE.search(text)
    if first is None or _inside_string(text, first.start()):
        return text
    blocks = [block for block in _blocks(text) if block.code.strip()]
    if not blocks:
        return text
    return max(enumerate(blocks), key=lambda item: (*_preference(item[1], name), item[0]))[1].code


def _preference(block: _Block, name: str | None) -> tuple[bool, bool, bool]:
    return _defines(block.code, name), block.tag in _PYTHON_TAGS, not block.tag


def _inside_string(text: str, offset: int) -> bool:
    """Whether an odd number of triple quotes stands before: a fence in a docstring belongs to the program."""
    return sum(1 for _ in _TRIPLE_QUOTE.finditer(text, 0, offset)) % 2 == 1


def _blocks(text: str) -> list[_Block]:
    """The fenced blocks in order, by the rules of `psgpo.lines.code_span`; one that is never closed runs to the end."""
    blocks: list[_Block] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence.group(2)[0] == opening.group(2)[0] and not fence.group(3).strip().strip(fence.group(2)[0]):
            blocks.append(_block(text, opening, fence.start()))
            opening = None
    return blocks if opening is None else [*blocks, _block(text, opening, len(text))]


def _block(text: str, opening: re.Match[str], end: int) -> _Block:
    code = text[min(opening.end() + 1, end) : end]
    words = opening.group(3).lower().split()
    return _Block(code=_unindented(code, len(opening.group(1))), tag=words[0] if words else "")


def _unindented(code: str, indent: int) -> str:
    """Take off the indentation that the fence itself has (a block in a list), no more."""
    return re.sub(rf"^[ ]{{1,{indent}}}", "", code, flags=re.MULTILINE) if indent else code


def _cut_at_closing_fence(completion: str) -> str:
    """A completion that goes on inside the prompt's own block ends at the fence that closes it."""
    fence = _FENCE.search(completion)
    if (
        fence is None
        or fence.group(3).strip()
        or not _INDENTED.match(completion)
        or _inside_string(completion, fence.start())
    ):
        return completion
    return completion[: fence.start()]
