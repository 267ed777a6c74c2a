// The threads of the WebAssembly host: instances of the module in workers, over one shared memory. Tasks are handed
// out by the number of those not yet claimed, and as in pool.cc a job is read only after a claim on it. Workers that have not
// started yet, or never do, cost speed alone: the caller runs what nobody else claims.
#pragma once

#include "include/kernels.h"

namespace wasm_pool {

// Looks before sleeping: about 20 us, longer than the gap between two kernels of a step. There is no clock here.
constexpr int SPINS = 20000;
constexpr int64_t STACK_BYTES = 256 << 10;

struct Pool {
  // Cache lines of their own: claims and completions are written by different threads at different times.
  alignas(64) int32_t unclaimed;
  alignas(64) int32_t finished;
  alignas(64) int32_t sleepers;
  int32_t caller_sleeps;
  int32_t failed;
  alignas(64) int32_t tasks;
  Ctx::Task task;
  const void* body;
  int32_t threads;
  bool may_sleep;  // not on the main thread of a page
  char* blocks;    // of each thread: its scratch, then its stack
};

inline Pool pool;

inline int32_t load(const int32_t& x) { return __atomic_load_n(&x, __ATOMIC_SEQ_CST); }
inline void store(int32_t& x, int32_t value) { __atomic_store_n(&x, value, __ATOMIC_SEQ_CST); }
inline int32_t add(int32_t& x, int32_t value) { return __atomic_add_fetch(&x, value, __ATOMIC_SEQ_CST); }
// Until `x` is told to have changed from `seen`; at once when it has.
#if defined(__wasm__)
inline void sleep(int32_t& x, int32_t seen) { __builtin_wasm_memory_atomic_wait32(&x, seen, -1); }
inline void wake(int32_t& x, int32_t count) { __builtin_wasm_memory_atomic_notify(&x, count); }
#else  // native/test/pool.cc has its own
void sleep(int32_t& x, int32_t seen);
void wake(int32_t& x, int32_t count);
#endif

inline char* scratch(int thread) { return pool.blocks + thread * (SCRATCH_BYTES + STACK_BYTES); }
inline char* stack_top(int thread) { return scratch(thread + 1); }

template <class F>
inline bool spin(const F& ready) {
  for (int i = 0; i < SPINS; i++)
    if (ready()) return true;
  return false;
}

inline void work(char* own) {
  int32_t left = load(pool.unclaimed);
  while (left > 0) {
    if (!__atomic_compare_exchange_n(&pool.unclaimed, &left, left - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
    pool.task(pool.body, pool.tasks - left, own);
    add(pool.finished, 1);
    if (load(pool.caller_sleeps)) wake(pool.finished, 1);
    left = load(pool.unclaimed);
  }
}

// What a worker does until it is terminated.
[[noreturn]] inline void serve(int thread) {
  for (;;) {
    if (!spin([] { return load(pool.unclaimed) > 0; })) {
      add(pool.sleepers, 1);
      while (load(pool.unclaimed) <= 0) sleep(pool.unclaimed, 0);
      add(pool.sleepers, -1);
    }
    work(scratch(thread));
  }
}

// A worker has trapped in the middle of a task, which will never be finished. Counted all the same: it ends the caller's sleep.
inline void fail() {
  store(pool.failed, 1);
  add(pool.finished, 1);
  wake(pool.finished, 1);
}

inline bool over() { return load(pool.finished) == pool.tasks || load(pool.failed); }

// Ctx::run. With `failed` set, the job is not complete.
inline void run(void*, int64_t tasks, Ctx::Task task, const void* body) {
  if (tasks == 1 || pool.threads == 1) {
    for (int64_t i = 0; i < tasks; i++) task(body, i, scratch(0));
    return;
  }
  pool.tasks = (int32_t)tasks;
  pool.task = task;
  pool.body = body;
  store(pool.finished, 0);
  store(pool.unclaimed, (int32_t)tasks);
  if (load(pool.sleepers) > 0) wake(pool.unclaimed, (int32_t)tasks - 1);
  work(scratch(0));
  while (!spin(over)) {
    if (!pool.may_sleep) continue;
    // A worker that lost its core in the middle of a task needs ours to finish.
    store(pool.caller_sleeps, 1);
    for (int32_t seen = load(pool.finished); !over(); seen = load(pool.finished)) sleep(pool.finished, seen);
    store(pool.caller_sleeps, 0);
  }
}

}  // namespace wasm_pool
