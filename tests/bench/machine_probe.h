// What this machine can do at most, measured: the roofs that benchmarks are compared with.

#ifndef SPARSEFUSE_TESTS_BENCH_MACHINE_PROBE_H_
#define SPARSEFUSE_TESTS_BENCH_MACHINE_PROBE_H_

namespace sparsefuse::test {

// Seconds on this thread's CPU clock, or of wall time.
double Now(bool cpu_time);

// Exact int8 products of one thread, 10⁹ operations (2 a product) a second, by the instructions
// that the best kernel for this CPU uses, operands in registers.
double PeakGops();

// Bytes that one thread reads from memory, 10⁹ a second, from 256 MiB in order.
double StreamGbPerSecond();

// Nanoseconds of one tile product. Cores with AMX change for seconds at a time into a state in
// which it takes four times as long; samples beside it mean nothing. 0 without AMX.
double AmxTileNs();

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_BENCH_MACHINE_PROBE_H_
