"""Stage `compare`: which pairs of a query's candidates are asked about."""
