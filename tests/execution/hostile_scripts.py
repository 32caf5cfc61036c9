"""Hostile whole programs (stdio): name -> (program, statuses that a sound sandbox may answer).

Each runs as a script whose input is a number and whose output is compared with a secret text.
"""

from __future__ import annotations

from hostile_programs import _FRAME

HOSTILE_SCRIPTS: dict[str, tuple[str, set[str]]] = {
    "says it is done": (_FRAME + "send(frame(['done']))", {"WRONG_ANSWER"}),
    "says it is done nine times": (_FRAME + "send(frame(['done']) * 9)\nos._exit(0)", {"WRONG_ANSWER"}),
    "sends a value": (_FRAME + "send(frame(['ok', 'hidden']))", {"BAD_VALUE"}),
    "claims PASSED": (_FRAME + "send(frame(['end', 'PASSED', '', '']))", {"BAD_VALUE"}),
    "blames the grader": (_FRAME + "send(frame(['end', 'INFRASTRUCTURE', '', '']))", {"BAD_VALUE"}),
    "claims a syntax error": (_FRAME + "send(frame(['load', 'SYNTAX_ERROR', '', '']))", {"SYNTAX_ERROR"}),
    "garbage in the channel": (_FRAME + "send(b'PASSED' * 99)", {"OUTPUT_LIMIT", "BAD_VALUE"}),
    "floods the channel": (_FRAME + "while True: send(frame(['done']) * 999)", {"TIMEOUT"}),
    "prints into the channel": ("import os\nos.dup2(3, 1)\nprint('PASSED' * 99)", {"OUTPUT_LIMIT", "BAD_VALUE"}),
    "prints without end": ("while True: print('hidden' * 999)", {"OUTPUT_LIMIT"}),
    "prints every number": ("for n in range(10000, 100000): print(n)", {"WRONG_ANSWER"}),
    "one long line": ("print('z' * (1 << 19))", {"WRONG_ANSWER"}),
    "complains without end": (
        "import os\nfor _ in range(99): os.write(2, b'z' * (1 << 20))",
        {"WRONG_ANSWER"},
    ),
    "closes its output": ("import os\nos.close(1)\nprint('hidden')", {"RUNTIME_ERROR"}),
    "closes its channel": ("import os\nos.close(3)\nprint('hidden')", {"WRONG_ANSWER"}),
    "closes everything and stays": (
        "import os, time\nfor fd in (0, 1, 2, 3): os.close(fd)\nwhile True: time.sleep(1)",
        {"NO_REPORT"},
    ),
    "closes its output and computes": ("import os\nos.close(1)\nwhile True: pass", {"TIMEOUT"}),
    "leaves at once": ("import os\nos._exit(0)", {"WRONG_ANSWER"}),
    "exits politely": ("raise SystemExit(0)", {"WRONG_ANSWER"}),
    "is killed by its timer": (
        "import signal\nprint('hidden', flush=True)\nsignal.setitimer(signal.ITIMER_REAL, 0.02)\nwhile True: pass",
        {"CRASHED"},
    ),
    "aborts": ("import os\nprint('hidden', flush=True)\nos.abort()", {"CRASHED"}),
    "bytes that are no text": ("import sys\nsys.stdout.buffer.write(bytes(range(256)) * 9)", {"WRONG_ANSWER"}),
    "lone surrogate": ("print('\\ud800')", {"RUNTIME_ERROR"}),
    "NUL": ("print('hidden\\0')", {"WRONG_ANSWER"}),
    "writes into its input": ("import os\nos.write(0, b'hidden')", {"RUNTIME_ERROR"}),
    "cuts its input": ("import os\nos.ftruncate(0, 0)", {"RUNTIME_ERROR"}),
    "maps its input to write": ("import mmap\nmmap.mmap(0, 1)[0] = 0", {"RUNTIME_ERROR"}),
    "reads its input twice": (
        "import os\nos.lseek(0, 0, 0)\nprint(os.read(0, 1 << 20), os.pread(0, 1 << 20, 0))",
        {"WRONG_ANSWER"},
    ),
    "reads more than there is": ("while True: input()", {"RUNTIME_ERROR"}),
    "reads its output": ("import os\nprint(os.read(1, 10))", {"RUNTIME_ERROR"}),
    "makes its pipe larger": ("import fcntl\nfcntl.fcntl(1, 1031, 1 << 20)", {"RUNTIME_ERROR"}),
    "copies descriptors": ("import os\nos.splice(0, 1, 10)", {"RUNTIME_ERROR"}),
    "a thread that never ends": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
        {"TIMEOUT"},
    ),
    "a daemon that prints on": (
        "import os, threading\ndef more():\n    while True: os.write(1, b'hidden')\n"
        "threading.Thread(target=more, daemon=True).start()",
        {"WRONG_ANSWER", "OUTPUT_LIMIT"},
    ),
    "prints at its exit": ("import atexit\natexit.register(print, 'hidden')", {"WRONG_ANSWER"}),
    "hangs at its exit": ("import atexit, time\natexit.register(time.sleep, 600)", {"TIMEOUT"}),
    "exits within its exit": ("import atexit, os\natexit.register(os._exit, 0)\nprint(1)", {"WRONG_ANSWER"}),
    "a child prints": ("import os\nif os.fork() == 0: print('hidden')", {"RUNTIME_ERROR"}),
    "output that cannot be flushed": (
        "import sys\nclass Out:\n    def write(self, text): raise SystemExit(0)\n    flush = write\n"
        "sys.stdout = Out()\nprint(1)",
        {"WRONG_ANSWER", "RUNTIME_ERROR", "NO_REPORT"},
    ),
    "no output object": ("import sys\nsys.stdout = None\nprint(1)", {"WRONG_ANSWER", "RUNTIME_ERROR"}),
    "memory": ("a = []\nwhile True: a.append(bytearray(1 << 24))", {"MEMORY"}),
    "writes files": ("open('HOME/owned', 'w')", {"RUNTIME_ERROR"}),
    "fills the disk": (
        "with open('/dev/shm/fill', 'wb') as file:\n    while True: file.write(b'z' * (1 << 20))",
        {"RUNTIME_ERROR"},
    ),
}
