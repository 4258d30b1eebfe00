"""Stages `distil` and `train`: DataModules, LightningModules and objectives."""
