"""From a run directory to an export for verl: which folders, problems and first critic an arm has."""

from __future__ import annotations

from pathlib import Path

from psgpo.engines.verl.export import Sources, check_policy, write_export
from psgpo.engines.verl.overrides import Cluster, check_arm
from psgpo.errors import UserError
from psgpo.models import load_tokenizer
from psgpo.problems import load_problems_jsonl
from psgpo.rl.rollout import reads_ids
from psgpo.runs.directory import RunDirectory
from psgpo.runs.stages import policy_folder, stage_graph
from psgpo.runs.work import arm_trainer, one_thread


def export_arm(
    run: RunDirectory,
    arm: str,
    out: Path,
    cluster: Cluster,
    *,
    prm_gpus: float | None = None,
    prm_server: str | None = None,
) -> None:
    """Write what verl needs to train an arm of a run whose earlier stages are done.

    ValueInit's value map is worked out here, as the arm's own trainer would: `fit` samples
    `rl.value_fit_responses` responses.

    Raises:
        UserError: no such arm, a stage it needs is not done, or verl cannot run it.
    """
    graph = stage_graph(run.recipe)
    if f"rl-{arm}" not in graph:
        raise UserError(f"{arm!r} is no arm of this recipe; its arms are: {', '.join(run.recipe.arms)}")
    missing = [need for need in graph[f"rl-{arm}"].needs if not run.stage_done(need)]
    if missing:
        raise UserError(
            f"{run.path}: exporting {arm} needs {', '.join(missing)} first; run: psgpo run RECIPE "
            + " ".join(f"--until {need}" for need in missing)
        )
    settings = run.recipe.arms[arm]
    if (prm_gpus is not None or prm_server is not None) and settings.prm in (None, "oracle"):
        raise UserError(f"--prm-gpus, --prm-server: arm {arm} has no PRM behind its line rewards; leave them out")
    if prm_gpus is not None and prm_server is not None:
        raise UserError("--prm-gpus, --prm-server: the PRM is in one place; give one of them")
    policy = policy_folder(run.path, "sft")
    check_policy(policy)
    if prm_gpus is not None or prm_server is not None:
        prm = run.path / "prm" / str(settings.prm) / "model"
        if settings.line_score != "score" or not reads_ids(prm, load_tokenizer(policy)):
            raise UserError(
                f"--prm-gpus, --prm-server: the PRM of arm {arm} reads text, not the policy's tokens, so every reward "
                "worker holds its own; leave them out"
            )
    train = load_problems_jsonl(run.path / "problems" / "train.jsonl")
    check_arm(run.recipe, arm, cluster, problems=len(train))
    validation = run.path / "problems" / "validation.jsonl"
    held_out = validation if validation.is_file() else run.path / "problems" / "test.jsonl"
    with one_thread(), arm_trainer(run, arm) as (trainer, prompts):
        critic = trainer.first_critic(prompts).cpu()
    sources = Sources(
        policy=policy,
        critic=critic,
        tokenizer=load_tokenizer(policy),
        prm=None if settings.prm in (None, "oracle") else run.path / "prm" / str(settings.prm) / "model",
        train=train,
        validation=load_problems_jsonl(held_out),
    )
    write_export(out, run.recipe, arm, sources, cluster, prm_gpus=prm_gpus, prm_server=prm_server)
