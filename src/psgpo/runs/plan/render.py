"""A plan as text."""

from __future__ import annotations

from psgpo.runs.plan.devices import DECODING_SHARE, FRAGMENTS, GIB, OVERHEAD, TRAINING_SHARE, room
from psgpo.runs.plan.make import Plan
from psgpo.runs.plan.work import label_completions


def render(plan: Plan) -> str:
    """Assumptions, memory by stage, work by stage, and whether it fits."""
    recipe, assumed, wanted = plan.recipe, plan.assumed, plan.wanted
    lora = recipe.model.lora
    model = f"{recipe.model.path or 'a new psgpo-shift'}, {plan.parameters['policy']:,} parameters"
    lines = [
        f"{recipe.name} on one {wanted.device} ({plan.device.memory / GIB:.0f} GiB)",
        f"model      {model}; critic {plan.parameters['critic']:,}; {recipe.model.dtype}"
        + (f", LoRA of rank {lora.rank}" if lora else "")
        + (", checkpointing" if recipe.model.gradient_checkpointing else ""),
        f"assumed    prompts of {assumed.prompt_tokens} tokens, responses of {assumed.response_tokens} "
        f"({assumed.lines} lines), {assumed.pass_rate:.0%} of them pass; memory for the longest rows",
        f"           training at {TRAINING_SHARE:.0%} of peak arithmetic, decoding at "
        f"{DECODING_SHARE[recipe.sampling.engine]:.0%} of memory bandwidth",
        *(f"           {note}" for note in plan.notes),
        "",
        "peak memory of a process",
    ]
    for stage in plan.memory:
        parts = ", ".join(f"{name} {size_text(size)}" for name, size in stage.parts.items())
        lines.append(f"  {stage.stage:<16} {size_text(stage.peak):>10}   {parts}")
    lines += [
        f"  room for tensors {size_text(room(plan.device.memory)):>10}   beside {OVERHEAD / GIB:.0f} GiB for the "
        f"device's own and {FRAGMENTS:.0%} lost to fragments",
        "",
        f"  {'stage':<22} {'sampled tokens':>16} {'programs run':>14} {'trained tokens':>16} {'hours':>9}",
    ]
    for work in plan.work:
        hours = plan.seconds[work.stage] / 3600
        lines.append(
            f"  {work.stage:<22} {work.generated:>16,} {work.judged:>14,} {work.trained:>16,} {_hours(hours):>9}"
        )
    total = sum(plan.seconds.values()) / 3600
    lines.append(
        f"  {'all':<22} {sum(w.generated for w in plan.work):>16,} {sum(w.judged for w in plan.work):>14,} "
        f"{sum(w.trained for w in plan.work):>16,} {_hours(total):>9}"
    )
    lines.append("  hours are estimates for one device, one stage at a time, without the time of the programs")
    if recipe.prm and recipe.labels.source == "search":
        most, expected = label_completions(recipe, assumed)
        lines.append(
            f"labels     {recipe.labels.strategy}: {expected} completions expected for a failed response of "
            f"{assumed.lines} lines, {most} at most"
        )
    lines.append("")
    if plan.remedy is not None:
        largest = plan.largest
        lines.append(f"DOES NOT FIT: {largest.stage} needs {size_text(largest.peak)}; {plan.remedy}")
    elif recipe.processes > 1 and plan.largest.peak * 2 > room(plan.device.memory):
        lines.append("fits, one stage at a time: set processes = 1")
    else:
        lines.append("fits")
    return "\n".join(lines) + "\n"


def size_text(size: int) -> str:
    """Bytes for people.

    >>> size_text(3 << 19), size_text(5 << 30)
    ('1.5 MiB', '5.0 GiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"
