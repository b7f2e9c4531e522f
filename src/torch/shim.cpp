// What libtorch offers in C++ and tch does not bind. No exception leaves these functions.

#include "message.h"

#include <ATen/Context.h>
#include <ATen/ScalarOps.h>
#include <ATen/core/Generator.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/headeronly/version.h>

#include <dlfcn.h>

#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>

// One call at a time: it writes to the graph's node, which all outputs of an operation share, and takes
// no lock (https://github.com/pytorch/pytorch/blob/v2.13.0/torch/csrc/autograd/variable.cpp).
static std::mutex graph;

extern "C" const char *tch_parity_retain_grad(const at::Tensor *tensor) {
  return message_of([&] {
    const std::lock_guard<std::mutex> lock(graph);
    tensor->retain_grad();
  });
}

// Adds up in keeper's grad, as retain_grad does, the gradients of the value that the tensor has now: what writes
// to the tensor later gives it another node, and the hook stays with this one. Sets *is_view.
extern "C" const char *tch_parity_keep_gradient(const at::Tensor *tensor, const at::Tensor *keeper, bool *is_view) {
  return message_of([&] {
    const std::lock_guard<std::mutex> lock(graph);
    *is_view = tensor->is_view();
    tensor->register_hook([keeper = *keeper](const at::Tensor &gradient) {
      if (!gradient.defined()) return;
      const at::Tensor plain = gradient.detach();
      at::Tensor &kept = keeper.mutable_grad();
      if (kept.defined())
        kept = kept.add(plain);
      else
        kept = plain.is_sparse() ? plain.clone() : plain.clone(at::MemoryFormat::Contiguous);
    });
  });
}

// A hook of a node that puts another gradient in the place of that of one of its results.
struct Replace : torch::autograd::FunctionPreHook {
  Replace(size_t at, const at::Tensor &gradient) : at(at), gradient(gradient) {}

  torch::autograd::variable_list operator()(const torch::autograd::variable_list &arrived) override {
    auto gradients = arrived;
    gradients.at(at) = gradient;
    return gradients;
  }

  const size_t at;
  const at::Tensor gradient;
};

// Makes backward go on from the value that the tensor has now with another gradient than what arrives there. This hook
// is put before those of the value that are there, so that they see the new gradient.
extern "C" const char *tch_parity_replace_gradient(const at::Tensor *tensor, const at::Tensor *gradient) {
  return message_of([&] {
    const std::lock_guard<std::mutex> lock(graph);
    if (const auto &node = tensor->grad_fn()) {
      auto &hooks = node->tensor_pre_hooks();
      hooks.insert(hooks.begin(), std::make_unique<Replace>(tensor->output_nr(), *gradient));
    } else {
      tensor->register_hook([gradient = *gradient](const at::Tensor &) { return gradient; });
    }
  });
}

static void ensure_dense(const at::Tensor &tensor) {
  if (!tensor.defined()) throw std::invalid_argument("the tensor is undefined");
  if (tensor.is_nested()) throw std::invalid_argument("the tensor is nested");
  if (tensor.layout() != at::kStrided)
    throw std::invalid_argument(c10::str("the tensor is not strided, but ", tensor.layout()));
  if (tensor.is_quantized()) throw std::invalid_argument("the tensor is quantized");
  if (tensor.is_meta()) throw std::invalid_argument("the tensor is on the device meta: it has no data");
}

// An error unless the tensor has sizes, strides and data.
extern "C" const char *tch_parity_ensure_dense(const at::Tensor *tensor) {
  return message_of([&] { ensure_dense(*tensor); });
}

// The tensor on the CPU, with its elements row by row, as the values that they stand for, which are `size` bytes.
static at::Tensor plain(const at::Tensor &tensor, size_t size) {
  ensure_dense(tensor);
  if (tensor.nbytes() != size) throw std::invalid_argument("the tensor has another size");
  if (tensor._is_zerotensor()) return at::zeros(tensor.sizes(), tensor.options().device(at::kCPU)); // it has no storage
  at::Tensor plain = tensor.detach().cpu();
  if (plain.is_conj()) plain = plain.resolve_conj();
  if (plain.is_neg()) plain = plain.resolve_neg();
  return plain.contiguous();
}

// Copies the elements to `to`, which has room for `size` bytes.
extern "C" const char *tch_parity_copy_bytes(const at::Tensor *tensor, void *to, size_t size) {
  return message_of([&] {
    const at::Tensor from = plain(*tensor, size);
    if (size > 0) std::memcpy(to, from.const_data_ptr(), size);
  });
}

// Sets *same to whether the elements are these `size` bytes.
extern "C" const char *tch_parity_has_bytes(const at::Tensor *tensor, const void *bytes, size_t size, bool *same) {
  return message_of([&] {
    const at::Tensor with = plain(*tensor, size);
    *same = size == 0 || std::memcmp(with.const_data_ptr(), bytes, size) == 0;
  });
}

// Makes the tensor one without a gradient, as `tensor.grad = None` in Python.
extern "C" const char *tch_parity_clear_grad(const at::Tensor *tensor) {
  return message_of([&] {
    if (tensor->grad().defined()) tensor->mutable_grad() = at::Tensor();
  });
}

// `self + alpha * other` and the like, written to `to`, which may be `self`. tch binds them without the factor.
extern "C" const char *tch_parity_add(const at::Tensor *to, const at::Tensor *self, const at::Tensor *other,
                                      double alpha) {
  return message_of([&] {
    at::Tensor out = *to;
    if (to == self) out.add_(*other, alpha);
    else at::add_out(out, *self, *other, alpha);
  });
}
// `tensor.mul_(number)` of Python, which multiplies in float whatever the dtype; C++'s rounds the number first.
extern "C" const char *tch_parity_mul_(const at::Tensor *self, double number) {
  return message_of([&] { at::Tensor(*self).mul_(at::native::wrapped_scalar_tensor(number)); });
}
extern "C" const char *tch_parity_addcmul(const at::Tensor *to, const at::Tensor *self, const at::Tensor *a,
                                          const at::Tensor *b, double value) {
  return message_of([&] {
    at::Tensor out = *to;
    if (to == self) out.addcmul_(*a, *b, value);
    else at::addcmul_out(out, *self, *a, *b, value);
  });
}
extern "C" const char *tch_parity_addcdiv_(const at::Tensor *self, const at::Tensor *a, const at::Tensor *b,
                                           double value) {
  return message_of([&] { at::Tensor(*self).addcdiv_(*a, *b, value); });
}
extern "C" const char *tch_parity_addmm(const at::Tensor *to, const at::Tensor *self, const at::Tensor *a,
                                        const at::Tensor *b, double beta, double alpha) {
  return message_of([&] {
    at::Tensor out = *to;
    at::addmm_out(out, *self, *a, *b, beta, alpha);
  });
}

// The name goes to *name: null where the tensor has no grad_fn, else valid until the next call on
// the same thread.
extern "C" const char *tch_parity_grad_fn_name(const at::Tensor *tensor, const char **name) {
  static thread_local std::string last_name;
  *name = nullptr;
  return message_of([&] {
    if (const auto &grad_fn = tensor->grad_fn()) {
      last_name = grad_fn->name();
      *name = last_name.c_str();
    }
  });
}

// Gives the default generator of a device the state that torch.get_rng_state() returned.
extern "C" const char *tch_parity_set_rng_state(const at::Tensor *state, bool cuda) {
  return message_of([&] {
    const at::Generator &generator =
        at::globalContext().defaultGenerator(cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU));
    at::Generator alias = generator; // the same generator
    const std::lock_guard<std::mutex> lock(alias.mutex());
    alias.set_state(*state);
  });
}

// Sets *config to what torch.__config__.show() returns in Python, valid until the next call on the
// same thread.
extern "C" const char *tch_parity_show_config(const char **config) {
  static thread_local std::string last_config;
  *config = nullptr;
  return message_of([&] {
    last_config = at::show_config();
    *config = last_config.c_str();
  });
}

// torch.backends.mkldnn.enabled and torch.backends.nnpack's flag, of the whole process.
extern "C" bool tch_parity_uses_onednn_or_nnpack() {
  return at::globalContext().userEnabledMkldnn() || at::globalContext().userEnabledNNPACK();
}
// It sets plain bools, which operations read.
extern "C" void tch_parity_use_onednn_and_nnpack(bool use) {
  message_of([&] {
    at::globalContext().setUserEnabledMkldnn(use);
    at::globalContext().setUserEnabledNNPACK(use);
  });
}

// The version of libtorch that this file was compiled against, as aoti_torch_abi_version tells that of
// the libtorch in use: a byte each for major, minor and patch, the highest first.
extern "C" uint64_t tch_parity_built_with() { return TORCH_ABI_VERSION; }

// Sets *path to the file of the libtorch_cpu in use, valid as long as the process.
extern "C" const char *tch_parity_libtorch_path(const char **path) {
  *path = nullptr;
  return message_of([&] {
    // The function's own address: the one that this file would take may be that of a stub which calls it.
    const void *const function = dlsym(RTLD_DEFAULT, "aoti_torch_abi_version");
    Dl_info library;
    if (function == nullptr || dladdr(function, &library) == 0)
      throw std::runtime_error("no libtorch_cpu is loaded");
    *path = library.dli_fname;
  });
}

// Loads a library for the rest of the process, its symbols for all to see.
extern "C" const char *tch_parity_load(const char *path) {
  return message_of([&] {
    if (dlopen(path, RTLD_NOW | RTLD_GLOBAL) == nullptr) throw std::runtime_error(dlerror());
  });
}

// Sets *name to that of the CUDA device, valid until the next call on the same thread. It is asked of
// the driver, which every process that uses CUDA has loaded and whose functions are plain C.
extern "C" const char *tch_parity_cuda_device_name(int index, const char **name) {
  static thread_local char last_name[256];
  *name = nullptr;
  return message_of([&] {
#ifdef __APPLE__
    void *const driver = dlopen("libcuda.dylib", RTLD_NOW);
#else
    void *const driver = dlopen("libcuda.so.1", RTLD_NOW);
#endif
    if (driver == nullptr) throw std::runtime_error(dlerror());
    const auto get = reinterpret_cast<int (*)(int *, int)>(dlsym(driver, "cuDeviceGet"));
    const auto get_name =
        reinterpret_cast<int (*)(char *, int, int)>(dlsym(driver, "cuDeviceGetName"));
    int device = 0;
    if (get == nullptr || get_name == nullptr || get(&device, index) != 0 ||
        get_name(last_name, sizeof last_name, device) != 0)
      throw std::runtime_error("the driver does not tell the device's name");
    *name = last_name;
  });
}
