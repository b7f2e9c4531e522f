// What PyTorch's operators return while they run, whoever calls them.

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

using Take = void (*)(void *, at::Tensor *);

// Who is given what the operators of this thread return.
static thread_local Take take = nullptr;
static thread_local void *taker = nullptr;

static void pass_on(const at::Tensor &tensor) {
  // A backward pass on CUDA is another thread's, which has these callbacks and no taker.
  if (tensor.defined() && take != nullptr) take(taker, new at::Tensor(tensor)); // the taker's own
}

static void at_end(const at::RecordFunction &function, at::ObserverContext *) {
  const at::DisableRecordFunctionGuard unwatched; // what the taker calls is none of it
  for (const c10::IValue &output : function.outputs()) {
    if (output.isTensor()) pass_on(output.toTensor());
    else if (output.isTensorList())
      for (const at::Tensor &tensor : output.toTensorVector()) pass_on(tensor);
  }
}

// Passes to `to` the tensors that each operator of this thread returns, until tch_parity_unwatch is given the result.
// PyTorch logs an exception of such a callback and goes on.
extern "C" uint64_t tch_parity_watch(Take to, void *with) {
  take = to;
  taker = with;
  return at::addThreadLocalCallback(
      at::RecordFunctionCallback(nullptr, at_end).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
}

extern "C" void tch_parity_unwatch(uint64_t handle) { at::removeCallback(handle); }
