//! The strides of tensors decide bits: a case keeps them, gives them back, and says where a port has others.

#![cfg(feature = "libtorch")]

mod common;

use common::{recorded_file, scratch, tch_parity};
use tch::nn::{self, Module, ModuleT, VarStore};
use tch::{Device, Kind, Tensor};
use tch_parity::{Case, Comparison, Criterion, Layout, Numerics, Recorder, Side, Trace, compare};

/// Convolutions, pooling, norms, mean and linear layers, of which all sum in memory's order.
const NET: &str = r#"
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(2)
        self.gn = nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, image):
        x = self.gn(self.pool(self.bn(self.conv(image)).relu()))
        return self.fc(x.mean((2, 3)))

def record(net, image):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Recorder('case.safetensors', net, optimizer=optimizer, loss=nn.CrossEntropyLoss()) as rec:
        for _ in range(2):
            rec.step(image(), torch.randint(3, (4,)))
"#;

fn recorded(name: &str, program: &str) -> Case {
    Case::load(recorded_file(name, program).0).unwrap()
}

/// Runs the port of the net. `change` is what the port makes of the image.
fn port(case: &Case, change: impl Fn(Tensor) -> Tensor) -> Trace {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let padding = nn::ConvConfig { padding: 1, ..Default::default() };
    let conv = nn::conv2d(&root / "conv", 3, 8, 3, padding);
    let bn = nn::batch_norm2d(&root / "bn", 8, Default::default());
    let gn = nn::group_norm(&root / "gn", 2, 8, Default::default());
    let fc = nn::linear(&root / "fc", 8, 3, Default::default());
    case.load_parameters(&vs).unwrap();
    let mut optimizer = nn::OptimizerConfig::build(nn::Sgd::default(), &vs, 0.1).unwrap();
    let rec = Recorder::new();
    for step in 1..=2 {
        optimizer.zero_grad();
        let x = change(case.input(step, "image").unwrap());
        let x = rec.output("conv", conv.forward(&x)).unwrap();
        let x = rec.output("bn", bn.forward_t(&x, true)).unwrap().relu();
        let x =
            rec.output("pool", x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)).unwrap();
        let x = rec.output("gn", gn.forward(&x)).unwrap();
        let x = x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        let x = rec.output("fc", fc.forward(&x)).unwrap();
        let loss = x.cross_entropy_for_logits(&case.input(step, "target").unwrap());
        loss.backward();
        rec.gradients(&loss, &vs).unwrap();
        optimizer.step();
        rec.step(&vs).unwrap();
    }
    rec.into_trace()
}

fn compared(actual: &Trace, case: &Case) -> Comparison {
    let mut comparison = compare(actual, &case.trace, Criterion::Bitwise);
    comparison.leave_out(Side::Actual);
    comparison
}

#[test]
fn a_permuted_image_keeps_its_layout_and_every_bit() {
    Numerics::Portable.restart_with().unwrap();
    let program =
        format!("{NET}\nrecord(Net(), lambda: torch.randn(4, 6, 6, 3).permute(0, 3, 1, 2))");
    let case = recorded("layout_permuted", &program);
    assert_eq!(case.trace.strides("input/image").unwrap(), [108, 1, 18, 3]);
    assert_eq!(case.input(2, "image").unwrap().stride(), [108, 1, 18, 3]);
    let right = compared(&port(&case, |x| x), &case);
    assert!(right.passes(), "{:?}", right.origin(&[]));
    assert!(right.tensors.len() > 40 && right.tensors.iter().all(|t| t.layout.is_none()));
    // The same values row by row: other bits, and the report says why.
    let rows = compared(&port(&case, |x| x.contiguous()), &case);
    assert!(rows.tensors.iter().filter(|tensor| !tensor.passes).count() > 20);
    assert_eq!(
        rows.origin(&[]).unwrap(),
        "forward/conv is the first to differ; its strides are (288, 36, 6, 1) and the recorded ones (288, 1, 48, \
         8): PyTorch sums in memory's order, which decides bits"
    );
}

#[test]
fn a_model_in_channels_last_is_loaded_in_channels_last() {
    Numerics::Portable.restart_with().unwrap();
    let program = format!(
        "{NET}\nnet = Net().to(memory_format=torch.channels_last)\n\
         record(net, lambda: torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last))"
    );
    let case = recorded("layout_channels_last", &program);
    assert_eq!(case.trace.strides("param/conv.weight").unwrap(), [27, 1, 9, 3]);
    let right = compared(&port(&case, |x| x), &case);
    assert!(right.passes(), "{:?}", right.origin(&[]));
    assert!(right.tensors.iter().all(|tensor| tensor.layout.is_none()));
}

#[test]
fn a_layout_that_only_a_dimension_of_one_element_tells_is_kept() {
    Numerics::Portable.restart_with().unwrap();
    // For PyTorch such an image is contiguous, and its convolution is in channels_last all the same.
    let program = "net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))\n\
                   with Recorder('case.safetensors', net) as rec:\n    \
                   rec.forward(torch.randn(4, 1, 8, 8).to(memory_format=torch.channels_last))\n";
    let case = recorded("layout_one_channel", program);
    let image = case.input(1, "input").unwrap();
    assert!(image.is_contiguous() && image.stride() == [64, 1, 8, 1]);
    let [weight, bias] = ["param/0.weight", "param/0.bias"].map(|name| case.trace.tensor(name));
    let conv = |x: &Tensor| {
        let (weight, bias) = (weight.as_ref().unwrap(), bias.as_ref().unwrap());
        let rec = Recorder::new();
        let y = x.conv2d(weight, Some(bias), [1], [0], [1], 1);
        let _ = rec.output("0", y).unwrap();
        compared(&rec.into_trace(), &case).tensors.remove(0).layout
    };
    assert_eq!(conv(&image), None);
    let layout = Layout { actual: vec![144, 36, 6, 1], expected: vec![144, 1, 24, 4] };
    assert_eq!(conv(&(image + 0).reshape([4, 8, 8]).unsqueeze(1)), Some(layout));
}

#[test]
fn tied_variables_stay_tied() {
    let program = "class Tied(nn.Module):\n    \
        def __init__(self):\n        super().__init__()\n        \
            self.a = nn.Parameter(torch.randn(3, 4).t())\n        \
            self.b = nn.Parameter(self.a.detach().clone())\n    \
        def forward(self, x):\n        return x @ self.a + x @ self.b\n\
        with Recorder('case.safetensors', Tied()) as rec:\n    rec.forward(torch.ones(1, 4))\n";
    let case = recorded("layout_tied", program);
    let vs = VarStore::new(Device::Cpu);
    let a = vs.root().zeros("a", &[4, 3]);
    let b = vs.root().add("b", a.detach(), true);
    let handle = a.shallow_clone();
    case.load_parameters(&vs).unwrap();
    for tensor in [&a, &b, &handle] {
        assert_eq!(tensor.stride(), [1, 4]);
        assert!(tensor.equal(&case.trace.tensor("param/a").unwrap()) && tensor.requires_grad());
    }
    assert_eq!(a.data_ptr(), b.data_ptr());
    // Again, now that nothing but the values has to change.
    let _ = tch::no_grad(|| a.shallow_clone().zero_());
    let before = a.data_ptr();
    case.load_parameters(&vs).unwrap();
    assert!(a.equal(&case.trace.tensor("param/b").unwrap()) && a.data_ptr() == before);
}

#[test]
fn strides_of_every_kind_come_back() {
    let rows = Tensor::arange(24, (Kind::Float, Device::Cpu));
    let line = rows.as_strided([3, 4], [8, 2], 0); // every second element
    let tensors = [
        ("permuted", rows.view([2, 3, 4]).permute([2, 0, 1])),
        ("expanded", rows.view([24, 1]).expand([24, 5], false)),
        ("windows", rows.unfold(0, 4, 2)),
        ("gaps", line),
        ("scalar of many", rows.select(0, 0).expand([2, 3], false)),
        (
            "one row of a large tensor",
            Tensor::zeros([1000, 5], (Kind::Int8, Device::Cpu)).select(1, 3),
        ),
        ("new", rows.view([4, 6])),
        ("empty", rows.view([24, 1]).narrow(0, 0, 0).transpose(0, 1)),
    ];
    let mut trace = Trace::new();
    for (name, tensor) in &tensors {
        trace.push(*name, tensor).unwrap();
    }
    let file = scratch("layout_kinds").join("a.safetensors");
    trace.save(&file).unwrap();
    let read = Trace::load(&file).unwrap();
    for (name, tensor) in &tensors {
        let back = read.tensor(name).unwrap();
        assert!(back.equal(tensor), "{name}");
        if tensor.numel() > 0 {
            assert_eq!(back.stride(), tensor.stride(), "{name}");
            let strides = read.strides(name).unwrap();
            assert!(strides.iter().map(|&n| n as i64).eq(tensor.stride()), "{name}");
        }
    }
    // The same file, written again and from Python.
    let again = file.with_file_name("b.safetensors");
    read.save(&again).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap());
    // Gaps of a megabyte are not kept.
    let far = Tensor::zeros([1 << 20, 5], (Kind::Int8, Device::Cpu)).narrow(1, 0, 1);
    let mut trace = Trace::new();
    trace.push("far", &far.slice(0, None, None, 1 << 18)).unwrap();
    assert_eq!(trace.strides("far").unwrap(), [1, 1]);
}

#[test]
fn both_recorders_write_the_same_strides() {
    let program = "from tch_parity import Trace\nx = torch.arange(24.)\ntrace = Trace()\n\
        trace.push('a', x.view(2, 3, 4).permute(2, 0, 1))\ntrace.push('b', x.view(24, 1))\n\
        trace.push('c', x.view(24, 1).expand(24, 5))\ntrace.push('d', x.view(4, 6)[:, :1])\n\
        trace.push('e', torch.zeros(1 << 20, 5, dtype=torch.int8)[::1 << 18, :1])\n\
        trace.push('f', x[:0].view(0, 3).t())\ntrace.save('case.safetensors')\n";
    let file = recorded_file("layout_both", program).0;
    let x = Tensor::arange_start(0., 24., (Kind::Float, Device::Cpu));
    let mut trace = Trace::new();
    trace.push("a", &x.view([2, 3, 4]).permute([2, 0, 1])).unwrap();
    trace.push("b", &x.view([24, 1])).unwrap();
    trace.push("c", &x.view([24, 1]).expand([24, 5], false)).unwrap();
    trace.push("d", &x.view([4, 6]).narrow(1, 0, 1)).unwrap();
    let far = Tensor::zeros([1 << 20, 5], (Kind::Int8, Device::Cpu)).narrow(1, 0, 1);
    trace.push("e", &far.slice(0, None, None, 1 << 18)).unwrap();
    trace.push("f", &x.narrow(0, 0, 0).view([0, 3]).transpose(0, 1)).unwrap();
    let mut written = Vec::new();
    trace.write(&mut written).unwrap();
    assert_eq!(written, std::fs::read(&file).unwrap());
    assert!(
        String::from_utf8_lossy(&written)
            .contains(r#"\"strides\":{\"a\":[1,12,4],\"c\":[1,0],\"d\":[6,1]}"#)
    );
}

#[test]
fn values_that_share_a_place_have_to_be_the_same() {
    let mut trace = Trace::new();
    let x = Tensor::from_slice(&[1f32, 1.]).narrow(0, 0, 1).expand([2], false);
    trace.push("x", &x).unwrap();
    let mut bytes = Vec::new();
    trace.write(&mut bytes).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let error = Trace::from_bytes(bytes).unwrap().tensor("x").unwrap_err();
    assert_eq!(format!("{error:#}"), "x: strides [0] put several values in one place");
}

#[test]
fn the_report_says_the_strides_in_json_and_a_plain_file_has_none() {
    let folder = scratch("layout_report");
    let x = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    let mut rows = Trace::new();
    rows.push("x", &x).unwrap();
    let mut columns = Trace::new();
    columns.push("x", &(x.transpose(0, 1).contiguous() + 1).transpose(0, 1)).unwrap();
    rows.save(folder.join("rows")).unwrap();
    columns.save(folder.join("columns")).unwrap();
    // As any library writes it.
    let bytes = std::fs::read(folder.join("rows")).unwrap();
    let header = r#"{"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let plain =
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[bytes.len() - 24..]];
    std::fs::write(folder.join("plain"), plain.concat()).unwrap();
    assert_eq!(Trace::load(folder.join("plain")).unwrap().strides("x"), None);
    let report = |actual: &str| {
        let mut command = tch_parity();
        command.current_dir(&folder).args(["compare", actual, "columns", "--json", "-"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let json = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        json["reports"][0].clone()
    };
    let json = report("rows");
    assert_eq!(
        json["tensors"][0]["layout"],
        serde_json::json!({"actual": [3, 1], "expected": [1, 2]})
    );
    assert!(
        json["origin"]
            .as_str()
            .unwrap()
            .contains("; its strides are (3, 1) and the recorded ones (1, 2): ")
    );
    assert!(report("plain")["tensors"][0]["layout"].is_null());
}

#[test]
fn parameters_are_loaded_twice_and_into_slices_of_one_tensor() {
    let program = "class Net(nn.Module):\n    \
                   def __init__(self):\n        super().__init__()\n        \
                   self.w = nn.Parameter(torch.arange(6.)[::2])\n        \
                   self.a, self.b = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3) * 2)\n    \
                   def forward(self, x):\n        return x * self.w.sum()\n\
                   with Recorder('case.safetensors', Net()) as rec:\n    rec.forward(torch.ones(1))\n";
    let case = recorded("layout_slices", program);
    let vs = VarStore::new(Device::Cpu);
    let _ = vs.root().zeros("w", &[3]);
    let big = Tensor::zeros([3, 5], (Kind::Float, Device::Cpu));
    // `a` and `b` lie between one another, column by column.
    let _ = vs.root().var_copy("big", &big);
    let mut variables = vs.variables_.lock().unwrap();
    let base = variables.named_variables.remove("big").unwrap();
    variables.named_variables.insert("a".to_owned(), base.narrow(1, 1, 2));
    variables.named_variables.insert("b".to_owned(), base.select(1, 4));
    drop(variables);
    for _ in 0..2 {
        case.load_parameters(&vs).unwrap();
        assert_eq!(vs.variables()["w"].stride(), [2]);
        assert_eq!(base.sum(Kind::Float).double_value(&[]), 6. + 6.);
    }
    // Two variables that share an element are not two parameters.
    vs.variables_.lock().unwrap().named_variables.insert("b".to_owned(), base.select(1, 2));
    let error = case.load_parameters(&vs).unwrap_err().to_string();
    assert!(error.contains("share memory here"), "{error}");
}
