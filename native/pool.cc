// Every thread is handed a range of the tasks, always the same one of the same job: what it wrote in the last kernel of a step, it
// mostly finds in its own caches in the next. Who has finished takes tasks of the others.
//
// A range is one atomic number, the tasks in it that nobody has claimed. A thread claims by decrementing it and reads the job only
// after that: an unfinished claim keeps the job alive, so a late worker can never see a stale one. What a worker needs to begin lies
// in one cache line, because between cores on different dies a line takes as long as a small kernel.
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

// What one thread is to do.
struct alignas(64) Hand {
  std::atomic<int64_t> unclaimed{0};
  int64_t end = 0;  // of the range
  Ctx::Task task = nullptr;
  const void* body = nullptr;
};

struct alignas(64) Sleeper {
  std::atomic<bool> asleep{false};
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
};

struct Pool {
  // Tasks that workers have finished since the pool was created.
  alignas(64) std::atomic<int64_t> finished{0};
  alignas(64) std::atomic<bool> stop{false};
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  int threads = 0;
  int workers = 0;
  Hand* hands = nullptr;  // of each thread, the caller's first
  Sleeper* sleepers = nullptr;
  char* scratch = nullptr;  // threads * SCRATCH_BYTES, the caller's first
  pthread_t* handles = nullptr;

  // Runs what is left of the own range, then of the others'. Returns how many tasks.
  int64_t work(int own, char* memory) {
    int64_t done = 0;
    for (int i = 0; i < threads; i++) {
      Hand& hand = hands[(own + i) % threads];
      int64_t left = hand.unclaimed.load(std::memory_order_acquire);
      while (left > 0) {
        if (!hand.unclaimed.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire))
          continue;
        hand.task(hand.body, hand.end - left, memory);
        done++;
        left = hand.unclaimed.load(std::memory_order_acquire);
      }
    }
    return done;
  }

  void worker(int own, char* memory) {
    Hand& hand = hands[own];
    Sleeper& self = sleepers[own];
    const auto ready = [&] { return hand.unclaimed.load(std::memory_order_acquire) > 0 || stop.load(); };
    for (;;) {
      if (!spin(ready)) {
        pthread_mutex_lock(&mutex);
        self.asleep.store(true);
        while (hand.unclaimed.load() <= 0 && !stop.load()) pthread_cond_wait(&self.wake, &mutex);
        self.asleep.store(false);
        pthread_mutex_unlock(&mutex);
      }
      if (stop.load()) return;
      finished.fetch_add(work(own, memory), std::memory_order_release);
    }
  }

  // Wakes those of the first `count` threads that sleep.
  void wake(int count) {
    for (int i = 1; i < count; i++) {
      if (!sleepers[i].asleep.load(std::memory_order_relaxed)) continue;
      pthread_mutex_lock(&mutex);
      pthread_cond_signal(&sleepers[i].wake);
      pthread_mutex_unlock(&mutex);
    }
  }
};

namespace {

struct Start {
  Pool* pool;
  int thread;
};

void* worker_main(void* argument) {
  const Start start = *(Start*)argument;
  delete (Start*)argument;
  start.pool->worker(start.thread, start.pool->scratch + start.thread * SCRATCH_BYTES);
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
  pool->hands = new (std::nothrow) Hand[threads];
  pool->sleepers = new (std::nothrow) Sleeper[threads];
  bool ok = pool->scratch && pool->handles && pool->hands && pool->sleepers;
  for (int i = 1; ok && i < threads; i++) {
    Start* start = new (std::nothrow) Start{pool, i};
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
  for (int i = 1; i <= pool->workers; i++) pthread_cond_signal(&pool->sleepers[i].wake);
  pthread_mutex_unlock(&pool->mutex);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->handles[i], nullptr);
  if (pool->scratch) munmap(pool->scratch, (size_t)pool->threads * SCRATCH_BYTES);
  free(pool->handles);
  delete[] pool->hands;
  delete[] pool->sleepers;
  delete pool;
}

void pool_run(void* handle, int64_t tasks, Ctx::Task task, const void* body) {
  Pool* pool = (Pool*)handle;
  if (tasks == 1 || pool->workers == 0) {
    for (int64_t i = 0; i < tasks; i++) task(body, i, pool->scratch);
    return;
  }
  const int64_t before = pool->finished.load(std::memory_order_relaxed), each = tasks / pool->threads;
  const int most = tasks < pool->threads ? (int)tasks : pool->threads;
  int64_t end = tasks;
  for (int i = most - 1; i >= 0; i--) {
    const int64_t count = each + (i < tasks % pool->threads);
    Hand& hand = pool->hands[i];
    hand.end = end, hand.task = task, hand.body = body;
    // The first task is the caller's: it is at work before the others' lines have arrived.
    hand.unclaimed.store(i == 0 ? count - 1 : count, std::memory_order_release);
    end -= count;
  }
  pool->wake(most);
  task(body, 0, pool->scratch);
  // Who fell asleep while the job was on its way has not seen it.
  pool->wake(most);
  const int64_t others = tasks - 1 - pool->work(0, pool->scratch);
  const auto done = [=] { return pool->finished.load(std::memory_order_acquire) - before == others; };
  // A worker that lost its core in the middle of a task needs ours to finish.
  while (!spin(done)) sched_yield();
}
