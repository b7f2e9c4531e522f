"""Records the Transformer encoder layer of encoder.rs: multi-head attention, and two inputs, the sequence and
a padding mask."""

import sys

import torch
from tch_parity import Recorder, compute_with
from torch import nn


def main(path):
    compute_with("portable")
    torch.manual_seed(3)
    model = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, dropout=0.0, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with Recorder(path, model, optimizer=optimizer, loss=nn.MSELoss()) as rec:
        for _ in range(3):
            rec.step(torch.randn(2, 5, 8), torch.randn(2, 5, 8), src_key_padding_mask=padding)


if __name__ == "__main__":
    main(sys.argv[1])
