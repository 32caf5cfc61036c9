"""Programs as statements: splicing the end of one behind the beginning of another. Standard library only, no torch."""

from psgpo.syntax.needed import reductions, unused_lines
from psgpo.syntax.reach import decided, open_ended
from psgpo.syntax.repair import Patient, Repair, repairs
from psgpo.syntax.splice import Donor, Receiver, Splice, splices, uses_prefix, without_blocks
from psgpo.syntax.tree import Prefix, begins_statement, parse, parse_prefix

__all__ = [
    "Donor",
    "Patient",
    "Prefix",
    "Receiver",
    "Repair",
    "Splice",
    "begins_statement",
    "decided",
    "open_ended",
    "parse",
    "parse_prefix",
    "reductions",
    "repairs",
    "splices",
    "unused_lines",
    "uses_prefix",
    "without_blocks",
]
