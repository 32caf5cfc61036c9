"""`psgpo run RECIPE --dry-run`: everything that can be refused is refused now, and what would run is listed."""

from __future__ import annotations

from psgpo.chats import recipe_template
from psgpo.config import JsonlSource, Recipe
from psgpo.runs.directory import RunDirectory
from psgpo.runs.splits import load_splits
from psgpo.runs.stages import stage_graph
from psgpo.runs.tracking import check_trackers


def dry_run(recipe: Recipe) -> str:
    """Check recipe, run directory, trackers, device, problem files and model folder; write nothing.

    Returns:
        Stages with what each waits for, as text.

    Raises:
        UserError: what a run would have ended with, now or hours later.
    """
    RunDirectory.resolve(recipe)
    check_trackers(recipe)
    from psgpo.models import check_policy_folder, load_tokenizer, require_peft  # loads torch
    from psgpo.runs.opening import chosen_device
    from psgpo.sampling.rows import refuse_encoder_prompts

    if recipe.model.lora is not None:
        require_peft()
    run = RunDirectory(recipe.out, recipe)
    there = (recipe.out / "recipe.json").is_file()
    said = [f"{recipe.name}: {recipe.out} ({'goes on' if there else 'new'})"]
    said += [f"device {chosen_device(recipe)}, {recipe.processes} stages side by side"]
    said += [f"tracking: {', '.join(recipe.tracking.to) or 'none'}"]
    if recipe.model.path is not None:
        said += [f"model: {check_policy_folder(recipe.model.path, context=recipe.sampling.max_new_tokens)}"]
        tokenizer = load_tokenizer(recipe.model.path)
        recipe_template(recipe, tokenizer)
        if recipe.sampling.engine == "vllm":
            refuse_encoder_prompts(tokenizer, "sampling.engine = 'vllm'")
    if recipe.critic.path is not None and recipe.model.path is not None:
        from psgpo.runs.networks import check_critic

        found = check_critic(recipe.critic.path, recipe.model.path, context=recipe.sampling.max_new_tokens)
        said += [f"critic: {found}"]
    if isinstance(recipe.problems, JsonlSource):
        counts = {split: len(problems) for split, problems in load_splits(recipe.problems).items()}
        said += ["problems: " + ", ".join(f"{count} {split}" for split, count in counts.items())]
    graph = stage_graph(recipe)
    width = max(map(len, graph))
    for name, stage in graph.items():
        if run.stage_done(name):
            said.append(f"  {name:<{width}}  done")
        else:
            waits = [need for need in stage.needs if not run.stage_done(need)] if name != "report" else []
            said.append(f"  {name:<{width}}  to do" + (f", after {', '.join(waits)}" if waits else ""))
    return "\n".join(said) + "\n"
