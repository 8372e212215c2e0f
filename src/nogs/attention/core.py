"""The core that reads all glimpses at once: self-attention over a set, in place of a recurrent state.

h_t = f({e_1, ..., e_t}) of the embedded glimpses e: two blocks of self-attention over them and a learned token, whose
output is h_t (Vaswani et al. 2017; Lee et al. 2019, *Set Transformer*). In the first block a glimpse can read what
another one says, and in the second the token reads the glimpse that this points to. A GRU has to keep in one vector
whatever a later glimpse may give a meaning to. The state does not depend on the order of the glimpses.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 4


class AttentionCore(nn.Module):
    """f: a set of n >= 0 embedded glimpses of ``width`` features → a state of ``hidden_size`` units."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.width, self.hidden_size = width, hidden_size
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.glimpses = SelfAttention(width)
        self.token = SelfAttention(width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden_size))

    def forward(self, embedded: Float[Tensor, "B n e"]) -> Float[Tensor, "B h"]:
        tokens = torch.cat((self.start.expand(embedded.shape[0], -1, -1), embedded), dim=1)
        tokens = self.glimpses(tokens, tokens)
        state: Tensor = self.out(self.token(tokens[:, :1], tokens)[:, 0])
        return state


class SelfAttention(nn.Module):
    """A block of a transformer that normalises first: attention with `HEADS` heads, then a perceptron, each added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.each = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, asking: Float[Tensor, "B m e"], tokens: Float[Tensor, "B n e"]) -> Float[Tensor, "B m e"]:
        """Return the tokens ``asking``, which are among ``tokens``, after they read all of these."""
        query = self.query(self.norm(asking)).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key, value = self.key_value(self.norm(tokens)).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        read = asking + self.mix((weights @ value).transpose(1, 2).flatten(2))
        return read + self.each(read)
