"""Write the folder that `verl.trainer.main_ppo` runs from: models, data with tests, overrides, launch script."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from psgpo.chats import recipe_template
from psgpo.config import Recipe
from psgpo.engines.verl.overrides import HERE, PLUGIN, Cluster, check_arm, overrides
from psgpo.engines.verl.settings import VerlSettings
from psgpo.errors import UserError
from psgpo.jsonl import dump_line
from psgpo.models import TokenValueModel
from psgpo.prompts import build_prompt_ids, fill
from psgpo.records import Problem

VERSIONS = ("verl[vllm]==0.9.1", "flash-attn==2.8.3")
"""Of the machine that runs the export: verl's extra pins vLLM, torch and TransferQueue."""
_NOT_SERVED = frozenset({"psgpo-shift"})
_SCRIPT = """\
#!/usr/bin/env bash
# Train this arm with verl. Overrides of verl's configuration may follow: ./run.sh trainer.n_gpus_per_node=4
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
export VERL_USE_EXTERNAL_MODULES={plugin}
mapfile -t overrides < <(sed "s|{mark}|$here|g" "$here/overrides.txt")
exec "${{PYTHON:-python3}}" -m verl.trainer.main_ppo "${{overrides[@]}}" "$@"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What an arm is made of."""

    policy: Path
    """Folder of the policy that RL starts from."""
    critic: TokenValueModel
    """Its first weights, any value map already in its head."""
    tokenizer: PreTrainedTokenizerBase
    prm: Path | None
    """Folder of the PRM behind the line rewards."""
    train: Sequence[Problem]
    validation: Sequence[Problem]


def check_policy(policy: Path) -> None:
    """Refuse a policy that vLLM cannot serve.

    Raises:
        UserError: naming the architecture.
    """
    config = AutoConfig.from_pretrained(policy, local_files_only=True, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise UserError(
            f"{policy}: verl trains decoders alone, and {config.model_type!r} is an encoder–decoder; train it with "
            "psgpo run, or set model.path to a decoder such as qwen2 or llama"
        )
    if config.model_type in _NOT_SERVED:
        raise UserError(
            f"{policy}: vLLM, which samples for verl, has no {config.model_type!r}; set model.path to a model of an "
            "architecture that it serves, such as qwen2 or llama"
        )


def write_export(
    out: Path,
    recipe: Recipe,
    arm: str,
    sources: Sources,
    cluster: Cluster,
    *,
    prm_gpus: float | None,
    prm_server: str | None,
) -> None:
    """Write everything into `out`, which is made.

    Raises:
        UserError: the folder is in use, the sizes do not fit, or pyarrow is missing.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder")
    check_arm(recipe, arm, cluster, problems=len(sources.train))
    rows = {
        "train": _rows(sources.train, recipe, sources.tokenizer),
        "validation": _rows(sources.validation, recipe, sources.tokenizer),
    }
    write = _parquet_writer()
    out.mkdir(parents=True, exist_ok=True)
    for name, split in rows.items():
        write(split, out / f"{name}.parquet")
    shutil.copytree(sources.policy, out / "policy", dirs_exist_ok=True)
    sources.critic.save_pretrained(out / "critic", sources.tokenizer)
    if sources.prm is not None:
        shutil.copytree(sources.prm, out / "prm", dirs_exist_ok=True)
    VerlSettings(
        arm=recipe.arms[arm], rl=recipe.rl_of(arm), sandbox=recipe.sandbox, prm_gpus=prm_gpus, prm_server=prm_server
    ).save(out)
    longest = max(len(row["extra_info"]["prompt_ids"]) for split in rows.values() for row in split)
    lines = overrides(recipe, arm, cluster, prompt_tokens=longest)
    (out / "overrides.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "requirements.txt").write_text("\n".join(VERSIONS) + "\n", encoding="utf-8")
    script = out / "run.sh"
    script.write_text(_SCRIPT.format(plugin=PLUGIN, mark=HERE), encoding="utf-8")
    script.chmod(0o755)


def _rows(problems: Sequence[Problem], recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """verl's columns. The reference solution stays here: nothing there needs it."""
    rows, template = [], recipe_template(recipe, tokenizer)
    for index, problem in enumerate(problems):
        record = problem.to_json() | {"reference_solution": None}
        rows.append(
            {
                "data_source": problem.source or "psgpo",
                "prompt": [{"role": "user", "content": fill(recipe.prompt_template, problem.prompt)}],
                "reward_model": {"style": "rule", "ground_truth": dump_line(record).rstrip("\n")},
                "extra_info": {
                    "index": index,
                    "problem_id": problem.id,
                    "prompt_ids": list(build_prompt_ids(tokenizer, template, problem)),
                },
            }
        )
    return rows


def _parquet_writer() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("psgpo verl export writes Parquet; install it with: pip install 'psgpo[data]'") from None
    return lambda rows, path: parquet.write_table(pyarrow.Table.from_pylist(rows), path)
