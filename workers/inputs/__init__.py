"""Inputs that are too long: counted in tokens, and cut to the budget that a task gives to each part of its prompt."""

from workers.inputs.fit import Fit, fitting
from workers.inputs.tokenizer import TokenizerInvalid, read_tokenizer

__all__ = ["Fit", "TokenizerInvalid", "fitting", "read_tokenizer"]
