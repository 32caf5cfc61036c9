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
    "answers before it is asked": (
        _FRAME + "for _ in range(20): send(frame(['ok', 'hidden:']))\ndef f(x): return 'late'",
        {"WRONG_ANSWER"},
    ),
    "a thread answers": (
        _FRAME + "import threading, time\ndef f(x):\n"
        "    threading.Thread(target=send, args=(frame(['ok', 'hidden:']) * 9,)).start()\n    time.sleep(0.1)",
        {"WRONG_ANSWER"},
    ),
    "two values in one frame": (_FRAME + 'def f(x): send(frame(b\'["ok",1],["ok",2]\'))', {"BAD_VALUE"}),
    "empty frame": (_FRAME + "def f(x): send(frame(b''))", {"BAD_VALUE"}),
    "half a frame": (_FRAME + "import os\ndef f(x):\n    send(frame(['ok', 1])[:-2])\n    os._exit(0)", {"NO_REPORT"}),
    "says it is done": (_FRAME + "def f(x): send(frame(['done']))", {"BAD_VALUE"}),
    "says ready again": (_FRAME + "def f(x): send(frame(['ready']))", {"BAD_VALUE"}),
    "a status that is a list": (_FRAME + "def f(x): send(frame(['error', ['PASSED'], {}, {}]))", {"BAD_VALUE"}),
    "claims PASSED at the end": (_FRAME + "def f(x): send(frame(['end', 'PASSED', '', '']))", {"BAD_VALUE"}),
    "blames the grader": (_FRAME + "def f(x): send(frame(['end', 'INFRASTRUCTURE', '', '']))", {"BAD_VALUE"}),
    "claims WRONG_ANSWER": (_FRAME + "def f(x): send(frame(['error', 'WRONG_ANSWER', '', '']))", {"BAD_VALUE"}),
    "two tags": (_FRAME + "def f(x): send(frame(['ok', {'t': [], 's': []}]))", {"BAD_VALUE"}),
    "range without step": (_FRAME + "def f(x): send(frame(['ok', {'r': [0, 9, 0]}]))", {"BAD_VALUE"}),
    "range of texts": (_FRAME + "def f(x): send(frame(['ok', {'r': ['0', '9', '1']}]))", {"BAD_VALUE"}),
    "complex of texts": (_FRAME + "def f(x): send(frame(['ok', {'c': ['1', '2']}]))", {"BAD_VALUE"}),
    "range without end": ("def f(x): return range(10 ** 30)", {"OUTPUT_LIMIT"}),
    "complex NaN": ("def f(x): return complex('nanj')", {"BAD_VALUE"}),
    "gigantic string": ("def f(x): return 'x' * (1 << 25)", {"OUTPUT_LIMIT"}),
    "deep nesting": (
        "def f(x):\n    a = []\n    for _ in range(10 ** 5): a = [a]\n    return a",
        {"BAD_VALUE"},
    ),
    "rewrites the code that encodes": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n    channel = frame.f_globals.get('channel')\n"
        "    if channel: channel.encode = lambda *a, **k: b'true'\n    frame = frame.f_back\ndef f(x): return 0",
        {"WRONG_ANSWER"},
    ),
    "replaces os.write": ("import os\nos.write = lambda fd, data: len(data)\ndef f(x): return 1", {"NO_REPORT"}),
    "patches sys.modules": (
        "import sys\nsys.modules.clear()\nimport builtins\nbuiltins.__import__ = None\ndef f(x): return 1",
        {"WRONG_ANSWER", "RUNTIME_ERROR", "NO_REPORT"},
    ),
    "searches its memory for the secret": (
        "import gc\ndef f(x):\n    want = 'hid' + 'den:'\n    for thing in gc.get_objects():\n"
        "        for text in gc.get_referents(thing):\n"
        "            if type(text) is bytes: text = text.decode('latin1')\n"
        "            if type(text) is str and want in text and want + '\\'' not in text:\n"
        "                found = text[text.index(want):][:24]\n                return found + str(x)",
        {"WRONG_ANSWER"},
    ),
    "looks for tokens in its environment": (
        "import os, posix\ndef f(x):\n    names = [*os.environ, *map(bytes.decode, posix.environ)]\n"
        "    if any('TOKEN' in name for name in names): os._exit(0)",
        {"WRONG_ANSWER"},
    ),
    "imports the grader": ("import psgpo.execution\ndef f(x): pass", {"RUNTIME_ERROR"}),
    "stack overflow": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\nclass A:\n"
        "    def __getattr__(self, name): return getattr(self, 'x' + name)\ndef f(x): return A().a",
        {"CRASHED", "MEMORY", "RUNTIME_ERROR"},
    ),
    "a timer kills it": (
        "import signal\ndef f(x):\n    signal.setitimer(signal.ITIMER_REAL, 0.05)\n    while True: pass",
        {"CRASHED"},
    ),
    "a timer interrupts everything": (
        "import signal\ndef stop(*_): raise KeyboardInterrupt\nsignal.signal(signal.SIGALRM, stop)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02, 0.001)\ndef f(x):\n    while True: pass",
        {"RUNTIME_ERROR", "NO_REPORT"},
    ),
    "kills itself": ("import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)", {"RUNTIME_ERROR"}),
    "aborts": ("import os\ndef f(x): os.abort()", {"CRASHED"}),
    "maps a terabyte": ("import mmap\ndef f(x): mmap.mmap(-1, 1 << 40)", {"RUNTIME_ERROR", "MEMORY"}),
    "a file in memory": ("import os\ndef f(x): os.memfd_create('x')", {"RUNTIME_ERROR"}),
    "many descriptors": ("import os\ndef f(x):\n    while True: os.dup(3)", {"RUNTIME_ERROR"}),
    "makes folders": ("import os\ndef f(x): os.makedirs('HOME/a/b')", {"RUNTIME_ERROR"}),
    "makes links": ("import os\ndef f(x): os.symlink('/etc/passwd', 'HOME/link')", {"RUNTIME_ERROR"}),
    "changes rights": ("import os\ndef f(x): os.chmod('HOME/.bashrc', 0o777)", {"RUNTIME_ERROR"}),
    "becomes root": ("import os\ndef f(x): os.setuid(0)", {"RUNTIME_ERROR"}),
    "strange system calls": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\ndef f(x):\n"
        "    # ptrace, mount, unshare, keyctl, perf, bpf, userfaultfd, io_uring, process_vm_readv, vfork, kcmp\n"
        "    for number in (101, 165, 272, 250, 298, 321, 323, 425, 310, 58, 312):\n"
        "        if libc.syscall(number, 0, 0, 0, 0, 0) >= 0: os._exit(0)",
        {"WRONG_ANSWER"},
    ),
    "sleeping daemon thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "def f(x): return x",
        {"WRONG_ANSWER"},
    ),
    "an object that lies about its class": (
        "class A:\n    __class__ = str\n    def __eq__(self, o): return True\n    def __len__(self): return 25\n"
        "def f(x): return A()",
        {"BAD_VALUE"},
    ),
}
