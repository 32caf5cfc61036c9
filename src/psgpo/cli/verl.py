"""`psgpo verl`: hand an arm to verl, and take its policy back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psgpo.cli.stages import Overrides, RecipeFile, load_run_recipe
from psgpo.engines.verl.overrides import Cluster
from psgpo.runs.directory import RunDirectory

app = typer.Typer(help="Train an arm on a cluster with verl (Ray, FSDP, vLLM).", no_args_is_help=True)
_DEFAULT = Cluster()


@app.command()
def export(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="New folder, to be copied to the cluster.", show_default=False)],
    arm: Annotated[str, typer.Option(help="Name of an arm of the recipe.")] = "baseline",
    gpus: Annotated[int, typer.Option(min=1, help="Per node.")] = _DEFAULT.gpus,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = _DEFAULT.nodes,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs that share a copy of the policy while sampling.")
    ] = _DEFAULT.tensor_parallel,
    reward_workers: Annotated[
        int, typer.Option(min=1, help="Processes that grade and score.")
    ] = _DEFAULT.reward_workers,
    tokens_per_gpu: Annotated[int, typer.Option(min=1, help="Tokens of one pass.")] = _DEFAULT.tokens_per_gpu,
    prm_gpus: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="The PRM in one actor with so many GPUs of its own; default: in each reward worker, on CPUs."
        ),
    ] = None,
    prm_server: Annotated[
        str | None, typer.Option(help="The PRM on this server: vllm serve PRM --runner pooling.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write what verl needs to train one arm of a run: models, data with tests, overrides, launch script."""
    from psgpo.runs.verl import export_arm

    cluster = Cluster(
        gpus=gpus,
        nodes=nodes,
        tensor_parallel=tensor_parallel,
        reward_workers=reward_workers,
        tokens_per_gpu=tokens_per_gpu,
    )
    run = RunDirectory.create(load_run_recipe(recipe, overrides))
    export_arm(run, arm, out, cluster, prm_gpus=prm_gpus, prm_server=prm_server)
    sys.stderr.write(f"written: {out}; on the cluster, beside psgpo: pip install -r requirements.txt, then ./run.sh\n")


@app.command(name="import-checkpoint")
def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="global_step_N of verl, or the folder of all steps.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="New folder for the policy.", show_default=False)],
) -> None:
    """Turn the policy of a verl checkpoint into a model folder for `psgpo labels`, `psgpo eval` and recipes."""
    from psgpo.engines.verl.checkpoint import import_checkpoint as convert

    convert(checkpoint, out)
    sys.stderr.write(f"written: {out}\n")
