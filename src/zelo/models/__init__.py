"""Backbones, heads and the folders that models ship in."""
