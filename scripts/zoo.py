"""Records two training steps of real architectures with random weights, each twice and in processes of their own, and
checks each recording.

    zoo.py [NAME…]     prints a table; exits with 1 if two recordings differ, anything is left out, or a replay differs
    zoo.py --port [NAME…]  ports a recording of each, builds the port and runs its test, and prints a table
    zoo.py NAME FILE   records one architecture
    zoo.py --operators  prints each operator of the programs once, for tests/zoo_operators.txt
    zoo.py --speed EXAMPLE TCH_PARITY  measures programs for scripts/bench
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = 64


def vision(name):
    import torchvision

    def make():
        options = {"image_size": SIZE} if name == "vit_b_16" else {"init_weights": True} if name == "googlenet" else {}
        return getattr(torchvision.models, name)(num_classes=10, **options)

    return make


def text(config, model, **options):
    import transformers

    def make():
        sizes = {"vocab_size": 50, **options}
        return getattr(transformers, model)(getattr(transformers, config)(**sizes))

    return make


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}
KEYS = {"num_key_value_heads": 2}
IMAGES = (
    "resnet18", "mobilenet_v3_small", "densenet121", "googlenet", "shufflenet_v2_x0_5", "efficientnet_b0",
    "convnext_tiny", "swin_t", "vit_b_16",
)
TEXTS = {
    "BERT": ("BertConfig", "BertForMaskedLM", SMALL),
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, **KEYS}),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**SMALL, **KEYS, "head_dim": 8}),
    "Whisper": ("WhisperConfig", "WhisperForConditionalGeneration", WHISPER),
    "T5": ("T5Config", "T5ForConditionalGeneration", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0}),
}


def record(name, path, keep="values"):
    import torch
    from tch_parity import Recorder, compute_with

    compute_with("portable")
    torch.manual_seed(0)
    if name in IMAGES:
        model = vision(name)()
        batches = [((torch.randn(2, 3, SIZE, SIZE),), torch.randint(10, (2,))) for _ in range(2)]

        def loss_of(args, target):
            output = model(*args)
            outputs = [output] if isinstance(output, torch.Tensor) else output  # GoogLeNet's, with its two auxiliary ones
            return sum(torch.nn.functional.cross_entropy(output, target) for output in outputs)
    else:
        config, kind, options = TEXTS[name]
        model = text(config, kind, **options)()
        model.train()
        sound = name == "Whisper"
        batches = [
            ((torch.randn(2, 8, 40) if sound else torch.randint(1, 50, (2, 8)),), torch.randint(3, 50, (2, 8)))
            for _ in range(2)
        ]

        def loss_of(args, target):
            given = {"input_features" if sound else "input_ids": args[0]}
            return model(**given, labels=target, use_cache=False).loss

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with Recorder(path, model, optimizer=optimizer, keep=keep) as rec:
        for args, target in batches:
            with rec.watch():
                optimizer.zero_grad()
                rec.loss(loss_of(args, target)).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()


def recorded(name, folder):
    """The digest of a recording, how many tensors it has, its size in MiB, and what it lacks."""
    path = Path(folder) / "case.safetensors"
    subprocess.run([sys.executable, "-W", "ignore", __file__, name, path], check=True, stderr=subprocess.DEVNULL)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    about = json.loads(header["__metadata__"]["tch-parity"])
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    order = [name for name in about["order"] if not name.startswith("program/")]
    return digest, order, path.stat().st_size / 2**20, about["run"].get("not_recorded", [])


# As far as one machine can compute as others do: the instruction sets that MKL and oneDNN may use, and threads.
MACHINES = [
    {"MKL_ENABLE_INSTRUCTIONS": mkl, "ONEDNN_MAX_CPU_ISA": onednn, "OMP_NUM_THREADS": threads}
    for mkl, onednn in (("SSE4_2", "SSE41"), ("AVX2", "AVX2"), ("AVX512", "AVX512_CORE"))
    for threads in ("1", "2")
]


def replayed(folder, machine={}):
    """What `check` says of a recording: that all tensors are bitwise the same, or its verdict."""
    command = [Path(__file__).with_name("run"), "check", Path(folder) / "case.safetensors"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **machine}).stdout.splitlines()
    verdict = said[-1].rpartition(" (")[2] if said else "no verdict"
    return verdict.split(", ")[0] if said and said[-1].startswith("same: ") else f"NO: {verdict}"


def row(name, folder):
    """A row of the table of docs/zoo.md, and whether all in it is well."""
    (digest, order, size, lacks), again = recorded(name, folder), recorded(name, folder)[0]
    replay = replayed(folder)
    varied = sum(replayed(folder, machine) == replay for machine in MACHINES)
    outputs = {name.split("/", 1)[1] for name in order if name.startswith("forward/")}
    gradients = sum(name.startswith("grad/") and name.split("/", 1)[1] in outputs for name in order)
    same = "yes" if digest == again else "NO"
    said = "; ".join(sorted(lacks)[:3]) + (f"; and {len(lacks) - 3} more" if len(lacks) > 3 else "") or "nothing"
    text = f"| {name} | {len(order)} | {gradients} | {size:.0f} | {same} | {said} | {replay} | {varied} of {len(MACHINES)} |"
    return text, digest == again and not lacks and not replay.startswith("NO") and varied == len(MACHINES)


def ported(name, folder):
    """A row of the table of docs/port.md: what the port of an architecture is, and what its test and clippy say."""
    case, crate = Path(folder) / "case.safetensors", Path(folder) / re.sub(r"\W", "_", name.lower())
    subprocess.run([sys.executable, "-W", "ignore", __file__, name, case, "digests"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([Path(__file__).with_name("run"), "port", case, "--output", crate], check=True)
    root = Path(__file__).parent.parent
    cargo = {"cwd": crate, "env": {**os.environ, "CARGO_TARGET_DIR": root / "target/zoo", "LIBTORCH": root / "libtorch"}}
    said = subprocess.run(["cargo", "test", "--", "--show-output"], **cargo, capture_output=True, text=True).stdout
    clippy = subprocess.run(["cargo", "clippy", "--all-targets"], **cargo, capture_output=True, text=True).stderr
    formatted = subprocess.run(["cargo", "fmt", "--check"], **cargo, capture_output=True).returncode == 0
    verdict = re.search(r"same: this port \((\d+ tensors bitwise)", said)
    sources = [path.read_text() for path in (crate / "src").glob("*.rs")]
    text = "\n".join(sources)
    structs, calls = text.count("pub struct "), max(len(re.findall(r"[^.\w]operators?(?:::<\d+>)?\(", text)) - 2, 0)
    quiet = "yes" if formatted and "warning" not in clippy else "NO"
    line = f"| {name} | {structs} | {len(text.splitlines())} | {calls} | {quiet} | {verdict[1] if verdict else 'NO'} |"
    return line, quiet == "yes" and verdict is not None


def table(columns, row_of, names):
    """Prints a table with a row for each architecture. Exits with 1 unless all is well."""
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    all_well = True
    for name in names or (*IMAGES, *TEXTS):
        with tempfile.TemporaryDirectory() as folder:
            text, well = row_of(name, folder)
        print(text, flush=True)
        all_well &= well
    sys.exit(not all_well)


def operators():
    """Prints the operators of the programs, which tests/models.rs looks for among those that it runs."""
    from importlib.metadata import version

    from safetensors import safe_open

    found = set()
    for name in (*IMAGES, *TEXTS):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.safetensors"
            subprocess.run([sys.executable, "-W", "ignore", __file__, name, path, "digests"], check=True, stderr=subprocess.DEVNULL)
            with safe_open(path, "pt") as case:
                graphs = [bytes(case.get_tensor(key)) for key in case.keys() if re.fullmatch(r"program/(\d+/)?graph", key)]
        print(f"{name}: {len(graphs)} programs", file=sys.stderr)
        for graph in graphs:
            # The graphs of parts without gradients stand within the JSON.
            found |= set(re.findall(r'"target": ?"torch\.ops\.([\w.]+)"', graph.decode()))
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "torchvision", "transformers"))
    print(f"# Written by scripts/zoo --operators: the operators of {len(IMAGES) + len(TEXTS)} architectures, with {versions}.")
    print(*sorted(found), sep="\n")


ZOO = "architecture", "tensors", "gradients of outputs", "MiB", "twice the same bytes", "left out", "replayed", "as on other machines"
PORTS = "architecture", "structs", "lines of Rust", "operators by name", "clippy and rustfmt silent", "its test"

if __name__ == "__main__":
    if sys.argv[1:2] == ["--port"]:
        table(PORTS, ported, sys.argv[2:])
    elif sys.argv[1:2] == ["--operators"]:
        operators()
    elif sys.argv[1:2] == ["--speed"]:
        import program_speed

        program_speed.main(*sys.argv[2:])
    elif sys.argv[1:2] == ["--forward"]:
        import program_speed

        program_speed.eager_forward(*sys.argv[2:])
    elif sys.argv[3:] == ["digests"]:
        record(*sys.argv[1:])
    elif sys.argv[2:] and sys.argv[-1].endswith(".safetensors"):
        record(*sys.argv[1:])
    else:
        table(ZOO, row, sys.argv[1:])
