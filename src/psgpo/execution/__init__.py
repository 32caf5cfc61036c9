"""Run untrusted, model-written programs against tests. See docs/sandbox.md for what is and is not covered.

with Sandbox(workers=2) as sandbox:
    verdicts = sandbox.grade([(program_text, problem.tests), ...])
"""

from psgpo.execution.sandbox import Outcome, Sandbox, SandboxError
from psgpo.execution.slot import Limits

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxError"]
