// What libtorch offers in C++ and tch does not bind. No exception leaves these functions: each
// returns null, or PyTorch's message without the C++ backtrace, which stays valid until the next
// call on the same thread.

#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <mutex>
#include <string>

template <typename F>
static const char *message_of(F call) noexcept {
  static thread_local std::string message;
  try {
    call();
    return nullptr;
  } catch (const c10::Error &error) {
    message = error.what_without_backtrace();
  } catch (const std::exception &error) {
    message = error.what();
  } catch (...) {
    message = "unknown C++ exception";
  }
  return message.c_str();
}

// One call at a time: it writes to the graph's node, which all outputs of an operation share, and takes
// no lock (https://github.com/pytorch/pytorch/blob/v2.13.0/torch/csrc/autograd/variable.cpp).
extern "C" const char *tch_parity_retain_grad(const at::Tensor *tensor) {
  static std::mutex mutex;
  return message_of([&] {
    const std::lock_guard<std::mutex> lock(mutex);
    tensor->retain_grad();
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
