"""Choosing among responses, and writing better ones with the same tokens: what a PRM is worth at sampling time.

choose       best of n by a score, majority of n by outputs: exact expectations over all subsets (pure)
curves       expectations of many problems -> curves over n and tokens, intervals, paired differences (pure)
samples      responses with verdicts, checked against their problems
evaluated    the same of what `psgpo eval --model` drew
scores       PRM, ORM and likelihood of responses, kept as they come
outputs      what programs return on the tests' inputs, never on the expected values: the votes of a majority
run          `psgpo rerank samples`
strategies   best-of-n, beam search and rejection as questions (pure)
drive        the strategies of many problems side by side, over one sampler and one PRM
budgets      programs that were found -> curves over budgets (pure)
search       `psgpo rerank search`
render       `summary.json` as text
"""
