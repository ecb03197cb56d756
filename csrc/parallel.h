// Parallel loops over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace pcnn {

// The least work of a thread, in nanoseconds. It must exceed the cost of starting one, 20-60 µs
// (measured by benchmarks/bench_ops.py).
constexpr double kWorkPerThread = 150e3;

// Calls body(0) … body(threads - 1), each on its own thread, body(0) on this one. An exception of
// one is thrown again when all have ended. If the system has no more threads, fewer are called.
// Each call starts new threads. OpenMP would add a second runtime beside PyTorch's own. Its idle
// threads compete with ours by spinning, and it hangs in a forked child, such as a data loader. A
// thread pool would have to be restored after a fork, too.
template <typename Body>
void on_threads(int threads, const Body& body) {
  std::exception_ptr failure;
  std::mutex guard;
  const auto guarded = [&](int thread) {
    try {
      body(thread);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(std::max(threads - 1, 0));
  try {
    while (static_cast<int>(others.size()) < threads - 1) {
      others.emplace_back(guarded, static_cast<int>(others.size()) + 1);
    }
  } catch (...) {  // no more threads, or no memory for one
    // Those already started, and this one, do the work.
  }
  guarded(0);
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
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
