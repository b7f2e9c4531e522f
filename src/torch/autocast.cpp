// The state of autocast, and how deep its contexts are in each other. No exception leaves these functions.

#include "message.h"

#include <ATen/autocast_mode.h>

// The state of this thread, of the CPU and of CUDA. A dtype is a c10::ScalarType.
struct State {
  int32_t enabled[2];
  int32_t dtype[2];
  int32_t cache;
};

static constexpr at::DeviceType devices[2] = {at::kCPU, at::kCUDA};

extern "C" const char *tch_parity_autocast(State *state) {
  return message_of([&] {
    for (int i = 0; i < 2; ++i) {
      state->enabled[i] = at::autocast::is_autocast_enabled(devices[i]);
      state->dtype[i] = static_cast<int32_t>(at::autocast::get_autocast_dtype(devices[i]));
    }
    state->cache = at::autocast::is_autocast_cache_enabled();
  });
}

extern "C" const char *tch_parity_set_autocast(const State *state) {
  return message_of([&] {
    for (int i = 0; i < 2; ++i) {
      at::autocast::set_autocast_enabled(devices[i], state->enabled[i] != 0);
      at::autocast::set_autocast_dtype(devices[i], static_cast<at::ScalarType>(state->dtype[i]));
    }
    at::autocast::set_autocast_cache_enabled(state->cache != 0);
  });
}

extern "C" void tch_parity_begin_autocast() { at::autocast::increment_nesting(); }

// The casted weights are dropped at the end of the outermost context, as in Python.
extern "C" const char *tch_parity_end_autocast() {
  return message_of([] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  });
}
