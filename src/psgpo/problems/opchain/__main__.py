"""`python -m psgpo.problems.opchain`: look at the benchmark, measure its tests and the regime it puts a policy in."""

from __future__ import annotations

import argparse
import json
import sys

from psgpo.errors import UserError
from psgpo.problems.opchain import OpChain, OpChainSettings, measure_strength


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m psgpo.problems.opchain", description=__doc__)
    parser.add_argument("what", choices=("show", "strength", "rates"), help="what to print")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparseness", type=float, default=1.0, help="scales the misconception rates")
    parser.add_argument("--split", default="train", help="train, validation or test")
    parser.add_argument("--count", type=int, default=200, help="number of problems")
    parser.add_argument("--operations", type=int, nargs=2, default=(1, 10), metavar=("LOW", "HIGH"))
    options = parser.parse_args()
    low, high = options.operations
    try:
        chain = OpChain(OpChainSettings(seed=options.seed, sparseness=options.sparseness))
        if options.what == "rates":
            for length in range(low, high + 1):
                print(f"{length:3d} operations: {chain.pass_rate(length):.4f} of the training programs are right")
            return 0
        problems = chain.problems(options.split, options.count, (low, high))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.what == "strength":
        print(json.dumps(measure_strength(problems), indent=2))
    for problem in problems if options.what == "show" else ():
        print(f"{problem.id}: {problem.prompt}\n{problem.reference_solution}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
