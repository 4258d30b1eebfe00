"""Devices: which there are, and one process for each of them."""
