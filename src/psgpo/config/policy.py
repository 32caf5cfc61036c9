"""The policy: the model, its fine-tuning, how it is sampled and trained by PPO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from psgpo.config.base import Fraction, Positive, PositiveFloat, Range, Schedule, Section


class LoraSettings(Section):
    """Adapters of low rank in every linear layer but the heads (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Positive = 16
    """Columns of one matrix of an adapter, rows of the other."""
    alpha: PositiveFloat = 32.0
    """An adapter's output is scaled by alpha / rank."""


class ModelSettings(Section):
    """The policy before SFT."""

    path: Path | None = None
    """A folder with any `AutoModelForCausalLM` or `AutoModelForSeq2SeqLM` and its tokenizer, or `owner/name` on the
    Hugging Face Hub. Absent: a small decoder is made from the sizes below and its tokenizer trained on the SFT data."""
    hidden_size: Positive = 64
    """Of a new model, as all sizes here. An even multiple of `heads`."""
    intermediate_size: Positive = 128
    """Width inside the MLP."""
    layers: Positive = 3
    """Decoder blocks."""
    heads: Positive = 4
    """Attention heads."""
    vocab_size: Annotated[int, Field(ge=258)] = 640
    """Tokens of the byte-level tokenizer, bytes and special ones included."""
    max_positions: Positive = 512
    """Tokens of prompt and response together, at most."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What training computes in. bfloat16: products in bfloat16 (autocast), weights and optimizer states in float32.
    The reference and a PRM behind line rewards, which learn nothing, are kept in bfloat16 where that changes no
    number."""
    gradient_checkpointing: bool = False
    """Keep no activations inside layers and compute them again for the gradient: less memory, a third more time."""
    lora: LoraSettings | None = None
    """RL and PRM training learn adapters (and a value head), not the weights; SFT does with `sft.lora`. The policy with
    its adapters off is the reference. Saved models have the adapters merged in. Needs `pip install 'psgpo[lora]'`."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError("model.hidden_size must be an even multiple of model.heads")
        return self


class CriticSettings(Section):
    """What the critic starts from, in arms without `value_init`."""

    path: Path | None = None
    """A folder, or a name on the Hugging Face Hub, with another model of the policy's tokenizer, such as a smaller one
    of the same family, or a value model; a language model gets a fresh head. Absent: the policy as SFT left it."""


class SftSettings(Section):
    """Supervised fine-tuning. On JSONL problems the data are the reference solutions."""

    lora: bool = False
    """Learn adapters of the sizes in `model.lora`, not the weights. RL starts from the model they are merged into."""

    examples: Annotated[int, Field(ge=0)] = 24_000
    """OpChain: examples that are generated. Else: reference solutions that are learned, at most, the first of the file.
    0 starts RL from the model as it is."""
    operations: Range = (1, 8)
    """Fewest and most operations of an example (OpChain)."""
    epochs: Positive = 1
    """Passes over the examples."""
    batch_size: Positive = 16
    """Examples per update."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """muon: hidden matrices by Muon, the rest by AdamW; made for training from scratch. A pretrained model
    (model.path) is better served by adamw and a small learning rate."""
    learning_rate: PositiveFloat = 1e-2
    """Of AdamW."""
    muon_learning_rate: PositiveFloat = 0.02
    """Of Muon, with `optimizer = "muon"`."""
    warmup: Fraction = 0.05
    """Share of the steps with a rising learning rate."""
    schedule: Schedule = "cosine"
    """What the learning rates do after it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of both optimizers."""
    microbatch_tokens: Positive | None = None
    """As `rl.microbatch_tokens`."""


class SamplingSettings(Section):
    """How responses and completions are drawn."""

    temperature: PositiveFloat = 1.0
    """Of responses in PPO and of labels; the evaluation has its own."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the most probable tokens whose probabilities add up to this."""
    max_new_tokens: Positive = 256
    """Tokens of a response, at most."""
    batch_size: Positive = 256
    """Sequences decoded side by side."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What draws them, in PPO, for labels and for evaluation. vllm: in an environment that has it, with the weights of
    the policy handed over before every PPO step; see docs/samplers.md."""
    engine_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """vllm: arguments of `vllm.LLM`: `max_model_len`, `gpu_memory_utilization` (the trainer needs the rest), others."""

    @model_validator(mode="after")
    def _options_have_an_engine(self) -> Self:
        if self.engine_options and self.engine != "vllm":
            raise ValueError("sampling.engine_options are vLLM's: set sampling.engine = 'vllm' or remove them")
        return self


class RlSettings(Section):
    """PPO. What the paper does not publish is chosen here (see docs/architecture.md)."""

    steps: Positive = 60
    """Each draws responses, grades them and updates policy and critic."""
    prompts_per_step: Positive = 64
    """Problems of a step."""
    responses_per_prompt: Positive = 1
    """Responses to each of them."""
    epochs: Positive = 1
    """Passes over the responses of a step."""
    minibatches: Positive = 2
    """Optimizer updates per pass."""
    microbatch_tokens: Positive | None = None
    """Padded tokens held at once, at most: a minibatch is worked through in parts of similar length whose gradients
    add up to that of one big batch. Absent: a minibatch is one part. Bounds memory; the result is the same
    up to rounding."""
    policy_learning_rate: PositiveFloat = 5e-4
    """Of Adam, as the next one."""
    critic_learning_rate: PositiveFloat = 1e-3
    """Of the critic."""
    schedule: Schedule = "constant"
    """What both learning rates do after their warm-up, step by step; the updates of a step share one rate."""
    warmup: Fraction = 0.0
    """Share of the steps with rising learning rates."""
    critic_warmup: Annotated[int, Field(ge=0)] = 0
    """First steps in which only the critic learns. The policy's rate is 0 in them; its warm-up and schedule are those
    of the steps that are left."""
    clip: PositiveFloat = 0.2
    """Half-width of the interval of the probability ratio, around 1 (PPO's ε)."""
    clip_high: PositiveFloat | None = None
    """How far above 1 that interval reaches, where that is not as far as below it (DAPO, arXiv 2503.14476: 0.28 over
    0.2). Absent: as `clip`."""
    truncated: Literal["learn", "mask"] = "learn"
    """What the policy makes of responses that were cut off at `sampling.max_new_tokens`. learn: as of any other. mask:
    they are no part of its loss (DAPO's overlong filtering); the critic and the baselines of groups see them all the
    same."""
    loss_mean: Literal["tokens", "responses"] = "tokens"
    """What the policy's loss is a mean over, minibatch by minibatch. tokens: all of them weigh the same (as in DAPO),
    so long responses weigh more. responses: over the tokens of each response, then over responses (as in GRPO)."""
    value_clip: PositiveFloat = 0.5
    """Half-width of the interval the new value may move in, around the old one."""
    kl_beta: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the KL penalty to the SFT policy, subtracted from the reward at every token. 0: that policy is neither
    loaded nor asked, and `kl` is missing from the metrics; line rewards from a PRM were gamed without it."""
    gamma: Fraction = 1.0
    """Discount per token."""
    advantage: Literal["gae", "grpo", "rloo"] = "gae"
    """gae: with a critic. grpo, rloo: a response against the others to the same problem, without a critic, for
    responses_per_prompt from 2; see docs/reward-shapes.md."""
    gae_lambda: Fraction = 0.97
    """λ of generalised advantage estimation."""
    whiten_advantages: bool = True
    """Shift and scale the advantages of a step to mean 0 and variance 1."""
    whiten_floor: Annotated[float, Field(ge=0)] = 0.1
    """Least standard deviation that whitening divides by: where every response fails, advantages are the critic's
    noise, and blowing that up to variance 1 moves the policy at random. 0: the deviation as it is, which is the
    papers'. Advantages that are equal but for rounding are 0 with any."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this norm, policy's and critic's apart."""
    value_fit_responses: Positive = 1024
    """Responses of the first policy, drawn before the first step, that `value_map = "fit"` and `"head"` are fitted
    on."""
    checkpoints: Positive = 4
    """Evenly spaced over the run; the baseline's are labelled, unless `labels.of` says whose."""

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """After how many steps checkpoints are kept, the last step among them."""
        return tuple(round(self.steps * number / self.checkpoints) for number in range(1, self.checkpoints + 1))


class ArmRlSettings(RlSettings):
    """Any keys of [`[rl]`](#rl) that are others for this arm; what is not written here is as there."""

    # What is not written holds a default that nobody trains with; read `Recipe.rl_of`, and keep it out of recipe.json.
    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}
