"""Records the convolutional net of examples/convnet.py, trained 30 steps with AdamW, clipping and a schedule.

training.py FILE SEED NUMERICS records the optimizer's state after steps 15 and 30, too (tests/training.rs).
"""

import sys
from pathlib import Path

root = Path(__file__).parent.parent
sys.path[:0] = [str(root / "scripts"), str(root / "examples")]
from recorder import Recorder, compute_with

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

    def clip(*_):
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)

    optimizer.register_step_pre_hook(clip)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[3e-2, 1e-2], total_steps=STEPS)
    with Recorder(path, model, optimizer=optimizer, loss=nn.CrossEntropyLoss()) as rec:
        for k in range(1, STEPS + 1):
            rec.step(torch.randn(4, 1, 8, 8), torch.randint(3, (4,)))
            schedule.step()
            if k in (STEPS // 2, STEPS):
                for name, p in model.named_parameters():
                    for key, value in optimizer.state[p].items():
                        rec.trace.push(f"step/{k}/optimizer/{name}/{key}", value)


if __name__ == "__main__":
    main(*sys.argv[1:])
