// Any operator, by its name, through PyTorch's dispatcher. No exception leaves these functions.

#include "message.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

// A value of an argument or a result. `data` is what the kind says, `count` how many elements it has.
struct Value {
  enum Kind : int32_t { None, Tensor, Tensors, Int, Ints, Float, Floats, Bool, Bools, Text, Device, Complex } kind;
  int64_t integer; // of Int and Bool
  double number;   // of Float, and the real part of Complex
  double imaginary;
  const void *data;
  size_t count;
};

template <typename T, typename Element = T>
static c10::List<T> list(const Value &value) {
  const auto *const elements = static_cast<const Element *>(value.data);
  c10::List<T> converted;
  converted.reserve(value.count);
  for (size_t i = 0; i < value.count; ++i) converted.push_back(static_cast<T>(elements[i]));
  return converted;
}

// A value as the type of the argument in the operator's schema, as Python's bindings convert it.
static c10::IValue converted(const Value &value, const c10::Type &type) {
  const c10::complex<double> complex(value.number, value.imaginary);
  if (const auto *const optional = type.castRaw<c10::OptionalType>())
    return value.kind == Value::None ? c10::IValue() : converted(value, *optional->getElementType());
  const bool is_whole = value.kind == Value::Int || value.kind == Value::Bool;
  switch (type.kind()) {
    case c10::TypeKind::TensorType: {
      if (value.kind == Value::Tensor) return *static_cast<const at::Tensor *>(value.data);
      if (value.kind == Value::None) return at::Tensor();
      if (!is_whole && value.kind != Value::Float && value.kind != Value::Complex) break;
      const at::Scalar scalar = value.kind == Value::Float     ? at::Scalar(value.number)
                                : value.kind == Value::Complex ? at::Scalar(complex)
                                : value.kind == Value::Bool    ? at::Scalar(value.integer != 0)
                                                               : at::Scalar(value.integer);
      return at::native::wrapped_scalar_tensor(scalar);
    }
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      if (is_whole) return value.integer;
      break;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType:
      if (value.kind == Value::Float) return value.number;
      if (is_whole) return static_cast<double>(value.integer);
      break;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType:
      if (is_whole) return value.integer != 0;
      break;
    case c10::TypeKind::NumberType:
      if (value.kind == Value::Float) return value.number;
      if (value.kind == Value::Complex) return complex;
      if (value.kind == Value::Bool) return value.integer != 0;
      if (is_whole) return value.integer;
      break;
    case c10::TypeKind::StringType:
    case c10::TypeKind::DeviceObjType: {
      if (value.kind != Value::Text && value.kind != Value::Device) break;
      std::string text(static_cast<const char *>(value.data), value.count);
      if (type.kind() == c10::TypeKind::StringType) return text;
      return c10::Device(text);
    }
    case c10::TypeKind::ListType: {
      const auto kind = type.castRaw<c10::ListType>()->getElementType()->kind();
      const bool of_ints = kind == c10::TypeKind::IntType || kind == c10::TypeKind::SymIntType;
      if (value.kind == Value::Ints && value.count == 0 && kind == c10::TypeKind::FloatType) return c10::List<double>();
      if (of_ints && value.kind == Value::Ints) return list<int64_t>(value);
      if (of_ints && value.kind == Value::Int) return c10::List<int64_t>({value.integer});
      if (kind == c10::TypeKind::FloatType && value.kind == Value::Floats) return list<double>(value);
      if (kind == c10::TypeKind::FloatType && value.kind == Value::Ints) return list<double, int64_t>(value);
      if (kind == c10::TypeKind::BoolType && value.kind == Value::Bools) return list<bool>(value);
      if (value.kind != Value::Tensors) break;
      const auto *const tensors = static_cast<const at::Tensor *const *>(value.data);
      if (kind == c10::TypeKind::TensorType) {
        c10::List<at::Tensor> converted;
        for (size_t i = 0; i < value.count; ++i) {
          if (tensors[i] == nullptr) throw std::invalid_argument("a tensor of the list is None");
          converted.push_back(*tensors[i]);
        }
        return converted;
      }
      if (kind != c10::TypeKind::OptionalType) break;
      c10::List<std::optional<at::Tensor>> converted;
      for (size_t i = 0; i < value.count; ++i)
        converted.push_back(tensors[i] == nullptr ? std::nullopt : std::make_optional(*tensors[i]));
      return converted;
    }
    default: break;
  }
  throw std::invalid_argument(c10::str("it takes a ", type.str()));
}

// Gives a result to the caller, who owns the tensors.
static void give(const c10::IValue &result, void (*take)(void *, const Value *), void *to) {
  Value value{Value::None, 0, 0, 0, nullptr, 0};
  if (result.isTensor()) {
    value.kind = Value::Tensor;
    value.data = new at::Tensor(result.toTensor());
    take(to, &value);
  } else if (result.isTensorList()) {
    std::vector<const at::Tensor *> owned;
    for (const at::Tensor &tensor : result.toTensorVector()) owned.push_back(new at::Tensor(tensor));
    value = {Value::Tensors, 0, 0, 0, owned.data(), owned.size()};
    take(to, &value);
  } else {
    if (result.isInt() || result.isSymInt()) value = {Value::Int, result.toSymInt().expect_int(), 0, 0, nullptr, 0};
    else if (result.isBool()) value = {Value::Bool, result.toBool(), 0, 0, nullptr, 0};
    else if (result.isDouble()) value = {Value::Float, 0, result.toDouble(), 0, nullptr, 0};
    else if (!result.isNone()) throw std::invalid_argument(c10::str("it returns a ", result.tagKind()));
    take(to, &value);
  }
}

static c10::OperatorHandle found(const char *name, const char *overload) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!found) throw std::invalid_argument("libtorch has no such operator");
  return *found;
}

// Sets *schema to the operator's schema as PyTorch writes it, valid until the next call on the same thread.
extern "C" const char *tch_parity_schema(const char *name, const char *overload, const char **schema) {
  static thread_local std::string last_schema;
  *schema = nullptr;
  return message_of([&] {
    last_schema = c10::str(found(name, overload).schema());
    *schema = last_schema.c_str();
  });
}

// An operator that was found, with the arguments that are the same at each call.
struct Prepared {
  c10::OperatorHandle op;
  std::vector<c10::IValue> stack; // in the place of what each call gives there is a sample of its type
  std::vector<size_t> places;     // of what each call gives, in its order
};

static c10::IValue argument(const Value &value, const c10::Argument &argument) {
  try {
    return converted(value, *argument.type());
  } catch (const std::invalid_argument &error) {
    throw std::invalid_argument(c10::str("argument ", argument.name(), ": ", error.what()));
  }
}

// Finds an operator, and converts its arguments. The first `given` of them are samples of what each call gives; what is
// not among them has its default.
extern "C" const char *tch_parity_prepare(const char *name, const char *overload, const char *const *names,
                                          const Value *values, size_t count, size_t given, Prepared **prepared) {
  return message_of([&] {
    auto made = std::make_unique<Prepared>(Prepared{found(name, overload), {}, {}});
    const c10::FunctionSchema &schema = made->op.schema();
    for (const c10::Argument &taken : schema.arguments()) made->stack.push_back(taken.default_value().value_or(c10::IValue()));
    std::vector<bool> filled(made->stack.size());
    for (size_t i = 0; i < count; ++i) {
      const auto place = schema.argumentIndexWithName(names[i]);
      if (!place || filled[*place])
        throw std::invalid_argument(c10::str("it has no argument \"", names[i], "\", or has it twice: ", schema));
      filled[*place] = true;
      made->stack[*place] = argument(values[i], schema.arguments()[*place]);
      if (i < given) made->places.push_back(*place);
    }
    for (size_t i = 0; i < filled.size(); ++i)
      if (!filled[i] && !schema.arguments()[i].default_value())
        throw std::invalid_argument(c10::str("argument ", schema.arguments()[i].name(), " is missing"));
    *prepared = made.release();
  });
}

extern "C" void tch_parity_forget(Prepared *prepared) { delete prepared; }

// Calls an operator through the dispatcher, as Python does.
extern "C" const char *tch_parity_call(const Prepared *prepared, const Value *given, void (*take)(void *, const Value *),
                                       void *to) {
  return message_of([&] {
    const auto &arguments = prepared->op.schema().arguments();
    std::vector<c10::IValue> stack = prepared->stack;
    for (const size_t place : prepared->places) stack[place] = argument(*given++, arguments[place]);
    prepared->op.callBoxed(stack);
    for (const c10::IValue &result : stack) give(result, take, to);
  });
}

// Runs backward from several outputs, each with its gradient, as torch.autograd.backward does.
extern "C" const char *tch_parity_backward(const at::Tensor *const *outputs, const at::Tensor *const *gradients, size_t count) {
  return message_of([&] {
    torch::autograd::variable_list roots, given;
    for (size_t i = 0; i < count; ++i) {
      roots.push_back(*outputs[i]);
      given.push_back(gradients[i] == nullptr ? at::Tensor() : *gradients[i]);
    }
    torch::autograd::backward(roots, given);
  });
}
