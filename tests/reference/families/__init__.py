"""Tiny models of the families beyond `forward.py`'s, each with a writer and a forward pass of its own.

`MODELS` maps the name of a model to its architecture, the type of its matrices, a function that writes its tensors and
metadata, and one that computes logits `[tokens, vocab]`.
"""
from families import cohere, dense, glm, mla, moe, shared, temperature

# Written and recorded in this order.
MODELS = moe.MODELS | dense.MODELS | glm.MODELS | cohere.MODELS | mla.MODELS
MODELS |= shared.MODELS | temperature.MODELS
