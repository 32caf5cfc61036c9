"""psgpo: process-supervised reinforcement learning for code.

Importing this package loads no heavy dependency. Use the sub-packages::

    from psgpo.execution import Sandbox
    from psgpo.labeling.search import last_solvable_line
    from psgpo.rl.rewards import LINE_REWARDS
"""

__version__ = "0.1.0"
