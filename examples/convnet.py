"""Records the convolutional net of convnet.rs: BatchNorm in training mode, whose running statistics are
buffers, and max pooling."""

import sys

import torch
from tch_parity import Recorder, compute_with
from torch import nn


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 8, kernel_size=3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(8 * 2 * 2, 3)

    def forward(self, image):
        return self.classifier(self.features(image).flatten(1))


def main(path):
    compute_with("portable")
    torch.manual_seed(2)
    model = ConvNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Recorder(path, model, optimizer=optimizer, loss=nn.CrossEntropyLoss()) as rec:
        for _ in range(2):
            rec.step(torch.randn(4, 1, 8, 8), torch.randint(3, (4,)))


if __name__ == "__main__":
    main(sys.argv[1])
