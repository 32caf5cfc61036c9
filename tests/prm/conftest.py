from __future__ import annotations

from pathlib import Path

import pytest
from prm_world import save_policy

from psgpo.models import load_tokenizer


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    save_policy(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(policy_dir: Path):
    return load_tokenizer(policy_dir)
