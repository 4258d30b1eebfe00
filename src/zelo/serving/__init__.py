"""A small server to try a model behind an existing client."""
