"""The notebook's net, as the references run it and as the filled-in notebook shows it."""

import torch
from torch import nn


class ThreeLayerNet(nn.Module):
    def __init__(self, d1, d2, d3):
        super().__init__()
        self.fc1 = nn.Linear(d1, d2)
        self.fc2 = nn.Linear(d2, d3)
        self.fc3 = nn.Linear(d3, 1)

    def forward(self, x):
        z2 = self.fc1(x)
        h2 = torch.relu(z2)
        z3 = self.fc2(h2)
        h3 = torch.relu(z3)
        z = self.fc3(h3)
        h = torch.sigmoid(z)
        # What is computed on the way is kept, and its gradients with it.
        results = dict(x=x, z2=z2, h2=h2, z3=z3, h3=h3, z=z, h=h)
        for v in results.values():
            v.retain_grad()
        return h, results
