"""The paper's tables: which runs they need, the paper's figures, and ours beside them."""
