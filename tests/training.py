"""Records the convolutional net of examples/convnet.py, trained 30 steps with AdamW, clipping and a schedule.

training.py FILE SEED NUMERICS writes the case of tests/training.rs.
"""

import sys
from pathlib import Path

root = Path(__file__).parent.parent
sys.path.insert(0, str(root / "examples"))
from tch_parity import Recorder, compute_with

import torch
from convnet import ConvNet
from torch import nn

STEPS = 30


def main(path, seed, numerics):
    compute_with(numerics)
    torch.set_num_threads(1)
    torch.manual_seed(int(seed) % 2**60)
    model = ConvNet()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0, "lr": 2e-3}], lr=1e-2)

    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[3e-2, 1e-2], total_steps=STEPS)
    criterion = nn.CrossEntropyLoss()
    with Recorder(path, model, optimizer=optimizer) as rec:
        for _ in range(STEPS):
            image, target = torch.randn(4, 1, 8, 8), torch.randint(3, (4,))
            with rec.watch():
                optimizer.zero_grad()
                rec.loss(criterion(model(image), rec.input("target", target))).backward()
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
                optimizer.step()
                schedule.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
