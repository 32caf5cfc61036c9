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
}


def model_card(
    settings: PrmSettings, kept: dict[str, Any], job: dict[str, Any], record: ScorerRecord | None = None
) -> str:
    """Text of the card; `kept` is the metrics row of the epoch whose weights are in the folder."""
    numbers = {key: kept[key] for key in ("held_out_loss", "held_out_accuracy", "held_out_auroc")}
    rows = "\n".join(f"| {key} | {'–' if value is None else f'{value:.4f}'} |" for key, value in numbers.items())
    return f"""# Line-level process reward model

Target: `{settings.target}`, labels: `{settings.labels}`. The score at the token that ends a line of code is
{_MEANING[settings.target]}.

Read it with `AutoModelForTokenClassification` (`num_labels = 1`): the raw logit at the token that contains the line's
newline, or at the last token for a line without one, is the score. No activation. The head has no trained bias.
The input is the prompt followed by the response, as token ids. The same folder starts a critic.

Kept: epoch {kept["epoch"]} of {settings.epochs}, the one with the least held-out loss, on problems not trained on.

| held out | |
|---|---|
{rows}

Trained with:

```json
{json.dumps(job, indent=2)}
```
"""
