// Sharing a loop among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace pcnn {

// A thread must bring more than it costs: starting one takes 20-60 µs (benchmarks/bench_ops.py
// measures it), so each gets at least this many nanoseconds of work.
constexpr double kWorkPerThread = 150e3;

// Calls body(begin, end) until 0 … count is done, on at most `threads` threads.
// Threads start anew at each call. OpenMP would bring a second runtime beside PyTorch's own, whose
// idle threads spin against ours, and hangs in a forked child (a data loader's); a pool of our own
// would have to be mended after a fork, too.
template <typename Body>
void parallel_for(std::int64_t count, double nanoseconds, int threads, const Body& body) {
  const double useful = std::min<double>(nanoseconds / kWorkPerThread, static_cast<double>(count));
  const int workers = static_cast<int>(std::min<double>(threads, useful));
  if (workers <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  // Small pieces, taken as each thread comes free: a busy machine does not hold up the others.
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
    // No more threads to be had: those there are, and this one, do the work.
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace pcnn
