"""Train rerankers and embedding models without labels, by the zELO method (arXiv 2509.12541)."""

__version__ = "0.1.0"
