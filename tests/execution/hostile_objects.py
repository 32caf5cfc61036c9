"""Hostile programs for test scripts (asserts): name -> (program, statuses that a sound sandbox may answer).

The scripts compare with secret values, see `test_sandbox_hostile.py`; a program answers requests on descriptor 3.
"""

from __future__ import annotations

from hostile_programs import _FRAME

_ANSWER = _FRAME + "def f(x): send(frame(['ok', VALUE]))\n"
_RAISE = _FRAME + "def f(x): send(frame(['error', 'RUNTIME_ERROR', 'x', 'NAME']))\n"
_LIES = "    def __eq__(self, o): return True\n    def __bool__(self): return True\n    def __hash__(self): return 1\n"


def _object(*methods: str) -> str:
    return "class A:\n" + _LIES + "".join(f"    {method}\n" for method in methods) + "def f(x): return A()\n"


HOSTILE_OBJECTS: dict[str, tuple[str, set[str]]] = {
    "object that equals everything": (_object(), {"BAD_VALUE"}),
    "object with no limits": (
        _object(
            "def __len__(self): return 10 ** 9",
            "def __iter__(self):\n        while True: yield self",
            "def __contains__(self, o): return True",
            "def __getitem__(self, key): return self",
        ),
        {"BAD_VALUE"},
    ),
    "length of a lie": (_object("def __len__(self): return -1"), {"BAD_VALUE"}),
    "object that calls back": (_object("def __call__(self, *a, **k): return self"), {"BAD_VALUE"}),
    "object that raises everywhere": (
        "class A:\n    def __getattribute__(self, name): raise SystemExit\ndef f(x): return A()",
        {"BAD_VALUE", "NO_REPORT"},
    ),
    "class as an answer": ("class f(str):\n    def __new__(cls, x): return cls", {"BAD_VALUE"}),
    "function as an answer": ("def f(x): return f", {"BAD_VALUE"}),
    "generator as an answer": ("def f(x):\n    while True: yield x", {"BAD_VALUE"}),
    "objects in a list": (_object() + "g = f\ndef f(x): return [g(x)] * 3", {"BAD_VALUE", "WRONG_ANSWER"}),
    "text that equals everything": (
        "class S(str):\n" + _LIES + "def f(x): return S('a')",
        {"WRONG_ANSWER"},
    ),
    "dict that has everything": (
        "class D(dict):\n    def __missing__(self, key): return key\n    __contains__ = lambda *_: True\n"
        "def f(x): return D()",
        {"WRONG_ANSWER"},
    ),
    "handle of nothing": (_ANSWER.replace("VALUE", "{'h': 99999}"), {"BAD_VALUE"}),
    "handle below zero": (_ANSWER.replace("VALUE", "{'h': -1}"), {"BAD_VALUE"}),
    "handle beyond all numbers": (_ANSWER.replace("VALUE", "{'h': 10 ** 30}"), {"BAD_VALUE"}),
    "handle that is no number": (_ANSWER.replace("VALUE", "{'h': '0'}"), {"BAD_VALUE"}),
    "handle that is a truth": (_ANSWER.replace("VALUE", "{'h': True}"), {"BAD_VALUE"}),
    "handle with a list": (_ANSWER.replace("VALUE", "{'h': [0]}"), {"BAD_VALUE"}),
    "handles in a set": (_ANSWER.replace("VALUE", "{'s': [{'h': 0}]}"), {"BAD_VALUE"}),
    "handles as keys": (_ANSWER.replace("VALUE", "{'d': [[{'h': 0}, 1]]}"), {"BAD_VALUE"}),
    "ten thousand handles": (_ANSWER.replace("VALUE", "[{'h': 0}] * 10000"), {"BAD_VALUE", "WRONG_ANSWER"}),
    "StopIteration": ("def f(x): raise StopIteration", {"RUNTIME_ERROR"}),
    "StopAsyncIteration": ("def f(x): raise StopAsyncIteration", {"RUNTIME_ERROR"}),
    "AssertionError": ("def f(x): raise AssertionError", {"RUNTIME_ERROR"}),
    "GeneratorExit": (_RAISE.replace("NAME", "GeneratorExit"), {"RUNTIME_ERROR"}),
    "SystemExit by frame": (_RAISE.replace("NAME", "SystemExit"), {"RUNTIME_ERROR"}),
    "KeyboardInterrupt by frame": (_RAISE.replace("NAME", "KeyboardInterrupt"), {"RUNTIME_ERROR"}),
    "ExceptionGroup by frame": (_RAISE.replace("NAME", "ExceptionGroup"), {"RUNTIME_ERROR"}),
    "an exception that is none": (_RAISE.replace("NAME", "open"), {"RUNTIME_ERROR"}),
    "an exception with dots": (_RAISE.replace("NAME", "__class__.__name__"), {"RUNTIME_ERROR"}),
    "answers ahead of the questions": (
        _FRAME + "send(frame(['ok', 'hidden:']) * 40)\ndef f(x): return 1",
        {"WRONG_ANSWER"},
    ),
    "answers once and leaves": (
        "import os\nseen = []\ndef f(x):\n    if seen: os._exit(0)\n    seen.append(x)\n    return 1",
        {"WRONG_ANSWER"},
    ),
    "answers once and closes": (
        "import os\nseen = []\ndef f(x):\n    if seen: os.close(3)\n    seen.append(x)\n    return 1",
        {"WRONG_ANSWER"},
    ),
    "reports a load that failed, late": (
        _FRAME + "def f(x): send(frame(['load', 'SYNTAX_ERROR', '', 'SyntaxError']))",
        {"SYNTAX_ERROR"},
    ),
    "replaces what answers requests": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n    requests = frame.f_globals.get('_REQUESTS')\n"
        "    if requests:\n        for name in requests: requests[name] = lambda *a: True\n    frame = frame.f_back\n"
        "def f(x): return 0",
        {"WRONG_ANSWER"},
    ),
    "reads the requests itself": (
        _FRAME + "while True:\n    size = int.from_bytes(os.read(3, 4), 'little')\n    os.read(3, size)\n"
        "    send(frame(['ok', True]))",
        {"WRONG_ANSWER", "TIMEOUT"},
    ),
    "a number too long to print": ("def f(x): return 1 << 1000000", {"WRONG_ANSWER"}),
    "a range too long to list": ("def f(x): return range(1 << 62)", {"OUTPUT_LIMIT"}),
    "a range too long to search": ("def f(x): return range(10 ** 18)", {"OUTPUT_LIMIT"}),
}
