"""Labels, process reward models, and the arms that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from psgpo.config.base import Fraction, Positive, PositiveFloat, Schedule, Section, ordered
from psgpo.config.policy import ArmRlSettings

LineRewardName = Literal["none", "sum", "progress", "difference", "redistribute", "min-form", "first-error", "program"]
READABLE = {
    "sum": ("sign",),
    "progress": ("progress",),
    "difference": ("sign", "progress", "soft"),
    "redistribute": ("sign",),
    "min-form": ("sign", "soft"),
    "first-error": ("sign",),
    "program": ("sign",),
}
"""Targets of the PRMs that a line reward makes sense of."""


class LabelSettings(Section):
    """Line labels by search with rollouts (paper: binary search, K = 20), or from mutants (`mutation`)."""

    source: Literal["search", "mutation"] = "search"
    """search: responses of the baseline's checkpoints (or `of`'s). mutation: verified mutants of reference solutions
    (PRLCoder), made by the table `mutation`; of this table only `holdout` counts then."""
    strategy: Literal["binary-search", "linear-scan", "soft", "noisy", "noisy-soft", "omega", "splice"] = (
        "binary-search"
    )
    """How the last completable line is found, see docs/labels.md."""
    budget: Positive = 14
    """noisy, noisy-soft: completions for a response, at most."""
    hunt: Annotated[int, Field(ge=0)] = 8
    """splice: completions drawn, at most, to find a first passing program of a problem."""
    crossover: Annotated[int, Field(ge=0)] = 400
    """splice: programs judged, at most, that join two failed ones, to find a first passing program of a problem."""
    references: bool = False
    """splice: a problem's reference solution is one of the passing programs, where it passes. Every problem that has
    one is labelled then, whatever the policy can do; PRLCoder learns from reference solutions too."""
    halving: bool = False
    """splice: search a program's last completable statement by halving, not from the last line up: about half as many
    programs are judged, and the labels are nearly the same, see docs/labels.md. For the embedded benchmark, whose
    programs are joined by lines."""
    k: Positive = 20
    """Completions per probe, at most; a probe stops at the first that passes."""
    draw: Positive = 5
    """Completions of a probe drawn at once."""
    fill: bool = True
    """Draw more at once where few probes wait, so that the sampler's batch stays full."""
    of: Path | None = None
    """Folder of an RL arm of another run, `runs/first/rl/both`: responses of its checkpoints are labelled, and prefixes
    completed by them, in place of the baseline's. For a second round on an improved policy, see docs/labels.md."""
    responses_per_problem: Positive = 1
    """Per checkpoint."""
    completer: Literal["own", "last", "mixture"] = "own"
    """Who completes prefixes: the checkpoint that wrote the response, the last one, or all in turn. Those that do are
    in memory together."""
    timeout_seconds: PositiveFloat | None = None
    """Limit of a completed or joined program; absent: `sandbox.timeout_seconds`. What is joined runs forever more often
    than what a policy writes, and waiting for it can be most of the cost of a label."""
    in_flight: Positive = 256
    """Responses searched side by side, per shard. splice: problems are worked on in groups of so many responses, and
    the group's own results say where `hunt` draws."""
    unit: Positive = 512
    """Responses of a unit, at least, where several workers label: what one holds at a time. The labels depend on it as
    on `shards`."""
    shards: Positive = 2
    """Parts labelled by processes of their own. The labels of a search do not depend on it (but `omega`'s); what
    `splice` labels by its prior does, for the prior is fitted on the responses of one part."""
    compare_linear: Annotated[int, Field(ge=0)] = 24
    """Failed responses that a linear scan labels too, for comparison; 0 for none."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the labelled problems kept from PRM training, to measure the PRM on."""

    @model_validator(mode="after")
    def _responses_exist(self) -> Self:
        if self.of is not None and self.source == "mutation":
            raise ValueError("of says whose responses are searched; source = 'mutation' searches none, so leave it out")
        return self

    @model_validator(mode="after")
    def _only_splicing_has_them(self) -> Self:
        if self.references and (self.strategy != "splice" or self.source != "search"):
            raise ValueError("references are what splicing joins: set strategy = 'splice', or leave them out")
        if self.halving and (self.strategy != "splice" or self.source != "search"):
            raise ValueError("halving is how splicing searches: set strategy = 'splice', or leave it out")
        return self


class MutationSettings(Section):
    """Labels by mutants, `labels.source = "mutation"`: see docs/mutation.md, whose options these are."""

    bugs_per_line: Annotated[int, Field(ge=0)] = 4
    """Planted bugs for one line, at most."""
    refactors_per_line: Annotated[int, Field(ge=0)] = 3
    """Rewrites of one line, at most."""
    generated: Annotated[int, Field(ge=0)] = 200
    """Inputs made for a problem, beside its tests and those of `problems.plus`."""
    after: Literal["unlabelled", "negative", "positive"] = "unlabelled"
    """Label of lines behind a planted bug."""
    timeouts: Literal["drop", "negative"] = "drop"
    """Programs that ran out of time."""
    survivors: Literal["positive", "drop"] = "positive"
    """Planted bugs that pass every test (paper: positive)."""
    catalogue: bool = True
    """Ask the operators of psgpo for proposals."""
    server: str | None = None
    """OpenAI-compatible server of a model that proposes too, up to and without `/chat/completions` (paper:
    DeepSeek-Coder-V2)."""
    model: str | None = None
    """Its name there."""
    per_line: Positive = 1
    """Answers of the model for each line, of each kind."""
    max_tokens: Positive = 512
    """Of an answer, at most."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""

    @model_validator(mode="after")
    def _somebody_proposes(self) -> Self:
        if (self.server is None) != (self.model is None):
            raise ValueError("server and model go together: set both or neither")
        if not self.catalogue and self.server is None:
            raise ValueError("catalogue = false without a server leaves nobody to propose mutants")
        return self


class PrmSettings(Section):
    """One process reward model, or outcome reward model."""

    kind: Literal["causal", "encoder", "ngrams"] = "causal"
    """causal: a language model with a value head. encoder: reads (problem, prefix), once per line. ngrams: a linear
    model on text. See docs/prm.md."""
    scope: Literal["line", "program"] = "line"
    """program: an outcome reward model (ORM), one score for the whole program."""
    init: Path | None = None
    """Folder of the model to start from, or its name on the Hugging Face Hub. Absent: the SFT policy. An encoder needs
    one; n-grams start from nothing. What does not share the policy's tokenizer scores text, and cannot start a
    critic."""
    layers: Positive | None = None
    """causal: so many of the first layers of the model to start from; absent: all. A smaller PRM scores faster."""
    target: Literal["sign", "progress", "soft"]
    """sign: regression on the labels -1, 0, +1 (paper); encoders and n-grams learn the logit of "right" from the same
    labels. progress: on the share of the program that is done and right: min(m, m*)/T; with labels by `splice` what the
    program that completes it shows to be done; with exact labels operations done. soft: on the share of completions
    that passed, 0 to 1, as labels.strategy = "soft" measures it."""
    labels: Literal["search", "oracle"] = "search"
    """search: the run's own (`labels.source`). oracle: exact labels of the embedded benchmark; an upper bound for
    analysis, clearly not the method."""
    select: Literal["full", "remove-hard", "medium-only", "revised-only"] = "full"
    """Which labelled responses it is trained on (paper: Table 2); see `psgpo.labeling.select`."""
    medium: Annotated[tuple[Fraction, Fraction], AfterValidator(ordered)] = (0.0, 1.0)
    """medium-only: pass rates strictly between these."""
    responses: Positive | None = None
    """Train on so many labelled responses, at most, of as few problems as that takes; absent: all of them."""
    noise: Fraction = 0.0
    """For studies of sensitivity: share of the responses trained on whose m* is replaced by any number of lines from 0
    to T, each as likely. Responses that measure the PRM keep theirs."""
    twins: bool = False
    """Learn from twins of the failed responses too: programs that are made of one and a right ending, and run. For
    labels by `splice` with `references`; see docs/labels.md."""
    epochs: Positive = 12
    """At most: the best epoch on a slice of the training problems is kept."""
    batch_size: Positive = 16
    """Programs per update."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW."""
    warmup: Fraction = 0.05
    """As `sft.warmup`."""
    schedule: Schedule = "cosine"
    """As `sft.schedule`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of the optimizers."""
    neutral_labels: bool = True
    """Comment lines are labelled 0 (paper). Off: they carry the label of the prefix, as code lines do."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a smaller held-out loss; 0: never. The best epoch is kept either way."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: good and bad lines weigh the same in sum. none: every line weighs the same (paper)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Targets of `sign` shrink by this share towards 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of a small model trained from scratch, at `muon_learning_rate`; AdamW for the rest."""
    muon_learning_rate: PositiveFloat = 0.02
    """Of Muon, with `optimizer = "muon"`."""
    microbatch_tokens: Positive | None = None
    """As `rl.microbatch_tokens`; not for n-gram models and encoders."""

    @model_validator(mode="after")
    def _classes_exist(self) -> Self:
        if self.target != "sign" and (self.class_weights != "none" or self.label_smoothing):
            raise ValueError("class_weights and label_smoothing are for target 'sign': no other target has classes")
        return self

    @model_validator(mode="after")
    def _twins_are_of_labels(self) -> Self:
        if self.twins and (self.labels == "oracle" or self.noise):
            raise ValueError("twins are made of the run's own labels; leave labels = 'oracle' and noise out, or twins")
        return self

    @model_validator(mode="after")
    def _rates_exist(self) -> Self:
        if self.target == "soft" and (self.labels == "oracle" or not self.neutral_labels):
            raise ValueError("target 'soft' is the success rates of code lines: leave labels and neutral_labels out")
        if self.target == "soft" and self.noise:
            raise ValueError("noise replaces m*, and target 'soft' does not read it; leave noise out")
        return self

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind == "encoder" and self.init is None:
            raise ValueError("kind 'encoder' needs init: the folder of an encoder, or its name on the Hub")
        if self.kind == "ngrams" and self.init is not None:
            raise ValueError("kind 'ngrams' starts from nothing; leave init out")
        if self.from_policy:
            return self
        if self.kind != "causal" and (self.optimizer, self.microbatch_tokens, self.layers) != ("adamw", None, None):
            raise ValueError(
                f"optimizer = 'muon', microbatch_tokens and layers are for kind 'causal', not {self.kind!r}"
            )
        for key, value in (
            ("target", "sign"),
            ("labels", "search"),
            ("select", "full"),
            ("neutral_labels", True),
            ("responses", None),
            ("noise", 0.0),
            ("twins", False),
        ):
            if getattr(self, key) != value:
                raise ValueError(
                    f"{key} = {getattr(self, key)!r} needs a PRM of lines that starts from the policy: kind 'causal', "
                    "scope 'line', no init"
                )
        return self

    @property
    def from_policy(self) -> bool:
        """A PRM of lines on the SFT policy's trunk, in the policy's token ids."""
        return self.kind == "causal" and self.scope == "line" and self.init is None

    def training(self) -> dict[str, Any]:
        """How weights are learned, as JSON values; not what they are the weights of."""
        return self.model_dump(mode="json", exclude={"kind", "scope", "init"})


class ArmSettings(Section):
    """One RL run, from the SFT policy."""

    line_reward: LineRewardName = "none"
    """none: unit tests only. sum: λ/T · R(x, y^(≤m)) at each line end (PSGPO's DenseReward).
    progress: λ times the increments of the running maximum of R, never negative.
    difference: λ times R_m - R_(m-1) (PAV). redistribute: a failed response's -λ, placed where R falls.
    min-form: λ times what adds up to about the least R (PURE). first-error: λ/T on lines before the first with R < 0,
    -λ/T on that one (after VPPO).
    program: λ times an ORM's score of the whole program, at the last token. See docs/reward-shapes.md."""
    start_score: Annotated[float, Field(ge=-1, le=1)] = 1.0
    """difference: R_0, the score of the program without a line. When left out: 1 (it can be completed) with a PRM of
    target sign or the oracle, 0 with progress and soft."""
    prm: str | None = None
    """Name of the PRM behind the line reward, or `oracle`: the embedded benchmark's exact labels (upper bound)."""
    line_score: Literal["score", "signed"] = "score"
    """What R is. score: the PRM's own number, near -1 to 1 for `causal`, a logit for `encoder` and `ngrams`.
    signed: 2 P - 1 in [-1, 1], P the probability that the prefix is right: calibrated for PRMs that read text,
    (R + 1)/2 for one on the policy's own trunk, which then reads the response's text, not the sampled ids."""
    unit_test_reward: Annotated[float, Field(ge=0)] = 1.0
    """Reward at the last token of a response that passes. 0 in PRLCoder's arms."""
    partial_credit: Annotated[float, Field(ge=0)] = 0.0
    """Times the share of test cases that hold: reward at the last token of a response that fails. At most
    `unit_test_reward`. The control for line rewards, which needs no PRM (VeRPO)."""
    value_init: str | None = None
    """Name of the PRM whose weights start the critic (PSGPO's ValueInit); absent: SFT trunk and a fresh head."""
    value_map: Literal["fit", "head", "probability", "identity"] = "fit"
    """How a PRM score R starts as a value: fit: a·R + b by least squares on returns of the first policy
    (rl.value_fit_responses of them); probability: (R + 1)/2; identity: R. head: the PRM's trunk with a head fitted to
    these returns; without value_init the same on the trunk that a critic starts from anyway, as a control."""
    lambda_fail: Annotated[float, Field(ge=0)] = 0.25
    """λ of responses that fail the tests."""
    lambda_pass: Annotated[float, Field(ge=0)] = 0.025
    """λ of responses that pass."""
    length_norm: bool = True
    """Divide `sum` (paper) and `first-error` by T, the number of lines. Off: lines pay about T times as much."""
    neutral_lines: bool = True
    """No line reward on comments, blank lines and docstrings (paper). Off: they are paid as code is."""
    rl: ArmRlSettings | None = None
    """PPO's settings, where this arm has others than the table `rl`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.line_reward == "none") != (self.prm is None):
            raise ValueError(
                "line_reward and prm go together: set both (line_reward 'sum', 'progress' or another of "
                "docs/reward-shapes.md) or neither"
            )
        pays_lines = self.line_reward != "none" and self.lambda_fail + self.lambda_pass
        if self.partial_credit > self.unit_test_reward:
            raise ValueError(
                f"partial_credit = {self.partial_credit:g} is more than unit_test_reward = {self.unit_test_reward:g}: "
                "a response that nearly passes would earn more than one that passes; make them equal, or lower it"
            )
        if not self.unit_test_reward and not pays_lines:
            raise ValueError(
                "unit_test_reward = 0 without a line_reward, or with lambda_fail = lambda_pass = 0, leaves nothing to "
                "learn from"
            )
        if self.line_reward == "program" and not (self.length_norm and self.neutral_lines):
            raise ValueError("length_norm and neutral_lines are about lines: line_reward 'program' has one score")
        if self.line_score == "signed" and (self.line_reward in ("none", "progress") or self.prm == "oracle"):
            raise ValueError("line_score = 'signed' is for line rewards with a trained PRM, other than 'progress'")
        if self.start_score != 1.0 and self.line_reward != "difference":
            raise ValueError("start_score is of line_reward 'difference'; leave it out")
        return self
