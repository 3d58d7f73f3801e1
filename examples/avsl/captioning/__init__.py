"""Captions of training frames by a multimodal language model: what sounds in the foreground, what is silent behind."""
