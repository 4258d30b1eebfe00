"""Stage `rate`: from comparisons to Elos, with what is not known about them."""
