//! A checkpoint computes modules again in backward. The recording is that of the run without checkpoints.

#![cfg(feature = "libtorch")]

use crate::common::{assert_same, recorded_file};
use serde_json::Value;
use tch_parity::Trace;

/// A net in blocks, of which two are called twice: the sum of two gradients is the same in any order, and that of
/// three is not. `call` calls each, `outer` calls two of them, and `sequence` the layers after them.
const NET: &str = r#"
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act, self.id, self.norm = nn.Linear(6, 6), nn.Tanh(), nn.Identity(), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.act(self.fc(self.id(x))) + x), x * 2

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(3, 6), nn.Linear(6, 1)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh()])

    def forward(self, x):
        x = self.a(x)
        for block in [self.blocks[0], self.blocks[1], self.blocks[0]]:
            y, z = call(block, x)
            x = y + z
        x = outer(lambda x: sum(call(self.blocks[2], sum(call(self.blocks[2], x)))), x)
        return self.c(sequence(self.layers, x))

def in_order(layers, x):
    for layer in layers:
        x = layer(x)
    return x

def record():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with Recorder('case.safetensors', net, optimizer=optimizer, loss=nn.MSELoss(), program=False) as rec:
        for _ in range(2):
            rec.step(torch.randn(4, 3), torch.randn(4, 1))

def plain(f, x): return f(x)
def reentrant(f, x): return checkpoint(f, x, use_reentrant=True)
def other(f, x): return checkpoint(f, x, use_reentrant=False)
"#;

fn recorded(name: &str, how: &str) -> (Trace, String) {
    let (file, said) = recorded_file(name, &format!("{NET}\n{how}\nrecord()\n"));
    // torch.utils.checkpoint warns there of a checkpoint in a checkpoint.
    let own = said.lines().filter(|line| line.starts_with("recorder: "));
    (Trace::load(file).unwrap(), own.collect::<Vec<_>>().join("\n"))
}

#[test]
fn checkpoints_of_every_kind_record_the_plain_run() {
    let (plain, said) =
        recorded("checkpoint_plain", "call, outer, sequence = plain, plain, in_order");
    assert_eq!(said, "");
    assert!(plain.get("grad/layers.0").is_some(), "which is overwritten in place");
    for (call, outer) in [
        ("reentrant", "plain"),
        ("other", "plain"),
        ("plain", "reentrant"),
        ("plain", "other"),
        ("reentrant", "reentrant"),
        ("other", "other"),
        ("reentrant", "other"),
        ("other", "reentrant"),
    ] {
        let reentrant = if call == "plain" { outer } else { call } == "reentrant";
        let flag = if reentrant { "True" } else { "False" };
        let how = format!(
            "call, outer = {call}, {outer}\n\
             sequence = lambda layers, x: checkpoint_sequential(layers, 2, x, use_reentrant={flag})"
        );
        let how = how.replace("sequential(layers", "sequential(list(layers)");
        let (trace, said_too) = recorded(&format!("checkpoint_{call}_{outer}"), &how);
        println!("{call} {outer}");
        assert_same(&trace, &plain);
        assert_eq!(said_too, said);
        assert_eq!(trace.run::<Value>().unwrap(), plain.run::<Value>().unwrap());
    }
}

#[test]
fn what_was_recorded_wrongly_is_recorded_as_without_a_checkpoint() {
    // The module b alone is checkpointed, as in the report of PyTorch's issue 81296.
    let net = |b: &str, forward: &str| {
        format!(
            "from torch.utils.checkpoint import checkpoint, checkpoint_sequential\n\
             class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n        \
             self.a, self.b, self.c = nn.Linear(3, 3), {b}, nn.Linear(3, 1)\n    \
             def forward(self, x):\n        return self.c({forward})\n\
             net = M()\noptimizer = torch.optim.SGD(net.parameters(), lr=0.1)\n\
             with Recorder('case.safetensors', net, optimizer=optimizer, loss=nn.MSELoss(), program=False) as rec:\n    \
             rec.step(torch.randn(2, 3), torch.randn(2, 1))\n"
        )
    };
    let trace = |name: &str, program: String| {
        let (file, said) = recorded_file(name, &program);
        assert_eq!(said, "");
        Trace::load(file).unwrap()
    };
    let b = "nn.Linear(3, 3)";
    let plain = trace("checkpoint_b", net(b, "self.b(self.a(x))"));
    let checkpointed = net(b, "checkpoint(self.b, self.a(x), use_reentrant=True)");
    assert_same(&trace("checkpoint_b_re", checkpointed), &plain);
    let b = "nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))";
    let plain = trace("checkpoint_seq", net(b, "self.b[2](self.b[1](self.b[0](self.a(x))))"));
    for flag in ["True", "False"] {
        let forward = format!("checkpoint_sequential(self.b, 3, self.a(x), use_reentrant={flag})");
        assert_same(&trace("checkpoint_seq_re", net(b, &forward)), &plain);
    }
}
