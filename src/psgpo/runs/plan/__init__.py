"""`psgpo plan`: what a recipe needs before it runs, from the model's config.json alone."""

from psgpo.runs.plan.make import Plan, Wanted, make_plan
from psgpo.runs.plan.render import render

__all__ = ["Plan", "Wanted", "make_plan", "render"]
