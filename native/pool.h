// A small thread pool for kernels: the calling thread works too, idle workers spin briefly and then park.
#pragma once

#include "include/kernels.h"

struct Pool;

// `threads` counts the caller: threads - 1 workers are started. nullptr when memory or threads cannot be had.
Pool* pool_create(int threads);
// Joins the workers. Must not be called while a job runs.
void pool_destroy(Pool* pool);
// Ctx::run over a Pool. One job at a time, always from the same thread.
void pool_run(void* pool, int64_t tasks, Ctx::Task task, const void* body);
