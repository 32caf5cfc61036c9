"""The README.md of a PRM folder: what it is and how to read it without this package."""

from __future__ import annotations

import json
from typing import Any

from psgpo.config import PrmSettings
from psgpo.prm.record import ScorerRecord

_MEANING = {
    "sign": "near +1 where the program so far can still be completed to one that passes its tests, near -1 where it "
    "cannot, near 0 on comment and blank lines",
    "progress": "the share of the program, from 0 to 1, that is done and right after that line",
    "soft": "the share, from 0 to 1, of the policy's completions of the program so far that pass its tests",
}
_TITLES = {"line": "Line-level process reward model", "program": "Outcome reward model"}


def model_card(
    settings: PrmSettings, kept: dict[str, Any], job: dict[str, Any], record: ScorerRecord | None = None
) -> str:
    """Card of a causal PRM or ORM; `kept` is the metrics row of the epoch whose weights are in the folder."""
    meaning = f"The score at the token that ends a line of code is\n{_MEANING[settings.target]}."
    if record is not None and record.scope == "program":
        meaning = (
            "The score at an end-of-sequence token behind the program's last line (without its newline) is near +1\n"
            "where the program passes its tests, near -1 where it fails."
        )
    return f"""# {_TITLES["line" if record is None else record.scope]}

Target: `{settings.target}`, labels: `{settings.labels}`. {meaning}

Read it with `AutoModelForTokenClassification` (`num_labels = 1`): the raw logit at the token that contains the line's
newline, or at an end-of-sequence token behind a last line without one, is the score. No activation. The head has no
trained bias. The input is the prompt followed by the response, as token ids. The same folder starts a critic.
{_template(record)}
{_kept(settings, kept)}
{_trained(job)}"""


def encoder_card(settings: PrmSettings, kept: dict[str, Any], job: dict[str, Any], record: ScorerRecord) -> str:
    """Card of an encoder PRM or ORM."""
    what = "the program up to and with this line" if record.scope == "line" else "the whole program"
    return f"""# {_TITLES[record.scope]} (encoder)

Read it with `AutoModelForSequenceClassification` (`num_labels = 1`). The input is a pair: first the problem, then
{what}, without a newline at its end. The sigmoid of the logit is the probability that it is right.

```python
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
p_right = torch.sigmoid(model(**tokenizer(problem, prefix, return_tensors="pt")).logits[0, 0])
```

It reads {record.max_tokens} tokens. What is longer is cut before: the problem at its end, the program at its beginning
({job["cut_share"]:.1%} of the training pairs).
{_template(record)}
{_kept(settings, kept)}
{_trained(job)}"""


def ngram_card(kept: dict[str, Any], job: dict[str, Any], record: ScorerRecord) -> str:
    """Card of an n-gram PRM or ORM."""
    return f"""# {_TITLES[record.scope]} (n-grams)

A linear model on hashed features of the task and the last line: `weights.npy` holds one float32 per bucket, the sigmoid
of their sum over a prefix's buckets is the probability that it is right. The features are code, so reading it needs
psgpo (`psgpo.prm.open_scorer`).

Kept: epoch {kept["epoch"]}; held-out loss {kept["held_out_loss"]:.4f}, accuracy {kept["held_out_accuracy"]:.4f}.

{_trained(job)}"""


def _template(record: ScorerRecord | None) -> str:
    return "" if record is None else f"\nPrompt template: `{json.dumps(record.prompt_template)}`\n"


def _kept(settings: PrmSettings, kept: dict[str, Any]) -> str:
    numbers = {key: kept[key] for key in ("held_out_loss", "held_out_accuracy", "held_out_majority", "held_out_auroc")}
    rows = "\n".join(f"| {key} | {'–' if value is None else f'{value:.4f}'} |" for key, value in numbers.items())
    return f"""Kept: epoch {kept["epoch"]} of {settings.epochs}, with the least loss on problems not trained on.

| held out | |
|---|---|
{rows}
"""


def _trained(job: dict[str, Any]) -> str:
    return f"Trained with:\n\n```json\n{json.dumps(job, indent=2)}\n```\n"
