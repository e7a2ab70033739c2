#include "cuda/device.h"

#include <cuda_runtime.h>

#include <memory>
#include <mutex>
#include <vector>

namespace convext {
namespace cuda {
namespace {

const char* ask(int index, CudaDevice* device) {
  int major = 0;
  int minor = 0;
  int multiprocessors = 0;
  int shared_bytes = 0;
  const struct {
    cudaDeviceAttr attribute;
    int* value;
  } questions[] = {{cudaDevAttrComputeCapabilityMajor, &major},
                   {cudaDevAttrComputeCapabilityMinor, &minor},
                   {cudaDevAttrMultiProcessorCount, &multiprocessors},
                   {cudaDevAttrMaxSharedMemoryPerBlockOptin, &shared_bytes}};
  for (const auto& question : questions) {
    const cudaError_t status = cudaDeviceGetAttribute(question.value, question.attribute, index);
    if (status != cudaSuccess) {
      cudaGetLastError();  // or the next launch would report it
      return cudaGetErrorString(status);
    }
  }
  *device = {10 * major + minor, multiprocessors, shared_bytes};
  return nullptr;
}

std::string text_of(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

const CudaDevice* find_device(int index, std::string* error) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<CudaDevice>> devices;
  if (index < 0) {
    *error = "there is no CUDA device " + std::to_string(index);
    return nullptr;
  }
  const size_t position = static_cast<size_t>(index);
  const std::lock_guard<std::mutex> lock(mutex);
  if (position < devices.size() && devices[position] != nullptr) return devices[position].get();
  CudaDevice device;
  if (const char* problem = ask(index, &device)) {
    *error = "CUDA device " + std::to_string(index) + " cannot be used: " + problem +
             " (convext was built with CUDA " + text_of(runtime_version()) + ", the driver is for " +
             (driver_version() == 0 ? "none" : text_of(driver_version())) + ")";
    return nullptr;
  }
  if (position >= devices.size()) devices.resize(position + 1);
  devices[position] = std::make_unique<CudaDevice>(device);
  return devices[position].get();
}

const char* select_device(int index) {
  int current = -1;
  if (cudaGetDevice(&current) == cudaSuccess && current == index) return nullptr;
  const cudaError_t status = cudaSetDevice(index);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(status);
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace cuda
}  // namespace convext
