// The two pools without kernels: pool.cc, and wasm-pool.h on threads of this machine, with a sleep and a wake of the test's
// own. Every task of a job runs once, on scratch that is its thread's alone, and sees what was written before the job; the
// caller sees what the tasks wrote. With more threads than cores; with workers that look for work, sleep, end or begin.
// Exit code 1 when a task does not; a job that never ends is ended by an alarm. Run by scripts/test-native.mjs.
#include "../pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "../wasm-pool.h"

namespace {

constexpr int MOST_THREADS = 8;
constexpr unsigned SECONDS = 300;  // far more than it takes: sanitizers and emulators are slow
// A sleep of this many microseconds outlasts the time for which idle workers look for work.
constexpr int LONG = 1000;

int failures = 0;

void expect(bool ok, const char* pool, int threads, int64_t tasks, const char* what) {
  if (ok || ++failures > 20) return;
  printf("%s, %d threads, %lld tasks: %s\n", pool, threads, (long long)tasks, what);
}

// A job of tasks that count themselves. `slow` takes longer than anybody looks for work.
void check_job(const char* name, int threads, const Ctx& ctx, int64_t tasks, int64_t slow = -1) {
  static int64_t job = 0;
  std::vector<int64_t> ran(tasks, -1);  // plain memory: the thread sanitizer sees two tasks that share one
  const int64_t before = ++job;
  bool alone = true;
  std::mutex mutex;
  ctx.parallel(tasks, [&](int64_t task, char* scratch) {
    // Marks all over the scratch memory; another thread on it would change them meanwhile.
    for (int64_t at = 0; at < SCRATCH_BYTES; at += SCRATCH_BYTES / 4) *(volatile int64_t*)(scratch + at) = task;
    if (task == slow) usleep(LONG);
    ran[task] = ran[task] < 0 ? before + task : -2;
    for (int64_t at = 0; at < SCRATCH_BYTES; at += SCRATCH_BYTES / 4) {
      if (*(volatile int64_t*)(scratch + at) == task) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      alone = false;
    }
  });
  for (int64_t i = 0; i < tasks; i++) expect(ran[i] == before + i, name, threads, tasks, "a task did not run once");
  expect(alone, name, threads, tasks, "a task was not alone on its scratch memory");
}

// Jobs of all sizes: one after the other, after workers have gone to sleep, and with a task that the others outlast or wait for.
void check_jobs(const char* name, int threads, const Ctx& ctx) {
  const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 64, 1000};
  for (int round = 0; round < 50; round++)
    for (const int64_t tasks : sizes) check_job(name, threads, ctx, tasks);
  for (int round = 0; round < 5; round++) {
    for (const int64_t tasks : sizes) {
      usleep(round % 2 ? LONG : 30);
      check_job(name, threads, ctx, tasks, round % 2 ? 0 : tasks - 1);
    }
  }
}

// ---- the pool of the addon --------------------------------------------------------------------------------------------
Ctx over(Pool* pool) { return {pool_run, pool, 0}; }

void test_native() {
  const char* name = "pool";
  for (int threads = 1; threads <= MOST_THREADS; threads++) {
    Pool* pool = pool_create(threads);
    check_jobs(name, threads, over(pool));
    pool_destroy(pool);
    // Ended while workers begin, while they look for work, and while they sleep.
    for (int round = 0; round < 20; round++) pool_destroy(pool_create(threads));
    for (const int wait : {0, LONG}) {
      pool = pool_create(threads);
      usleep(wait);
      check_job(name, threads, over(pool), 2 * threads);
      usleep(wait);
      pool_destroy(pool);
    }
  }
  // Devices of two environments at once.
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 2; caller++)
    callers.emplace_back([] {
      Pool* pool = pool_create(3);
      int64_t sum = 0;
      for (int job = 0; job < 2000; job++) {
        int64_t part[16];
        over(pool).parallel(16, [&](int64_t task, char*) { part[task] = task; });
        for (const int64_t x : part) sum += x;
      }
      pool_destroy(pool);
      if (sum != 2000 * 120) abort();
    });
  for (std::thread& caller : callers) caller.join();
}

// ---- the pool of WebAssembly ------------------------------------------------------------------------------------------
struct Waiter {
  const int32_t* at;
  bool woken;
};
// Never destroyed: workers sleep here when the program ends.
std::mutex& sleep_mutex = *new std::mutex;
std::condition_variable& woken = *new std::condition_variable;
std::list<Waiter*>& waiters = *new std::list<Waiter*>;

Ctx over_wasm() { return {wasm_pool::run, nullptr, 0}; }

// Its end is a trap: an exception here.
void serve(int thread) {
  try {
    wasm_pool::serve(thread);
  } catch (int) {
    wasm_pool::fail();
  }
}

void test_wasm() {
  const char* name = "wasm pool";
  wasm_pool::pool.threads = MOST_THREADS;
  wasm_pool::pool.blocks = (char*)aligned_alloc(64, MOST_THREADS * (SCRATCH_BYTES + wasm_pool::STACK_BYTES));
  // Workers begin one by one: those that have not are missed by nobody.
  for (int begun = 1; begun <= MOST_THREADS; begun++) {
    for (const bool may_sleep : {true, false}) {
      wasm_pool::pool.may_sleep = may_sleep;
      check_jobs(name, begun, over_wasm());
    }
    if (begun < MOST_THREADS) std::thread(serve, begun).detach();
  }
  // A worker that traps ends the job, whether the caller looks or sleeps. Others may be in a task still: nothing of it ends.
  const Ctx::Task trap = [](const void*, int64_t, char* scratch) {
    usleep(LONG);
    if (scratch != wasm_pool::scratch(0)) throw 1;
  };
  wasm_pool::pool.may_sleep = true;
  while (!wasm_pool::load(wasm_pool::pool.failed)) wasm_pool::run(nullptr, 2 * MOST_THREADS, trap, nullptr);
}

}  // namespace

namespace wasm_pool {

// As memory.atomic.wait32 and memory.atomic.notify: who waits longest is woken first, and no more than `count`.
void sleep(int32_t& x, int32_t seen) {
  std::unique_lock<std::mutex> lock(sleep_mutex);
  if (load(x) != seen) return;
  Waiter self = {&x, false};
  waiters.push_back(&self);
  woken.wait(lock, [&] { return self.woken; });
}

void wake(int32_t& x, int32_t count) {
  const std::lock_guard<std::mutex> lock(sleep_mutex);
  for (auto waiter = waiters.begin(); waiter != waiters.end() && count > 0;) {
    if ((*waiter)->at != &x) {
      ++waiter;
      continue;
    }
    (*waiter)->woken = true;
    waiter = waiters.erase(waiter);
    count--;
  }
  woken.notify_all();
}

}  // namespace wasm_pool

int main() {
  alarm(SECONDS);
  test_native();
  test_wasm();
  printf("pools: 1 to %d threads, %d failed\n", MOST_THREADS, failures);
  return failures ? 1 : 0;
}
