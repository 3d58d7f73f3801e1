"""The reference example: data, encoders, training and evaluation around the losses of ``sslosses``."""
