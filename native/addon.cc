// The Node-API host: an arena of reserved address space, a thread pool, and the kernels of one instruction set.
//
//   variants(): string[]                      what this CPU can run, best first
//   open(isa, threads): Device                throws when the isa is not among them
//   Device: isa, threads, reservedBytes, kernels: { name, operands }[]
//           bind(Float64Array)                where run() finds its operands
//           run(index)
//           runAll(Int32Array, Float64Array)  kernels by index in order, their operands one behind the other
//           write(byteOffset, typedArray), read(byteOffset, typedArray)
//           peak(kind, iterations)            register-only multiply-adds; returns the operations done
//           readRate(bytes, passes)           bytes per second of the fastest pass over memory of its own
//
// Every environment (main thread, worker) has its own devices; they live until the environment ends.
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "dispatch.h"
#include "pool.h"

namespace {

constexpr size_t LARGEST_ARENA = (size_t)1 << 40;
constexpr size_t SMALLEST_ARENA = (size_t)1 << 26;

struct Device {
  Device* next;
  char* arena;
  size_t reserved;
  Pool* pool;
  int threads;
  Variant variant;
  const Entry** entries;  // flat, in table order
  int count;
  const double* operands;
  size_t bound;           // length of `operands`
  napi_ref operands_ref;
};

struct Environment {
  Device* devices;
};

napi_value fail(napi_env env, const char* message) {
  napi_throw_error(env, "ERR_NATIVE", message);
  return nullptr;
}

// Any status but napi_ok means a pending or unexpected JavaScript error: report it and leave the function.
#define TRY(call)                                          \
  do {                                                     \
    if ((call) != napi_ok) return fail(env, "native: " #call); \
  } while (0)

// Address space only: pages get memory when they are first touched.
char* reserve_arena(size_t* size) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  for (size_t bytes = LARGEST_ARENA; bytes >= SMALLEST_ARENA; bytes /= 2) {
    void* arena = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (arena == MAP_FAILED) continue;
#ifdef MADV_HUGEPAGE
    madvise(arena, bytes, MADV_HUGEPAGE);  // a hint: fewer page faults and TLB misses where the system allows it
#endif
    *size = bytes;
    return (char*)arena;
  }
  return nullptr;
}

void destroy_device(Device* device) {
  if (device->pool) pool_destroy(device->pool);
  if (device->arena) munmap(device->arena, device->reserved);
  free(device->entries);
  free(device);
}

void destroy_environment(napi_env, void* data, void*) {
  Environment* environment = (Environment*)data;
  while (environment->devices) {
    Device* device = environment->devices;
    environment->devices = device->next;
    destroy_device(device);
  }
  free(environment);
}

napi_value run(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argv[1];
  Device* device;
  int32_t index;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device));
  TRY(napi_get_value_int32(env, argv[0], &index));
  if (index < 0 || index >= device->count) return fail(env, "run: expected the index of a kernel.");
  if ((size_t)device->entries[index]->operands > device->bound)
    return fail(env, "run: expected bound operands. Call bind() with a Float64Array that is long enough.");
  const Args args = {device->operands, device->arena};
  const Ctx ctx = {pool_run, device->pool, device->variant.features};
  device->entries[index]->fn(args, ctx);
  return nullptr;
}

bool typed_array(napi_env env, napi_value value, napi_typedarray_type wanted, void** data, size_t* length) {
  napi_typedarray_type type;
  return napi_get_typedarray_info(env, value, &type, length, data, nullptr, nullptr) == napi_ok && type == wanted;
}

napi_value run_all(napi_env env, napi_callback_info info) {
  size_t argc = 2, count, numbers;
  napi_value argv[2];
  Device* device;
  void *indices, *operands;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device));
  if (!typed_array(env, argv[0], napi_int32_array, &indices, &count) ||
      !typed_array(env, argv[1], napi_float64_array, &operands, &numbers))
    return fail(env, "runAll: expected an Int32Array and a Float64Array.");
  const int32_t* kernels = (const int32_t*)indices;
  size_t needed = 0;
  for (size_t i = 0; i < count; i++) {
    if (kernels[i] < 0 || kernels[i] >= device->count) return fail(env, "runAll: expected indices of kernels.");
    needed += (size_t)device->entries[kernels[i]]->operands;
  }
  if (needed != numbers) return fail(env, "runAll: expected the operands of these kernels and no others.");
  const Ctx ctx = {pool_run, device->pool, device->variant.features};
  const double* next = (const double*)operands;
  for (size_t i = 0; i < count; i++) {
    const Entry* entry = device->entries[kernels[i]];
    entry->fn({next, device->arena}, ctx);
    next += entry->operands;
  }
  return nullptr;
}

napi_value bind(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argv[1];
  Device* device;
  napi_typedarray_type type;
  size_t length;
  void* data;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device));
  TRY(napi_get_typedarray_info(env, argv[0], &type, &length, &data, nullptr, nullptr));
  if (type != napi_float64_array) return fail(env, "bind: expected a Float64Array.");
  napi_ref reference;
  TRY(napi_create_reference(env, argv[0], 1, &reference));
  if (device->operands_ref) napi_delete_reference(env, device->operands_ref);
  device->operands_ref = reference;
  device->operands = (const double*)data;
  device->bound = length;
  return nullptr;
}

// The common part of read and write: (byteOffset, typedArray) with the range inside the arena.
bool transfer(napi_env env, napi_callback_info info, char** inside, void** data, size_t* bytes) {
  size_t argc = 2;
  napi_value argv[2];
  Device* device;
  double offset;
  napi_typedarray_type type;
  size_t length;
  if (napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device) != napi_ok ||
      napi_get_value_double(env, argv[0], &offset) != napi_ok ||
      napi_get_typedarray_info(env, argv[1], &type, &length, data, nullptr, nullptr) != napi_ok) {
    fail(env, "read, write: expected (byteOffset, typedArray).");
    return false;
  }
  size_t width = 1;
  if (type == napi_int16_array || type == napi_uint16_array) width = 2;
  if (type == napi_int32_array || type == napi_uint32_array || type == napi_float32_array) width = 4;
  if (type == napi_float64_array || type == napi_bigint64_array || type == napi_biguint64_array) width = 8;
  *bytes = length * width;
  if (!(offset >= 0) || offset > (double)device->reserved || *bytes > device->reserved - (size_t)offset) {
    fail(env, "read, write: expected a range inside the arena.");
    return false;
  }
  *inside = device->arena + (size_t)offset;
  return true;
}

napi_value write(napi_env env, napi_callback_info info) {
  char* inside;
  void* data;
  size_t bytes;
  if (transfer(env, info, &inside, &data, &bytes) && bytes) memcpy(inside, data, bytes);
  return nullptr;
}

napi_value read(napi_env env, napi_callback_info info) {
  char* inside;
  void* data;
  size_t bytes;
  if (transfer(env, info, &inside, &data, &bytes) && bytes) memcpy(data, inside, bytes);
  return nullptr;
}

napi_value variants(napi_env env, napi_callback_info) {
  Variant found[MAX_VARIANTS];
  const int count = supported_variants(found);
  napi_value list;
  TRY(napi_create_array_with_length(env, count, &list));
  for (int i = 0; i < count; i++) {
    napi_value name;
    TRY(napi_create_string_utf8(env, found[i].name, NAPI_AUTO_LENGTH, &name));
    TRY(napi_set_element(env, list, i, name));
  }
  return list;
}

napi_value peak(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2], result;
  Device* device;
  int32_t kind;
  int64_t iterations;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device));
  TRY(napi_get_value_int32(env, argv[0], &kind));
  TRY(napi_get_value_int64(env, argv[1], &iterations));
  const Ctx ctx = {pool_run, device->pool, device->variant.features};
  TRY(napi_create_double(env, device->variant.peak(ctx, device->threads, (PeakKind)kind, iterations), &result));
  return result;
}

double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

napi_value read_rate(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2], result;
  Device* device;
  int64_t bytes;
  int32_t passes;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, (void**)&device));
  TRY(napi_get_value_int64(env, argv[0], &bytes));
  TRY(napi_get_value_int32(env, argv[1], &passes));
  void* data = mmap(nullptr, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return fail(env, "readRate: out of memory.");
#ifdef MADV_HUGEPAGE
  madvise(data, (size_t)bytes, MADV_HUGEPAGE);  // as the arena
#endif
  memset(data, 1, (size_t)bytes);
  const Ctx ctx = {pool_run, device->pool, device->variant.features};
  double best = 0;
  for (int pass = 0; pass < passes; pass++) {
    const double start = seconds();
    const int64_t count = device->variant.read_all(ctx, device->threads, (const float*)data, bytes / 4);
    const double rate = 4.0 * (double)count / (seconds() - start);
    if (rate > best) best = rate;
  }
  munmap(data, (size_t)bytes);
  TRY(napi_create_double(env, best, &result));
  return result;
}

bool flatten(Device* device) {
  const Family* families = device->variant.families;
  for (int i = 0; i < FAMILIES; i++) device->count += families[i].count;
  device->entries = (const Entry**)calloc(device->count, sizeof(Entry*));
  if (!device->entries) return false;
  int next = 0;
  for (int i = 0; i < FAMILIES; i++)
    for (int j = 0; j < families[i].count; j++) device->entries[next++] = &families[i].entries[j];
  return true;
}

napi_value describe(napi_env env, const Device* device) {
  napi_value result, value, kernels;
  TRY(napi_create_object(env, &result));
  TRY(napi_create_string_utf8(env, device->variant.name, NAPI_AUTO_LENGTH, &value));
  TRY(napi_set_named_property(env, result, "isa", value));
  TRY(napi_create_int32(env, device->threads, &value));
  TRY(napi_set_named_property(env, result, "threads", value));
  TRY(napi_create_double(env, (double)device->reserved, &value));
  TRY(napi_set_named_property(env, result, "reservedBytes", value));
  TRY(napi_create_array_with_length(env, device->count, &kernels));
  for (int i = 0; i < device->count; i++) {
    napi_value kernel;
    TRY(napi_create_object(env, &kernel));
    TRY(napi_create_string_utf8(env, device->entries[i]->name, NAPI_AUTO_LENGTH, &value));
    TRY(napi_set_named_property(env, kernel, "name", value));
    TRY(napi_create_int32(env, device->entries[i]->operands, &value));
    TRY(napi_set_named_property(env, kernel, "operands", value));
    TRY(napi_set_element(env, kernels, i, kernel));
  }
  TRY(napi_set_named_property(env, result, "kernels", kernels));
  const struct {
    const char* name;
    napi_callback callback;
  } functions[] = {{"bind", bind}, {"run", run},   {"runAll", run_all},    {"write", write},
                   {"read", read}, {"peak", peak}, {"readRate", read_rate}};
  for (const auto& f : functions) {
    TRY(napi_create_function(env, f.name, NAPI_AUTO_LENGTH, f.callback, (void*)device, &value));
    TRY(napi_set_named_property(env, result, f.name, value));
  }
  return result;
}

napi_value open(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2];
  char isa[16];
  int32_t threads;
  Environment* environment;
  TRY(napi_get_cb_info(env, info, &argc, argv, nullptr, nullptr));
  TRY(napi_get_value_string_utf8(env, argv[0], isa, sizeof isa, nullptr));
  TRY(napi_get_value_int32(env, argv[1], &threads));
  TRY(napi_get_instance_data(env, (void**)&environment));
  Variant found[MAX_VARIANTS];
  const int count = supported_variants(found);
  int choice = 0;
  while (choice < count && strcmp(found[choice].name, isa) != 0) choice++;
  if (choice == count) return fail(env, "open: expected an instruction set of variants().");
  if (threads < 1 || threads > 1024) return fail(env, "open: expected 1 to 1024 threads.");

  Device* device = (Device*)calloc(1, sizeof(Device));
  if (!device) return fail(env, "open: out of memory.");
  device->variant = found[choice];
  device->threads = threads;
  device->arena = reserve_arena(&device->reserved);
  if (device->arena && flatten(device)) device->pool = pool_create(threads);
  if (!device->pool) {
    destroy_device(device);
    return fail(env, "open: the system refused the address space or the threads. Raise its limits or set MAMBA_THREADS=1.");
  }
  device->next = environment->devices;
  environment->devices = device;
  return describe(env, device);
}

}  // namespace

NAPI_MODULE_INIT() {
  Environment* environment = (Environment*)calloc(1, sizeof(Environment));
  if (!environment) return fail(env, "native: out of memory.");
  TRY(napi_set_instance_data(env, environment, destroy_environment, nullptr));
  const struct {
    const char* name;
    napi_callback callback;
  } functions[] = {{"variants", variants}, {"open", open}};
  for (const auto& f : functions) {
    napi_value value;
    TRY(napi_create_function(env, f.name, NAPI_AUTO_LENGTH, f.callback, nullptr, &value));
    TRY(napi_set_named_property(env, exports, f.name, value));
  }
  return exports;
}
