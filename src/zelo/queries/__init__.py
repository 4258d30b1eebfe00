"""Stage `queries`: queries to train on, written from the documents where there are too few."""
