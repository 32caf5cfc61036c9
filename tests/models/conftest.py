from __future__ import annotations

import pytest
from models_world import TEXT
from transformers import PreTrainedTokenizerFast

from psgpo.models import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([TEXT] * 4, 300)
