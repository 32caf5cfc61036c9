"""Measuring PRMs (`psgpo prm eval`): against labels, against trivial baselines, under harmless changes of programs."""
