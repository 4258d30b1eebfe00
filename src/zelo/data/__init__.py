"""Stage `load`: collections, whatever form they come in."""
