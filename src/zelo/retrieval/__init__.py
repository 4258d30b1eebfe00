"""Stage `retrieve`: which documents could matter for each query."""
