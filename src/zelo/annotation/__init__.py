"""People who compare documents in a browser: `zelo annotate`."""
