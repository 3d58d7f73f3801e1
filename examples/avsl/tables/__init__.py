"""The paper's tables: which runs they need, the paper's metrics, and ours beside them."""
