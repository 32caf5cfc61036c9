"""Programs for "add 3 to each; reverse; running sums" whose exact labels are known by hand."""

from __future__ import annotations

RIGHT = """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
        t += v
        out.append(t)
    x = out
    return x
"""

# (text, m*, progress in thirds per line); problem THREE: add 3 to each; reverse; running sums.
CASES = {
    "wrong third operation: sum added after appending": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
        out.append(t)
        t += v
    x = out
    return x
""",
        6,
        "0122222222",
    ),
    "wrong constant inside a loop": (
        """def solve(x):
    out = []
    for v in x:
        out.append(v + 2)
    x = out
    x = x[::-1]
    return x
""",
        3,
        "0000000",
    ),
    "dead segment at the end, never assigned": (
        """def solve(x):
    x = [v + 3 for v in x]
    out = []
    for v in x:
        out = out + [v]
    return x
""",
        4,
        "011111",
    ),
    "dead segment, then the operation done right": (
        """def solve(x):
    x = [v + 3 for v in x]
    out = []
    for v in x:
        out = out + [v]
    x = x[::-1]
    x = sum(x)
    return x
""",
        6,
        "01111222",
    ),
    "no-ops and comments change nothing": (
        """def solve(x):
    # first
    pass
    x = [v + 3 for v in x]
    x = x

    # now reverse it
    x = x[::-1]
    pass
    x = sum(x)
    return x
""",
        9,
        "00011112222",
    ),
    "a comment in the middle of an operation": (
        """def solve(x):
    out = []
    # next step
    for v in x:
        # add
        out.append(v + 3)
    # assign
    x = [3]
    return x
""",
        7,
        "000000000",
    ),
    "a no-op in the middle of an operation": (
        """def solve(x):
    out = []
    pass
    for v in x:
        out.append(v + 3)
        pass
    return x
""",
        6,
        "0000000",
    ),
    "a no-op where a block should begin": (
        """def solve(x):
    out = []
    for v in x:
    pass
        out.append(v + 3)
    x = out
    return x
""",
        3,
        "0000000",
    ),
    "syntax error": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1
    return x
""",
        2,
        "0111",
    ),
    "endless loop that counting stops": (
        """def solve(x):
    x = [v + 3 for v in x]
    while True:
        x = x
    return x
""",
        2,
        "01111",
    ),
    "endless loop on one line, and endless work in an expression": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    while True: pass
    return x
""",
        3,
        "01222",
    ),
    "work without end inside an expression": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = [v for v in iter(int, 1)]
    x = x[::-1]
    return x
""",
        2,
        "01111",
    ),
    "break outside a loop does not compile": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    break
    return x
""",
        3,
        "01222",
    ),
    "early return": (
        """def solve(x):
    x = [v + 3 for v in x]
    return x
    x = x[::-1]
""",
        2,
        "0111",
    ),
    "return on some inputs only": (
        """def solve(x):
    x = [v + 3 for v in x]
    if len(x) > 3:
        return x
    x = x[::-1]
    return x
""",
        2,
        "011111",
    ),
    "cut off in the middle of a right line": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[:""",
        3,
        "011",
    ),
    "cut off in the middle of a wrong line": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = sor""",
        2,
        "011",
    ),
    "cut off inside a loop": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 0
    out = []
    for v in x:
""",
        6,
        "012222",
    ),
    "the return is missing": (
        """def solve(x):
    out = []
    for v in x:
        out.append(v + 3)
    x = out
    x.reverse()
    x = [sum(x[:i + 1]) for i in range(len(x))]
""",
        7,
        "0000123",
    ),
    "other words for an unfinished operation, shown by running": (
        """def solve(x):
    x = [v + 3 for v in x]
    x = x[::-1]
    t = 1 - 1
    out = list()
    for w in x:
        t += w
    return x
""",
        7,
        "01222222",
    ),
    "another header": ("def solve(y):\n    return y\n", 0, "00"),
    "an exception": ("def solve(x):\n    x = [v + 3 for v in x]\n    x = x[::-1] + y\n    return x\n", 2, "0111"),
    "a state of another type": (
        "def solve(x):\n    x = [v + 3 for v in x]\n    x = reversed(x)\n    return x\n",
        2,
        "0111",
    ),
    "code after the function spoils the result": (
        RIGHT + "solve = None\n",
        10,
        "01222222333",
    ),
    "garbage after the return": (RIGHT + ")\n", 10, "01222222333"),
}
