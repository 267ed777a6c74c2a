// Tasks are handed out by one atomic word, the number of tasks not yet claimed. A worker claims by decrementing it and
// reads the job only after that: an unfinished claim keeps the job alive, so a late worker can never see a stale one.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <new>

namespace {

// How long an idle worker looks for the next job before it parks: longer than the gap between two kernels of a
// step (a few microseconds of JavaScript), shorter than a wake-up costs twice over.
constexpr int64_t SPIN_NANOSECONDS = 20000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Spins until `ready` or until the time is up; returns whether it became ready.
template <class F>
inline bool spin(const F& ready) {
  const int64_t end = now() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < 32; i++) {
      if (ready()) return true;
      relax();
    }
  } while (now() < end);
  return false;
}

}  // namespace

struct Pool {
  // Separate cache lines: claims and completions are written by different threads at different times.
  alignas(64) std::atomic<int64_t> unclaimed{0};
  alignas(64) std::atomic<int64_t> finished{0};
  alignas(64) int64_t tasks = 0;
  Ctx::Task task = nullptr;
  const void* body = nullptr;
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
  int threads = 0;
  int workers = 0;
  char* scratch = nullptr;  // threads * SCRATCH_BYTES, the caller's first
  pthread_t* handles = nullptr;

  void work(char* own) {
    int64_t left = unclaimed.load(std::memory_order_acquire);
    while (left > 0) {
      if (!unclaimed.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      task(body, tasks - left, own);
      finished.fetch_add(1, std::memory_order_release);
      left = unclaimed.load(std::memory_order_acquire);
    }
  }

  void worker(char* own) {
    const auto ready = [this] { return unclaimed.load(std::memory_order_acquire) > 0 || stop.load(); };
    for (;;) {
      if (!spin(ready)) {
        pthread_mutex_lock(&mutex);
        sleepers.fetch_add(1);
        while (unclaimed.load() <= 0 && !stop.load()) pthread_cond_wait(&wake, &mutex);
        sleepers.fetch_sub(1);
        pthread_mutex_unlock(&mutex);
      }
      if (stop.load()) return;
      work(own);
    }
  }
};

namespace {

struct Start {
  Pool* pool;
  char* scratch;
};

void* worker_main(void* argument) {
  const Start start = *(Start*)argument;
  delete (Start*)argument;
  start.pool->worker(start.scratch);
  return nullptr;
}

}  // namespace

Pool* pool_create(int threads) {
  Pool* pool = new (std::nothrow) Pool;
  if (!pool) return nullptr;
  pool->threads = threads;
  const size_t bytes = (size_t)threads * SCRATCH_BYTES;
  void* scratch = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  pool->scratch = scratch == MAP_FAILED ? nullptr : (char*)scratch;
  pool->handles = (pthread_t*)calloc(threads, sizeof(pthread_t));
  bool ok = pool->scratch && pool->handles;
  for (int i = 1; ok && i < threads; i++) {
    Start* start = new (std::nothrow) Start{pool, pool->scratch + i * SCRATCH_BYTES};
    ok = start && pthread_create(&pool->handles[pool->workers], nullptr, worker_main, start) == 0;
    if (ok) pool->workers++;
    else delete start;
  }
  if (ok) return pool;
  pool_destroy(pool);
  return nullptr;
}

void pool_destroy(Pool* pool) {
  pthread_mutex_lock(&pool->mutex);
  pool->stop.store(true);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->handles[i], nullptr);
  if (pool->scratch) munmap(pool->scratch, (size_t)pool->threads * SCRATCH_BYTES);
  free(pool->handles);
  delete pool;
}

void pool_run(void* handle, int64_t tasks, Ctx::Task task, const void* body) {
  Pool* pool = (Pool*)handle;
  if (tasks == 1 || pool->workers == 0) {
    for (int64_t i = 0; i < tasks; i++) task(body, i, pool->scratch);
    return;
  }
  pool->tasks = tasks;
  pool->task = task;
  pool->body = body;
  pool->finished.store(0, std::memory_order_relaxed);
  pool->unclaimed.store(tasks);
  if (pool->sleepers.load() > 0) {
    pthread_mutex_lock(&pool->mutex);
    if (tasks > pool->workers) pthread_cond_broadcast(&pool->wake);
    else
      for (int64_t i = 1; i < tasks; i++) pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
  pool->work(pool->scratch);
  const auto done = [pool, tasks] { return pool->finished.load(std::memory_order_acquire) == tasks; };
  // A worker that lost its core in the middle of a task needs ours to finish.
  while (!spin(done)) sched_yield();
}
