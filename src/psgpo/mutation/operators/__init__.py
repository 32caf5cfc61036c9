"""The catalogue: small named operators, each a generator of edits of a program. See `registry`."""
