// Parallel loops over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <unistd.h>
#endif

namespace pcnn {

// The least work of a thread, in nanoseconds. It must exceed the cost of starting one, 20-60 µs
// where PyTorch's cannot be used (measured by benchmarks/bench_ops.py).
constexpr double kWorkPerThread = 150e3;

// PyTorch's own threads: GOMP_parallel of the OpenMP runtime that it has loaded. Its idle threads
// spin for a while, and threads of our own would compete with them for the processors.
// nullptr without it, and in a forked child, where OpenMP waits for its parent's threads forever.
using Team = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
#if defined(__linux__)
inline const pid_t kLoadedIn = getpid();
inline Team team() {
  static const Team found = reinterpret_cast<Team>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return getpid() == kLoadedIn ? found : nullptr;
}
#else
inline Team team() { return nullptr; }
#endif

// Calls body(0) … body(n - 1) at the same time, each on a thread of its own, one of them on this
// one. n is at most `threads`, and fewer where the system has no more. An exception of one is
// thrown again when all have ended.
template <typename Body>
void on_threads(int threads, const Body& body) {
  struct Call {
    const Body& body;
    std::atomic<int> next{0};
    std::exception_ptr failure;
    std::mutex guard;

    static void run(void* data) {
      Call& own = *static_cast<Call*>(data);
      try {
        own.body(own.next.fetch_add(1));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(own.guard);
        own.failure = std::current_exception();
      }
    }
  };
  Call call{body, {0}, nullptr, {}};
  const Team own = threads > 1 ? team() : nullptr;
  if (own) {
    own(&Call::run, &call, static_cast<unsigned>(threads), 0);
  } else {
    std::vector<std::thread> others;
    try {
      while (static_cast<int>(others.size()) < threads - 1) others.emplace_back(&Call::run, &call);
    } catch (...) {  // no more threads, or no memory for one
      // Those already started, and this one, do the work.
    }
    Call::run(&call);
    for (std::thread& other : others) other.join();
  }
  if (call.failure) std::rethrow_exception(call.failure);
}

// Calls body(begin, end) for parts of 0 … count, on at most `threads` threads.
template <typename Body>
void parallel_for(std::int64_t count, double nanoseconds, int threads, const Body& body) {
  const double useful = std::min<double>(nanoseconds / kWorkPerThread, static_cast<double>(count));
  const int workers = static_cast<int>(std::min<double>(threads, useful));
  if (workers <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  // Each thread takes small pieces when it is free, so that a slow thread does not delay the
  // others.
  const std::int64_t piece = std::max<std::int64_t>(1, count / (workers * 8));
  std::atomic<std::int64_t> next{0};
  on_threads(workers, [&](int) {
    for (std::int64_t begin; (begin = next.fetch_add(piece)) < count;) {
      body(begin, std::min(begin + piece, count));
    }
  });
}

}  // namespace pcnn
