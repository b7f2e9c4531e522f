"""Records the MLP of mlp.rs: LayerNorm, GELU, and SGD with weight decay and momentum."""

import sys

import torch
from tch_parity import Recorder, compute_with
from torch import nn


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16, eps=1e-3)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc2(self.gelu(self.norm(self.fc1(x))))


def main(path):
    compute_with("portable")
    torch.manual_seed(1)
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    with Recorder(path, model, optimizer=optimizer, loss=nn.CrossEntropyLoss()) as rec:
        for _ in range(3):
            rec.step(torch.randn(8, 6), torch.randint(3, (8,)))


if __name__ == "__main__":
    main(sys.argv[1])
