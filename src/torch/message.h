// How an exception becomes a message.

#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

// Returns null, or PyTorch's message without the C++ backtrace, which stays valid until the next call on the same
// thread.
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
