"""Stage `judge`: which of two documents is more relevant, and never paid for twice."""
