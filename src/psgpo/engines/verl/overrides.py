"""A recipe's arm in verl's words: hydra overrides of `verl.trainer.main_ppo`. Pure.

Names a meaning has on both sides stand side by side below; what verl calls differently or does differently is said in
docs/verl.md. `@here@` is the export's folder; the launch script fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass

from psgpo.config import Recipe
from psgpo.errors import UserError

HERE = "@here@"
NAME = "psgpo"
"""Reward manager, agent loop and trainer of the plug-in are registered under this name."""
PLUGIN = "psgpo.engines.verl.plugin"
LOSS_MEANS = {"tokens": "token-mean", "responses": "seq-mean-token-mean"}
NO_DUAL_CLIP = 1e6
"""verl also bounds the loss of tokens with a negative advantage, at this ratio; PPO as published does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where the export is to run."""

    gpus: int = 8
    """Per node."""
    nodes: int = 1
    tensor_parallel: int = 1
    """GPUs that share one copy of the policy while sampling."""
    reward_workers: int = 8
    """Ray actors that grade and score."""
    tokens_per_gpu: int = 16384
    """Prompt and response tokens of one forward and backward pass."""


def check_arm(recipe: Recipe, arm: str, cluster: Cluster, *, problems: int) -> None:
    """Refuse what verl would stop at after it has loaded everything.

    Raises:
        UserError: batch, minibatches, problems and GPUs do not fit together, or verl lacks a setting.
    """
    rl = recipe.rl_of(arm)
    table = "rl" if recipe.arms[arm].rl is None else f"arms.{arm}.rl"
    gpus = cluster.gpus * cluster.nodes
    if rl.advantage != "gae":
        raise UserError(
            f"{table}.advantage = {rl.advantage!r}: the export trains with a critic and GAE; leave it out, or train "
            "the arm with psgpo run"
        )
    if recipe.model.lora is not None:
        raise UserError("model.lora: the export trains all weights; leave it out")
    if rl.schedule == "linear":
        raise UserError(f"{table}.schedule = 'linear': verl has 'constant' and 'cosine'; choose one of them")
    if rl.truncated == "mask":
        raise UserError(f"{table}.truncated = 'mask': verl learns from responses that were cut off too; leave it out")
    if rl.prompts_per_step % rl.minibatches:
        raise UserError(
            f"{table}.prompts_per_step = {rl.prompts_per_step}, {table}.minibatches = {rl.minibatches}: verl cuts a "
            "step by prompts, so the second must divide the first"
        )
    if rl.prompts_per_step // rl.minibatches * rl.responses_per_prompt % gpus:
        raise UserError(
            f"a minibatch of {rl.prompts_per_step // rl.minibatches * rl.responses_per_prompt} responses does not "
            f"split over {gpus} GPUs; change {table}.prompts_per_step, {table}.minibatches or --gpus"
        )
    if gpus % cluster.tensor_parallel:
        raise UserError(f"--tensor-parallel {cluster.tensor_parallel} does not divide {gpus} GPUs")
    if problems < rl.prompts_per_step:
        raise UserError(
            f"{problems} training problems, but {table}.prompts_per_step = {rl.prompts_per_step}: verl drops "
            "incomplete batches and would never start; lower it"
        )


def overrides(recipe: Recipe, arm: str, cluster: Cluster, *, prompt_tokens: int) -> list[str]:
    """`key=value` per line, in hydra's grammar.

    Args:
        prompt_tokens: of the longest prompt in the data.
    """
    rl, sampling = recipe.rl_of(arm), recipe.sampling
    longest = prompt_tokens + sampling.max_new_tokens
    tokens = max(cluster.tokens_per_gpu, longest)
    every = max(1, rl.steps // rl.checkpoints)
    values: dict[str, object] = {
        "data.train_files": f"{HERE}/train.parquet",
        "data.val_files": f"{HERE}/validation.parquet",
        "data.train_batch_size": rl.prompts_per_step,
        "data.max_prompt_length": prompt_tokens,
        "data.max_response_length": sampling.max_new_tokens,
        "data.seed": recipe.seed,
        "data.filter_overlong_prompts": False,
        "actor_rollout_ref.model.path": f"{HERE}/policy",
        "actor_rollout_ref.actor.optim.lr": rl.policy_learning_rate,
        "actor_rollout_ref.actor.optim.lr_scheduler_type": rl.schedule,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": rl.warmup,
        "actor_rollout_ref.actor.optim.weight_decay": 0.0,
        "actor_rollout_ref.actor.optim.clip_grad": rl.max_grad_norm,
        "actor_rollout_ref.actor.ppo_mini_batch_size": rl.prompts_per_step // rl.minibatches,
        "actor_rollout_ref.actor.ppo_epochs": rl.epochs,
        "actor_rollout_ref.actor.shuffle": True,
        "actor_rollout_ref.actor.data_loader_seed": recipe.seed,
        "actor_rollout_ref.actor.clip_ratio": rl.clip,
        "actor_rollout_ref.actor.clip_ratio_low": rl.clip,
        "actor_rollout_ref.actor.clip_ratio_high": rl.clip if rl.clip_high is None else rl.clip_high,
        "actor_rollout_ref.actor.clip_ratio_c": NO_DUAL_CLIP,
        "actor_rollout_ref.actor.loss_agg_mode": LOSS_MEANS[rl.loss_mean],
        "actor_rollout_ref.actor.entropy_coeff": 0.0,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": tokens,
        # The whole model beside the shards, so that psgpo verl import-checkpoint needs no verl.
        "actor_rollout_ref.actor.checkpoint.save_contents": "[model,optimizer,extra,hf_model]",
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": rl.responses_per_prompt,
        "actor_rollout_ref.rollout.temperature": sampling.temperature,
        "actor_rollout_ref.rollout.top_p": sampling.top_p,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": cluster.tensor_parallel,
        "actor_rollout_ref.rollout.max_model_len": longest,
        "actor_rollout_ref.rollout.agent.default_agent_loop": NAME,
        "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
        "actor_rollout_ref.rollout.val_kwargs.temperature": recipe.evaluation.temperature,
        "actor_rollout_ref.rollout.val_kwargs.top_p": sampling.top_p,
        "actor_rollout_ref.rollout.val_kwargs.n": recipe.evaluation.samples,
        "critic.enable": True,
        "critic.model.path": f"{HERE}/critic",
        "critic.optim.lr": rl.critic_learning_rate,
        "critic.optim.lr_scheduler_type": rl.schedule,
        "critic.optim.lr_warmup_steps_ratio": rl.warmup,
        "critic.optim.weight_decay": 0.0,
        "critic.optim.clip_grad": rl.max_grad_norm,
        "critic.data_loader_seed": recipe.seed,
        "critic.cliprange_value": rl.value_clip,
        "critic.ppo_max_token_len_per_gpu": tokens,
        # The one that verl 0.9.1 reads, for both directions; its YAML does not list it.
        "+critic.ppo_infer_max_token_len_per_gpu": tokens,
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": rl.gamma,
        "algorithm.lam": rl.gae_lambda,
        "algorithm.use_kl_in_reward": rl.kl_beta > 0,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.type": "fixed",
        "algorithm.kl_ctrl.kl_coef": rl.kl_beta,
        "reward.num_workers": cluster.reward_workers,
        "reward.reward_manager.name": NAME,
        "trainer.v1.trainer_mode": NAME,
        # verl counts steps from 1 and updates the policy in the step of this number: this is the first with an update.
        "trainer.critic_warmup": rl.critic_warmup + 1 if rl.critic_warmup else 0,
        "trainer.total_training_steps": rl.steps,
        "trainer.total_epochs": rl.steps,
        "trainer.save_freq": every,
        "trainer.test_freq": every,
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus,
        "trainer.project_name": "psgpo",
        "trainer.experiment_name": f"{recipe.name}-{arm}",
        "trainer.default_local_dir": f"{HERE}/checkpoints",
        "trainer.logger": "[console]",
        "+psgpo.settings": f"{HERE}/psgpo.json",
        "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES": PLUGIN,
    }
    return [f"{key}={_hydra(value)}" for key, value in values.items()]


def _hydra(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
