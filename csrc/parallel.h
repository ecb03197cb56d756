// Parallel loops over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace pcnn {

// The least work of a thread, in nanoseconds. It must exceed the cost of starting one, 20-60 µs
// (measured by benchmarks/bench_ops.py).
constexpr double kWorkPerThread = 150e3;

// Calls body(begin, end) for parts of 0 … count, on at most `threads` threads.
// Each call starts new threads. OpenMP would add a second runtime beside PyTorch's own. Its idle
// threads compete with ours by spinning, and it hangs in a forked child, such as a data loader. A
// thread pool would have to be restored after a fork, too.
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
  const auto work = [&] {
    for (std::int64_t begin; (begin = next.fetch_add(piece)) < count;) {
      body(begin, std::min(begin + piece, count));
    }
  };
  std::vector<std::thread> others;
  others.reserve(workers - 1);
  try {
    while (static_cast<int>(others.size()) < workers - 1) others.emplace_back(work);
  } catch (const std::system_error&) {
    // The system has no more threads: those already started, and this one, do the work.
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace pcnn
