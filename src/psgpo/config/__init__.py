"""Recipes: TOML files, checked whole before anything runs. No torch.

A recipe that loads is a recipe that can run: unknown keys, wrong types and impossible combinations raise
`UserError` with the key, what was found and what is allowed. The resolved recipe is written into the run directory.
"""

from __future__ import annotations

from psgpo.config.base import Section
from psgpo.config.load import load_recipe, parse_recipe
from psgpo.config.policy import CriticSettings, LoraSettings, ModelSettings, RlSettings, SamplingSettings, SftSettings
from psgpo.config.problems import BenchmarkSource, JsonlSource, OpChainSource, TaskRange
from psgpo.config.recipe import (
    HOW_KEYS,
    EvaluationSettings,
    Recipe,
    SandboxSettings,
    TrackingSettings,
    without_keys,
)
from psgpo.config.rewards import ArmSettings, LabelSettings, MutationSettings, PrmSettings

__all__ = [
    "HOW_KEYS",
    "ArmSettings",
    "BenchmarkSource",
    "CriticSettings",
    "EvaluationSettings",
    "JsonlSource",
    "LabelSettings",
    "LoraSettings",
    "ModelSettings",
    "MutationSettings",
    "OpChainSource",
    "PrmSettings",
    "Recipe",
    "RlSettings",
    "SamplingSettings",
    "SandboxSettings",
    "Section",
    "SftSettings",
    "TaskRange",
    "TrackingSettings",
    "load_recipe",
    "parse_recipe",
    "without_keys",
]
