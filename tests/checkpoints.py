"""Writes the files of tensors that people have, what they hold as safetensors, and files that have to be refused.

Each good file `NAME.EXT` stands beside `NAME.expected.safetensors`. Of each bad one a line is printed: its name, a tab,
and what the error has to say.
"""

import io
import json
import os
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

warnings.filterwarnings("ignore")
folder = Path(sys.argv[1])
torch.manual_seed(0)


def expect(name, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / f"{name}.expected.safetensors")


def checkpoints():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    torch.save(model.state_dict(), folder / "module.pt")
    expect("module", model.state_dict())

    base = torch.arange(24.0).reshape(2, 3, 4)
    views = OrderedDict(
        transposed=base.permute(2, 0, 1), expanded=torch.arange(3.0).expand(4, 3), sliced=base[:, 1:, ::2],
        offset=base.view(-1)[5:9], scalar=torch.tensor(1.5), empty=torch.zeros(0, 3), parameter=nn.Parameter(torch.ones(2)),
        one=torch.ones(1).expand(2, 1, 3), channels=torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last))
    torch.save(views, folder / "views.pt")
    expect("views", views)

    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
              torch.bool, torch.complex64, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
    values = {str(dtype): torch.tensor([1.0, 0.0, 3.0]).to(dtype) for dtype in dtypes}
    torch.save(values, folder / "dtypes.pt")
    expect("dtypes", values)
    exponents = torch.tensor([0.25, 1.0, 64.0]).to(torch.float8_e8m0fnu)
    (folder / "others").mkdir()
    torch.save({"e": exponents}, folder / "others" / "exponents.pt")
    wide = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128)
    torch.save({"wide": wide, "t": wide.expand(2, 2).t()}, folder / "complex128.pt")
    expect("complex128", {"wide[real]": wide.real, "wide[imag]": wide.imag,
                          "t[real]": wide.expand(2, 2).t().real, "t[imag]": wide.expand(2, 2).t().imag})

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "big": 2**40, "best": float("inf"),
             "dtype": torch.float16, "device": torch.device("cpu"), "note": None, "list": [torch.ones(1), torch.zeros(2)]}
    torch.save(whole, folder / "nested.pt")
    flat = {f"model/{k}": v for k, v in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        flat |= {f"optimizer/state/{index}/{k}": v for k, v in state.items()}
    expect("nested", flat | {"list/0": torch.ones(1), "list/1": torch.zeros(2)})
    torch.save(torch.arange(3), folder / "alone.pt")
    expect("alone", {"tensor": torch.arange(3)})

    big = OrderedDict(w=torch.tensor([1.0, 2.0]), h=torch.tensor([1.0], dtype=torch.bfloat16), c=torch.tensor([1 + 2j]),
                      b=torch.tensor([True, False]))
    buffer = io.BytesIO()
    torch.save(big, buffer)
    number = {"0": 4, "1": 2, "2": 4, "3": 1}
    def swap(name, data):
        key = name.split("/")[-1]
        if name.endswith("byteorder"):
            return b"big"
        if "/data/" not in name:
            return data
        return b"".join(data[i : i + number[key]][::-1] for i in range(0, len(data), number[key]))
    rewrite(buffer, folder / "big_endian.pt", swap)
    expect("big_endian", big)

    tied = nn.Linear(4, 4, bias=False)
    tensors = {"embed": tied.weight, "head": tied.weight, "part": tied.weight[:2]}
    torch.save(tensors, folder / "tied.pt")
    expect("tied", tensors)


def rewrite(source, to, change, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def arrays():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(folder / "fortran.npy", np.asfortranarray(rows))
    expect("fortran", {"arr_0": torch.from_numpy(rows)})
    several = {"b": rows.astype(">f8"), "a": rows.T, "i": np.arange(5, dtype=">i2"), "s": np.float16(1.5),
               "e": np.zeros((0, 2), np.uint8), "t": np.array([True, False]), "c": np.array([1 + 2j], np.complex64)}
    expected = {k: torch.from_numpy(np.array(v.astype(v.dtype.newbyteorder("="), order="C"))) for k, v in several.items()}
    for name, save in [("stored", np.savez), ("packed", np.savez_compressed)]:
        save(folder / f"{name}.npz", **several)
        expect(name, expected)
    np.save(folder / "wide.npy", np.array([[1 + 2j, 3]], np.complex128))
    expect("wide", {"arr_0[real]": torch.tensor([[1.0, 3.0]], dtype=torch.float64),
                    "arr_0[imag]": torch.tensor([[2.0, 0.0]], dtype=torch.float64)})


def sharded():
    tensors = {f"layer.{i}.weight": torch.rand(3, 4) for i in range(5)}
    expect("shards", tensors)
    for name, cuts in [("two", [0, 2, 5]), ("three", [0, 1, 3, 5])]:
        at = folder / "shards" / name
        at.mkdir(parents=True)
        weight_map = {}
        for n, (begin, end) in enumerate(zip(cuts, cuts[1:])):
            file = f"model-{n}.safetensors"
            part = dict(list(tensors.items())[begin:end])
            save_file(part, at / file)
            weight_map |= dict.fromkeys(part, file)
        write_index(at, weight_map)
    at = folder / "shards" / "bin"
    at.mkdir()
    torch.save(tensors, at / "pytorch_model.bin")
    for name, change in [("outside", {"layer.0.weight": "../two/model-0.safetensors"}), ("absolute", {"layer.0.weight": "/etc/passwd"}),
                         ("missing", {"layer.9.weight": "model-0.safetensors"}), ("absent", {"layer.0.weight": "model-7.safetensors"})]:
        at = folder / "shards" / name
        at.mkdir()
        save_file(tensors, at / "model-0.safetensors")
        write_index(at, dict.fromkeys(tensors, "model-0.safetensors") | change)


    for name, text in [("damaged", '{"weight_map": {"a": "b"'), ("no_map", '{"metadata": {}}')]:
        (folder / "shards" / name).mkdir()
        (folder / "shards" / name / "model.safetensors.index.json").write_text(text)


def write_index(at, weight_map):
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (at / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


class Evil:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def bad_checkpoints():
    good = io.BytesIO()
    torch.save({"w": torch.rand(2, 3)}, good)
    whole = good.getvalue()

    def bad(name, contents, says):
        (folder / "bad").mkdir(exist_ok=True)
        (folder / "bad" / name).write_bytes(contents)
        print(f"{name}\t{says}")

    def with_pickle(data, keep=("byteorder", "data/0")):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
            new.writestr("archive/data.pkl", data)
            for name in keep:
                new.writestr(f"archive/{name}", old.read(f"archive/{name}"))
        return out.getvalue()

    saved = lambda value: with_pickle(pickle.dumps(value, protocol=2))
    bad("calls.pt", saved({"w": Evil()}), "it holds posix.system")
    bad("protocol.pt", with_pickle(pickle.dumps({}, protocol=4)), "protocol 4")
    module = io.BytesIO()
    torch.save(nn.Linear(1, 1), module)
    bad("module.pt", module.getvalue(), "save its state_dict()")
    recursive = []
    recursive.append(recursive)
    bad("recursive.pt", saved({"a": recursive}), "holds itself")
    deep = {}
    for _ in range(100):
        deep = {"a": deep}
    bad("deep.pt", saved(deep), "in each other")
    many = [1]
    for _ in range(30):
        many = [many, many]
    bad("laughs.pt", saved(many), "in far too many places")
    bad("tuple.pt", saved({"a": {(0, 1): 1}}), "a key of the dict a is a tuple, and only texts and integers are read: save it")
    bad("int.pt", saved(3), "it holds an int, and no tensors")
    bad("set.pt", saved({"a": {1, 2}}), "set")
    bad("bytes.pt", saved({"a": b"x"}), "it holds _codecs.encode")
    bad("cut.pt", whole[:-40], "a damaged zip archive")
    at = whole.index(b"data.pkl") + 40
    bad("sum.pt", whole[:at + 30] + bytes([whole[at + 30] ^ 1]) + whole[at + 31:], "sum (CRC-32)")
    out = io.BytesIO()
    rewrite(io.BytesIO(whole), out, lambda _, data: data, zipfile.ZIP_DEFLATED)
    bad("deflated.pt", out.getvalue(), "PyTorch stores its files as they are")
    out = io.BytesIO()
    rewrite(io.BytesIO(whole), out, lambda name, data: b"\0" * 8 if name.endswith("data/0") else data)
    bad("short.pt", out.getvalue(), "beyond the 2 that its storage has")
    text = zipfile.ZipFile(io.BytesIO(whole)).read("archive/data.pkl")
    sizes, strides = b"K\x02K\x03\x86", b"K\x03K\x01\x86"
    assert sizes in text and strides in text
    huge = b"\x8a\x08" + (2**62).to_bytes(8, "little")
    bad("overflow.pt", with_pickle(text.replace(sizes, huge + huge + b"\x86")), "out of range")
    bad("negative.pt", with_pickle(text.replace(sizes, b"J\xff\xff\xff\xffK\x03\x86")), "a size of -1")
    bad("expanded.pt", with_pickle(text.replace(sizes, huge + b"K\x01\x86").replace(strides, b"K\x00K\x00\x86")),
        "far larger together than the file")
    bad("far.pt", with_pickle(text.replace(strides, huge + b"K\x01\x86")), "beyond the 6")
    bad("ragged.pt", with_pickle(text.replace(strides, b"K\x01\x85")), "a stride too few")
    bad("absent.pt", with_pickle(text, ["byteorder"]), "the archive has no data/0")
    for n in range(0, len(text), 7):
        bad(f"cut{n}.pt", with_pickle(text[:n]), "a PyTorch checkpoint (.pt): ")
    lazy = io.BytesIO()
    torch.save({"z": torch.tensor([1 + 2j]).conj()}, lazy)
    bad("lazy.pt", lazy.getvalue(), "resolve_conj()")
    sparse = io.BytesIO()
    torch.save({"s": torch.eye(2).to_sparse()}, sparse)
    bad("sparse.pt", sparse.getvalue(), "_rebuild_sparse_tensor")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        new.writestr("x/../../data.pkl", text)
    bad("path.pt", out.getvalue(), "an entry is named")

    def npy(value):
        out = io.BytesIO()
        np.save(out, value)
        return out.getvalue()

    plain = npy(np.arange(3.0))
    bad("cut.npy", plain[:-1], "it has 23 bytes of data, and its header says 24")
    bad("header.npy", plain[:20], "it ends within its header")
    bad("object.npy", npy(np.array([{}], dtype=object)), "objects of Python's")
    bad("fields.npy", npy(np.zeros(2, dtype=[("a", "f4")])), "have fields")
    bad("text.npy", npy(np.array(["a"])), "no tensor has elements of NumPy's dtype")
    wide = b"(4611686018427387904,4), }"
    bad("overflow.npy", plain.replace(b"(3,), }" + b" " * (len(wide) - 7), wide), "out of range")
    bad("negative.npy", plain.replace(b"(3,), } ", b"(-3,), }"), "its header is")
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("a.npy", b"\0" * 1000)
    data = bytearray(zeros.getvalue())
    bad("packed.npz", data, "no NumPy array")
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    bad("bomb.npz", data, "bytes when it is unpacked")
    data[at + 24 : at + 28] = (500).to_bytes(4, "little")
    bad("lied.npz", data, "it is damaged")
    bad("foreign.npz", zeros.getvalue().replace(b"a.npy", b"a.txt"), "without a PyTorch checkpoint")


def special(n, a, e):
    """Complex numbers with signs of zeros, and with NaN and infinities in one part or in both."""
    nan, inf = torch.full_like(e.real, float("nan")), torch.full_like(e.real, float("inf"))
    of = torch.complex
    return {
        7: (e * float("nan"), e * float("nan")),
        8: (of(-e.real * 0, e.imag), of(e.real * 0, e.imag)),
        9: (of(nan, a.imag), of(nan, e.imag + 1)),
        10: (of(nan, a.imag), of(e.real, nan)),
        11: (of(nan, a.imag), of(e.real, e.imag)),
        12: (of(inf, a.imag + 1), of(inf, e.imag)),
        13: (of(inf, e.imag), of(inf, e.imag)),
        14: (of(inf, nan), of(-inf, nan)),
        # The parts are close only together, or only one by one.
        15: (of(e.real, e.imag / 1e9 * (1 + 1e-5)), of(e.real, e.imag / 1e9)),
        16: (of(e.real / 1e9, e.imag + 1e-7), of(e.real / 1e9 + 9e-8, e.imag)),
    }.get(n, (a, e))


def as_kept(name, tensor):
    if tensor.dtype == torch.complex128:
        return [(f"{name}[real]", tensor.real), (f"{name}[imag]", tensor.imag)]
    return [(name, tensor)]


def judged():
    """Prints pairs of values, and whether assert_close passes them."""
    generator = torch.Generator().manual_seed(1)
    for dtype in [torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
                  torch.float8_e5m2fnuz]:
        size = torch.empty(0, dtype=dtype).itemsize
        actual, expected, passes = [], [], []
        for n in range(200):
            if size == 1:
                a, e = torch.randint(0, 256, (2, 1), generator=generator, dtype=torch.uint8)
                e = a ^ (0x80 if n % 3 == 0 else 0) if n % 2 else e
                a, e = a.view(dtype), e.view(dtype)
            else:
                e = torch.randn(1, generator=generator, dtype=dtype)
                a = e + torch.randn(1, generator=generator, dtype=dtype) * 10.0 ** -(n % 9)
                a, e = special(n % 40, a, e)
            try:
                torch.testing.assert_close(a, e, equal_nan=True)
                passes.append(1)
            except AssertionError:
                passes.append(0)
            actual.append(a)
            expected.append(e)
        name = str(dtype)
        for side, tensors in [("actual", actual), ("expected", expected)]:
            parts = {part: t.clone() for n, tensor in enumerate(tensors) for part, t in as_kept(str(n), tensor)}
            save_file(parts, folder / f"{name}.{side}.judged")
        (folder / f"{name}.passes").write_text("".join(map(str, passes)))


checkpoints()
arrays()
if sys.argv[2:] != ["good"]:
    sharded()
    bad_checkpoints()
    judged()
