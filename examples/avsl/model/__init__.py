"""The model: encoders, caption features, and the objective as a Lightning module."""
