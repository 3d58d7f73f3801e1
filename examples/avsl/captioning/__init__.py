"""Captioning of training frames by a multimodal model: foreground for sounding objects, background for silent ones."""
