"""Small hostile programs: name -> (program, statuses that a sound sandbox may answer). Tests expect secret values."""

from __future__ import annotations

_FRAME = """
import os, json
def frame(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return len(data).to_bytes(4, "little") + data
def send(data):
    while data: data = data[os.write(3, data):]
"""

HOSTILE: dict[str, tuple[str, set[str]]] = {
    "lying __eq__": (
        "class A:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return A()",
        {"BAD_VALUE"},
    ),
    "int subclass": (
        "class I(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return I(3)",
        {"WRONG_ANSWER"},
    ),
    "subclass inside": (
        "class S(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\n"
        "def f(x): return [{S('a'): 1}]",
        {"WRONG_ANSWER"},
    ),
    "exit before the tests": ("import os\nos._exit(0)", {"NO_REPORT"}),
    "exit in a test": ("def f(x): raise SystemExit(0)", {"NO_REPORT"}),
    "exec": ("import os\ndef f(x): os.execv('/bin/true', ['true'])", {"RUNTIME_ERROR", "NO_REPORT"}),
    "closed channel": (
        "import os, time\ndef f(x):\n    os.close(3)\n    while True: time.sleep(1)",
        {"NO_REPORT"},
    ),
    "claims PASSED": (_FRAME + "def f(x):\n    send(frame(['error', 'PASSED', '']) * 9)\n    return 1", {"BAD_VALUE"}),
    "claims an unknown status": (_FRAME + "def f(x):\n    send(frame(['error', 'FINE', '']))", {"BAD_VALUE"}),
    "garbage frame": (_FRAME + "def f(x):\n    send(frame(b'\\xff\\xfe{'))", {"BAD_VALUE"}),
    "deep JSON": (_FRAME + "def f(x):\n    send(frame(b'[\"ok\",' + b'[' * 100000 + b']' * 100001))", {"BAD_VALUE"}),
    "announces 4 GiB": ("import os\ndef f(x):\n    os.write(3, b'\\xff\\xff\\xff\\xff')", {"OUTPUT_LIMIT"}),
    "floods the channel": (_FRAME + "def f(x):\n    while True: send(frame(['ok', 'a' * 100000]))", {"WRONG_ANSWER"}),
    "drips into the channel": (
        "import os, time\ndef f(x):\n    os.write(3, b'\\x00\\x00\\x10\\x00')\n"
        "    while True:\n        os.write(3, b' ')\n        time.sleep(0.01)",
        {"TIMEOUT"},
    ),
    "colliding set": (
        _FRAME + "def f(x):\n    M = (1 << 61) - 1\n"
        "    send(frame(['ok', {'s': [k * M for k in range(40000)]}]))\n    return 1",
        {"OUTPUT_LIMIT", "BAD_VALUE"},
    ),
    "colliding dict of tuples": (
        _FRAME + "def f(x):\n    M = (1 << 61) - 1\n"
        "    send(frame(['ok', {'d': [[{'t': [k * M]}, 0] for k in range(40000)]}]))\n    return 1",
        {"OUTPUT_LIMIT", "BAD_VALUE"},
    ),
    "value that unfolds": (
        "def f(x):\n    a = [1]\n    for _ in range(60): a = [a, a]\n    return a",
        {"OUTPUT_LIMIT"},
    ),
    "cyclic value": ("def f(x):\n    a = []\n    a.append(a)\n    return a", {"BAD_VALUE"}),
    "huge integer": ("def f(x): return 1 << (1 << 24)", {"OUTPUT_LIMIT"}),
    "digits of death": (_FRAME + "def f(x): send(frame(b'[\"ok\",' + b'9' * 1000000 + b']'))", {"BAD_VALUE"}),
    "infinity in disguise": (_FRAME + "def f(x): send(frame(b'[\"ok\",1e999]'))", {"BAD_VALUE"}),
    "NaN": ("def f(x): return float('nan')", {"BAD_VALUE"}),
    "lone surrogate": ("def f(x): return '\\ud800'", {"BAD_VALUE"}),
    "exception that cannot be printed": (
        "class E(Exception):\n    def __str__(self): raise SystemExit(0)\ndef f(x): raise E",
        {"RUNTIME_ERROR"},
    ),
    "fork bomb": ("import os\nwhile True: os.fork()", {"RUNTIME_ERROR"}),
    "daemon": (
        "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)",
        {"RUNTIME_ERROR"},
    ),
    "thread bomb": (
        "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(600,)).start()",
        {"RUNTIME_ERROR", "MEMORY", "TIMEOUT"},
    ),
    "kill everybody": ("import os\ndef f(x): os.kill(-1, 9)", {"RUNTIME_ERROR", "CRASHED"}),
    "stop the parent": ("import os\ndef f(x): os.kill(os.getppid(), 19)", {"RUNTIME_ERROR"}),
    "memory": ("def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 24))", {"MEMORY"}),
    "C loop": ("def f(x): return sum(range(10 ** 13))", {"TIMEOUT"}),
    "sleeps with signals blocked": (
        "import signal, time\n"
        "def f(x):\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n    time.sleep(600)",
        {"TIMEOUT"},
    ),
    "floods stdout": ("import os\ndef f(x):\n    for _ in range(50): os.write(1, b'z' * (1 << 20))", {"WRONG_ANSWER"}),
    "writes to home": ("import os\ndef f(x): open('HOME/owned', 'w').write('x')", {"RUNTIME_ERROR"}),
    "appends to home": ("def f(x): open('HOME/.bashrc', 'a').write('x')", {"RUNTIME_ERROR"}),
    "deletes from home": ("import os\ndef f(x): os.unlink('HOME/.bashrc')", {"RUNTIME_ERROR"}),
    "renames in home": ("import os\ndef f(x): os.rename('HOME/.bashrc', 'HOME/x')", {"RUNTIME_ERROR"}),
    "fills shared memory": ("def f(x): open('/dev/shm/psgpo-leak', 'wb').write(b'q' * 1000)", {"RUNTIME_ERROR"}),
    "reads home": ("def f(x): return open('HOME/.bashrc').read()", {"RUNTIME_ERROR"}),
    "reads the owner's environment": (
        "import os\ndef f(x):\n    for p in os.listdir('/proc'):\n"
        "        if p.isdigit(): return open('/proc/%s/environ' % p).read()",
        {"RUNTIME_ERROR", "WRONG_ANSWER"},
    ),
    "opens a socket": ("import socket\ndef f(x): socket.socket()", {"RUNTIME_ERROR"}),
    "raises its limits": (
        "import resource\ndef f(x):\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        {"RUNTIME_ERROR"},
    ),
    "answers twice": (
        _FRAME + "def f(x):\n    send(frame(['ok', 'sq:%d' % (x * x)]))\n    return 'sq:%d' % (x * x)",
        {"WRONG_ANSWER"},
    ),
}
