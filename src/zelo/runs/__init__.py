"""Runs, whole: what one will take, its folder, and whether it comes out the same again."""
