"""AVGN: learnable class tokens gather the features of their class."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses._checks import check_count, check_floating, check_number, check_option, check_shapes

ASSIGNMENTS = ("soft", "hard")


class ClassGroups(NamedTuple):
    """What :meth:`ClassGrouping.group` returns.

    Attributes:
        groups: (B, M, C), one vector per sample and class; any length.
        assignment: (B, M, L), the share of each feature that belongs to each class; its sum over the classes is 1.
    """

    groups: Tensor
    assignment: Tensor


class ClassGrouping(nn.Module):
    r"""Groups the features of a frame or sound by class, with class tokens and attention.

    1. Features and tokens pass through ``depth`` transformer blocks together.
    2. The tokens exchange information, attend to the features, and become the queries g.
    3. Each feature is divided among the classes, and each class adds its weighted mean to its query:

    .. math::
        A = \mathrm{softmax}_m \big( q(g) \, k(f)^T / \sqrt{C} \big), \quad
        W_{ml} = \frac{A_{ml}}{1 + \sum_l A_{ml}}, \quad g \leftarrow g + o(W v(f))

    f are the L features, m is one of the M classes, and q, k, v, o are linear layers. An MLP of g follows. AVGN has one
    such module per modality. Its tokens are a parameter (M, C) that both share and that starts at 0. Linear layers
    start with a normal distribution of deviation 0.02 and biases of 0.

    Args:
        num_classes: M, at least 1.
        dim: C, a multiple of ``heads``.
        depth: number of transformer blocks, at least 1.
        heads: number of attention heads, at least 1.
        mlp_ratio: width of the hidden layers of the MLPs over C, at least 1.
        drop_path: probability in [0, 1) that a branch of a block is left out for a sample in training.
        assignment: ``"soft"``, as published, or ``"hard"``: each feature belongs to one class, with the gradient of the
            soft assignment, and with Gumbel noise in training.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range or unknown.

    Source: Mo and Tian, "Audio-Visual Grouping Network for Sound Localization from Mixtures" (AVGN), its public code;
    not compared with the paper's text.

    Example:
        >>> import torch
        >>> grouping = ClassGrouping(5, dim=16, depth=1, heads=2)
        >>> tokens = torch.nn.Parameter(torch.zeros(5, 16))
        >>> frames = torch.randn(3, 16, 7, 7)
        >>> grouping(frames.flatten(2).mT, tokens).shape
        torch.Size([3, 5, 16])
        >>> grouping.group(torch.randn(3, 1, 16), tokens).assignment.shape  # one feature per sound
        torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int = 512,
        depth: int = 3,
        heads: int = 8,
        mlp_ratio: int = 4,
        drop_path: float = 0.1,
        assignment: str = "soft",
    ) -> None:
        super().__init__()
        self.num_classes = check_count("num_classes", num_classes)
        dim, depth, heads = check_count("dim", dim), check_count("depth", depth), check_count("heads", heads)
        if dim % heads:
            raise ValueError(f"Expected `dim` to be a multiple of `heads` ({heads}), but got {dim}")
        hidden = dim * check_count("mlp_ratio", mlp_ratio)
        drop_path = check_number("drop_path", drop_path, least=0)
        if drop_path >= 1:
            raise ValueError(f"Expected `drop_path` to be below 1, but got {drop_path}")
        check_option("assignment", assignment, ASSIGNMENTS)
        self.assignment = assignment
        self.blocks = nn.ModuleList(_Block(dim, heads, hidden, drop_path) for _ in range(depth))
        self.feature_norm, self.token_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mixer, self.mixed_norm = _mlp(num_classes, max(dim // 2, 1)), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.attended_mlp, self.attended_norm = nn.Sequential(nn.LayerNorm(dim), _mlp(dim, hidden)), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.group_mlp = nn.Sequential(nn.LayerNorm(dim), _mlp(dim, hidden))
        self.apply(_initialize)

    def group(self, features: Tensor, tokens: Tensor) -> ClassGroups:
        """Computes the groups and the assignment of the features to them.

        Args:
            features: (B, L, C), floating, L >= 1.
            tokens: (M, C), floating.

        Raises:
            TypeError: if an input is not a floating tensor.
            ValueError: if shapes or devices do not fit.
        """
        check_floating("features", features)
        check_floating("tokens", tokens)
        sizes = check_shapes(features=(features, "B L C"), tokens=(tokens, "M C"))
        dim = self.query.in_features
        if sizes["L"] == 0 or sizes["C"] != dim:
            raise ValueError(
                f"Expected `features` to have shape (B, L, C) with L >= 1 and C = {dim}, but got "
                f"{tuple(features.shape)}"
            )
        if sizes["M"] != self.num_classes:
            raise ValueError(
                f"Expected `tokens` to have shape (M, C) with M = {self.num_classes}, but got {tuple(tokens.shape)}"
            )
        sequence = torch.cat([features, tokens.expand(features.shape[0], -1, -1)], 1)
        for block in self.blocks:
            sequence = block(sequence)
        features = self.feature_norm(sequence[:, : sizes["L"]])
        tokens = self.token_norm(sequence[:, sizes["L"] :])
        groups = self.mixed_norm(self.token_mixer(tokens.mT).mT)
        groups = groups + self.attention(groups, features, features, need_weights=False)[0]
        groups = self.attended_norm(groups + self.attended_mlp(groups))
        assignment = self._assign(self.query(groups) @ self.key(features).mT / dim**0.5)
        groups = groups + self.output(_class_weights(assignment) @ self.value(features))
        return ClassGroups(groups + self.group_mlp(groups), assignment)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Computes the groups, (B, M, C), of features (B, L, C) and tokens (M, C)."""
        return self.group(features, tokens).groups

    def _assign(self, scores: Tensor) -> Tensor:
        """The share of each feature that belongs to each class, from scores (B, M, L)."""
        if self.assignment == "soft":
            return scores.softmax(1)
        if self.training:
            return F.gumbel_softmax(scores, hard=True, dim=1)
        soft = scores.softmax(1)
        hard = torch.zeros_like(soft).scatter(1, soft.argmax(1, keepdim=True), 1)
        return hard + (soft - soft.detach())


def _class_weights(assignment: Tensor) -> Tensor:
    """W: the assignment (B, M, L) over its sum per class, plus 1 so that a class without features gets no vector."""
    return assignment / (assignment.sum(-1, keepdim=True) + 1)


class _Block(nn.Module):
    """A pre-norm transformer block, of whose branches each sample leaves out some in training."""

    def __init__(self, dim: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = nn.MultiheadAttention(dim, heads, batch_first=True), _mlp(dim, hidden)
        self.drop_path = drop_path

    def forward(self, sequence: Tensor) -> Tensor:
        normed = self.attention_norm(sequence)
        sequence = sequence + self._dropped(self.attention(normed, normed, normed, need_weights=False)[0])
        return sequence + self._dropped(self.mlp(self.mlp_norm(sequence)))

    def _dropped(self, branch: Tensor) -> Tensor:
        return branch * F.dropout(branch.new_ones(branch.shape[0], 1, 1), self.drop_path, self.training)


def _mlp(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.trunc_normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
