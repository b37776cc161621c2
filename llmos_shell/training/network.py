"""A Llama-family network in torch: RMSNorm, rotary positions (adjacent pairs, as llama.cpp has them), SwiGLU, tied
embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 352
    context: int = 256
    rope_base: float = 10000.0
    epsilon: float = 1e-5
    dropout: float = 0.1


class Layer(nn.Module):
    """Attention and feed-forward, each with its norm and a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.attention_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.hidden_norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [batch, length, width]; cos, sin [length, head width / 2]."""
        batch, length, width = x.shape
        heads = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.shape.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, cos, sin), _rotate(key, cos, sin), value, is_causal=True
        )
        x = x + self.dropout(self.output(mixed.transpose(1, 2).reshape(batch, length, width)))
        gate, up = self.gate_up(self.hidden_norm(x)).chunk(2, dim=-1)
        inner = self.dropout(self.down(functional.silu(gate) * up))
        after: Tensor = x + inner
        return after


class Network(nn.Module):
    """Token ids [batch, length] to logits [batch, length, vocabulary]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.epsilon)
        self.dropout = nn.Dropout(shape.dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.04 / (2 * shape.layers) ** 0.5 if deep else 0.04)

    def hidden(self, ids: Tensor) -> Tensor:
        """Final states [batch, length, width]."""
        half = self.shape.width // self.shape.heads // 2
        speeds = self.shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(ids.shape[1], dtype=torch.float32)[:, None] * speeds
        x = self.dropout(self.embedding(ids))
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        return functional.linear(self.hidden(ids), self.embedding.weight)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
