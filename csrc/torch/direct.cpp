// The passes called from Python without torch's dispatcher in between, which takes longer than a small
// correlation. The functions return None for whatever they do not take (tensor subclasses, other devices,
// wrong arguments, a torch that lacks what is needed here); the caller then goes by the operators, which know
// what to do or what to say. convext/_direct.py decides when nothing that listens to the dispatcher would
// miss a call.
#include "torch/direct.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <optional>
#include <stdexcept>

#include "torch/backend.h"
#include "torch/passes.h"

namespace convext {
namespace {

using torch::stable::Tensor;

// What torch offers AOTInductor's Python wrappers: from a tensor to a handle of the stable ABI and back.
// Strong references, for the life of the process; null where this torch has none.
PyObject* handle_from_tensor = nullptr;
PyObject* tensors_from_handles = nullptr;
PyObject* is_neg = nullptr;  // the methods' name
PyTypeObject* tensor_type = nullptr;
PyTypeObject* parameter_type = nullptr;

// Thrown to leave a call to the operators; what went wrong does not matter.
struct NotForUs {};

class Reference {
 public:
  explicit Reference(PyObject* object) : object_(object) {
    if (object == nullptr) throw NotForUs();
  }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { Py_DECREF(object_); }
  PyObject* get() const { return object_; }

 private:
  PyObject* object_;
};

Tensor tensor_of(PyObject* object) {
  if (Py_TYPE(object) != tensor_type && Py_TYPE(object) != parameter_type) throw NotForUs();
  const Reference capsule(PyObject_CallOneArg(handle_from_tensor, object));
  void* handle = PyCapsule_GetPointer(capsule.get(), nullptr);
  if (handle == nullptr) throw NotForUs();
  Tensor tensor(static_cast<AtenTensorHandle>(handle));
  int32_t layout = 0;
  if (!backend::is_here(tensor) || aoti_torch_get_layout(tensor.get(), &layout) != AOTI_TORCH_SUCCESS ||
      layout != aoti_torch_layout_strided()) {
    throw NotForUs();
  }
  // Memory that holds the numbers' negatives: a view of the imaginary part of a conjugate.
  const Reference negative(PyObject_CallMethodNoArgs(object, is_neg));
  if (negative.get() != Py_False) throw NotForUs();
  return tensor;
}

std::optional<Tensor> optional_tensor_of(PyObject* object) {
  if (object == Py_None) return std::nullopt;
  return tensor_of(object);
}

// A list of as many tensors.
PyObject* objects_of(const Tensor* const* tensors, Py_ssize_t count) {
  const Reference capsules(PyList_New(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    AtenTensorHandle handle = nullptr;
    if (aoti_torch_new_tensor_handle(tensors[i]->get(), &handle) != AOTI_TORCH_SUCCESS) throw NotForUs();
    PyObject* capsule = PyCapsule_New(handle, nullptr, nullptr);
    if (capsule == nullptr) throw NotForUs();
    PyList_SET_ITEM(capsules.get(), i, capsule);
  }
  PyObject* list = PyObject_CallOneArg(tensors_from_handles, capsules.get());  // takes the handles
  if (list == nullptr || !PyList_Check(list) || PyList_GET_SIZE(list) != count) throw NotForUs();
  return list;
}

int64_t integer_of(PyObject* object) {
  if (!PyLong_CheckExact(object)) throw NotForUs();
  const int64_t value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred() != nullptr) throw NotForUs();
  return value;
}

int64_t integer_of(PyObject* tuple, Py_ssize_t index, Py_ssize_t size) {
  if (!PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != size) throw NotForUs();
  return integer_of(PyTuple_GET_ITEM(tuple, index));
}

// The operators' trailing arguments, as many as are there.
Geometry geometry_of(PyObject* settings) {
  Geometry geometry;
  if (!PyTuple_Check(settings)) throw NotForUs();
  const Py_ssize_t count = PyTuple_GET_SIZE(settings);
  if (count > 5) throw NotForUs();
  const auto item = [&](Py_ssize_t index) { return PyTuple_GET_ITEM(settings, index); };
  if (count > 0) geometry.stride = {integer_of(item(0), 0, 2), integer_of(item(0), 1, 2)};
  if (count > 1) {
    geometry.padding = {integer_of(item(1), 0, 4), integer_of(item(1), 1, 4), integer_of(item(1), 2, 4),
                        integer_of(item(1), 3, 4)};
  }
  if (count > 2) geometry.dilation = {integer_of(item(2), 0, 2), integer_of(item(2), 1, 2)};
  if (count > 3) geometry.groups = integer_of(item(3));
  if (count > 4) {
    const char* name = PyUnicode_Check(item(4)) ? PyUnicode_AsUTF8(item(4)) : nullptr;
    if (name == nullptr || !parse_padding_mode(name, &geometry.padding_mode)) throw NotForUs();
  }
  return geometry;
}

// Runs a pass with the GIL released.
template <class Pass>
auto without_gil(const Pass& pass) {
  class Release {
   public:
    Release() = default;
    Release(const Release&) = delete;
    Release& operator=(const Release&) = delete;
    ~Release() { PyEval_RestoreThread(state_); }

   private:
    PyThreadState* state_ = PyEval_SaveThread();
  };
  const Release release;
  return pass();
}

template <class Call>
PyObject* none_unless(Py_ssize_t count, Py_ssize_t wanted, const Call& call) noexcept {
  try {
    if (count == wanted && handle_from_tensor != nullptr) return call();
  } catch (const NotForUs&) {
  } catch (const std::exception&) {
  }
  PyErr_Clear();
  Py_RETURN_NONE;
}

PyObject* direct_corr2d(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return none_unless(count, 4, [&] {
    const Geometry geometry = geometry_of(arguments[3]);
    const Tensor input = tensor_of(arguments[0]);
    const Tensor weight = tensor_of(arguments[1]);
    const std::optional<Tensor> bias = optional_tensor_of(arguments[2]);
    const Tensor output = without_gil([&] { return corr2d(input, weight, bias, geometry, std::nullopt); });
    const Tensor* const outputs[] = {&output};
    const Reference list(objects_of(outputs, 1));
    return Py_NewRef(PyList_GET_ITEM(list.get(), 0));
  });
}

PyObject* direct_gradients(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return none_unless(count, 7, [&]() -> PyObject* {
    const Geometry geometry = geometry_of(arguments[3]);
    const Tensor grad_output = tensor_of(arguments[0]);
    const Tensor input = tensor_of(arguments[1]);
    const Tensor weight = tensor_of(arguments[2]);
    const TensorView input_view = view_of(input, "input", true);
    const TensorView weight_view = view_of(weight, "weight", false);
    const bool channels_last = is_channels_last(input_view) || is_channels_last(weight_view);
    const Size2 input_size{input_view.sizes[2], input_view.sizes[3]};
    const Size2 kernel_size{weight_view.sizes[2], weight_view.sizes[3]};
    std::optional<Tensor> gradients[3];
    without_gil([&] {
      if (arguments[4] == Py_True)
        gradients[0] = corr2d_grad_input(grad_output, weight, input_size, geometry, channels_last);
      if (arguments[5] == Py_True)
        gradients[1] = corr2d_grad_weight(grad_output, input, kernel_size, geometry, channels_last);
      if (arguments[6] == Py_True) gradients[2] = corr2d_grad_bias(grad_output);
      return 0;
    });
    const Tensor* computed[3];
    Py_ssize_t number = 0;
    for (const std::optional<Tensor>& gradient : gradients) {
      if (gradient.has_value()) computed[number++] = &*gradient;
    }
    const Reference list(objects_of(computed, number));
    const Reference result(PyTuple_New(3));
    number = 0;
    for (Py_ssize_t i = 0; i < 3; ++i) {
      PyObject* gradient = gradients[i].has_value() ? PyList_GET_ITEM(list.get(), number++) : Py_None;
      PyTuple_SET_ITEM(result.get(), i, Py_NewRef(gradient));
    }
    return Py_NewRef(result.get());
  });
}

// The types are those of tensors and parameters.
PyObject* enable_direct_calls(PyObject*, PyObject* arguments) {
  PyObject* from_tensor = nullptr;
  PyObject* from_handles = nullptr;
  PyObject* tensor = nullptr;
  PyObject* parameter = nullptr;
  if (PyArg_ParseTuple(arguments, "OOO!O!", &from_tensor, &from_handles, &PyType_Type, &tensor, &PyType_Type,
                       &parameter) == 0) {
    return nullptr;
  }
  tensor_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(tensor));
  parameter_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(parameter));
  is_neg = PyUnicode_InternFromString("is_neg");
  if (is_neg == nullptr) return nullptr;
  tensors_from_handles = Py_NewRef(from_handles);
  handle_from_tensor = Py_NewRef(from_tensor);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"direct_corr2d", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(direct_corr2d)),
     METH_FASTCALL,
     "direct_corr2d(input, weight, bias, settings): C(x, w) + bias, or None: call the operator instead."},
    {"direct_gradients", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(direct_gradients)),
     METH_FASTCALL,
     "direct_gradients(grad_output, input, weight, settings, *needs): the gradients of input, weight and "
     "bias, "
     "or None: call the operators instead."},
    {"enable_direct_calls", enable_direct_calls, METH_VARARGS,
     "enable_direct_calls(handle_from_tensor, tensors_from_handles, tensor_type, parameter_type): without "
     "this call the direct functions return None."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool add_direct_calls(PyObject* module) {
  return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace convext
