// Few rows of which many codes are 0 (after a ReLU nearly all): only the weights of inputs that are
// not 0 in every row are read. They lie input by input in a copy of the weights:
//
//   strip: 32 words, those of int8 of 4 outputs each, those of 4 bits of 8
//            word 0   word 1   …   word 31
//   input 0 ┃▮▮▮▮    ┃▮▮▮▮    ┃   ┃▮▮▮▮    ┃   128 neighbouring bytes
//   input 1 ┃        ┃        ┃   ┃        ┃   not read if its code is 0
//     …
//
// A block of threads takes a strip and a span of inputs. It lists the inputs that count, as TwELL
// (arXiv 2603.23198) does by tiles; but as a list is as long as its span, none can be too short,
// and as it is made where it is used, it never leaves the block. Sums of spans meet in global
// memory, as integers; the last block of a strip finishes it.

#ifndef SPARSEFUSE_KERNELS_CUDA_SKIP_ZEROS_CUH_
#define SPARSEFUSE_KERNELS_CUDA_SKIP_ZEROS_CUH_

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/ptx.cuh"

namespace sparsefuse::cuda::skip {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kAhead = 4;  // fours of inputs whose weights a warp asks for at once

// Nibbles of an output and of the one 16 further lie in one byte.
template <Encoding kEncoding>
constexpr int kHalves = kEncoding == Encoding::kInt4 ? 2 : 1;
template <Encoding kEncoding>
constexpr int kOutputs = 4 * kWarp* kHalves<kEncoding>;  // of a strip
static_assert(kOutputs<Encoding::kInt8> == StripOutputs(Encoding::kInt8));
static_assert(kOutputs<Encoding::kInt4> == StripOutputs(Encoding::kInt4));

// Of the 4 · kHalves outputs of a lane's word, byte `byte`, nibble `half`: its place in the strip.
template <Encoding kEncoding>
__device__ constexpr int OutputOf(int lane, int half, int byte) {
  constexpr int kPanelBytes = PlaneBytes(kEncoding) / kGroupInputs;  // of one input
  const int at = lane * 4 + byte;
  return at / kPanelBytes * static_cast<int>(kPanelOutputs) + half * 16 + at % kPanelBytes;
}

// --- The copy of the weights ---

// Word `word` of strip `strip` of an input, from a dense layer's weights in layout 1; zeros where
// there is no such output.
template <Encoding kEncoding>
__device__ uint32_t InputWord(const uint8_t* weight, int32_t panels, int32_t groups_per_panel,
                              int64_t strip, int64_t input, int word) {
  constexpr int kPanelBytes = PlaneBytes(kEncoding) / kGroupInputs;
  constexpr int kStripPanels = kOutputs<kEncoding> / static_cast<int>(kPanelOutputs);
  const int64_t panel = strip * kStripPanels + word * 4 / kPanelBytes;
  if (panel >= panels) return 0;
  const uint8_t* from = weight +
                        (panel * groups_per_panel + input / kGroupInputs) * PlaneBytes(kEncoding) +
                        word * 4 % kPanelBytes * kGroupInputs + input % kGroupInputs;
  uint32_t bytes = 0;
  for (int i = 0; i < 4; ++i) bytes |= uint32_t{from[i * kGroupInputs]} << 8 * i;
  return bytes;
}

// --- The product ---

// words[i]: an input's four bytes. Afterwards words[i]: byte i of all four.
__device__ inline void Transpose(uint32_t (&words)[4]) {
  const uint32_t low01 = __byte_perm(words[0], words[1], 0x5140);
  const uint32_t low23 = __byte_perm(words[2], words[3], 0x5140);
  const uint32_t high01 = __byte_perm(words[0], words[1], 0x7362);
  const uint32_t high23 = __byte_perm(words[2], words[3], 0x7362);
  words[0] = __byte_perm(low01, low23, 0x5410);
  words[1] = __byte_perm(low01, low23, 0x7632);
  words[2] = __byte_perm(high01, high23, 0x5410);
  words[3] = __byte_perm(high01, high23, 0x7632);
}

// What a block keeps in shared memory.
template <Encoding kEncoding, int kRows>
struct Shared {
  int32_t sum[kRows][kOutputs<kEncoding>];
  uint32_t code[kRows][kSkipSpan / 4];  // of the listed inputs, four a word
  uint2 input[kSkipSpan / 4];  // the listed inputs less the span's first, four 16-bit words
  int32_t count;               // of listed inputs
  int32_t last;                // not 0: all other blocks of the strip are done
};

// Inputs first … end − 1 that are not 0 in every row, with their codes; whole fours, filled up with
// codes of 0. first is a multiple of 4; where `end` is none, the inputs end there, and codes beyond
// them are 0 (quantize.h).
template <Encoding kEncoding, int kRows>
__device__ void ListInputs(const Job& job, int64_t first, int64_t end,
                           Shared<kEncoding, kRows>& shared) {
  const int rows = static_cast<int>(job.rows);
  auto* const input = reinterpret_cast<uint16_t*>(shared.input);
  for (int64_t k = first + 4 * threadIdx.x; k < end; k += 4 * kThreads) {
    uint32_t word[kRows], any = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      word[r] = 0;
      if (r < rows) {
        word[r] = *reinterpret_cast<const uint32_t*>(job.codes + r * job.codes_stride + k);
      }
      any |= word[r];
    }
    int counted = 0;
    for (int i = 0; i < 4; ++i) counted += (any >> 8 * i & 0xffu) != 0;
    if (counted == 0) continue;
    int place = atomicAdd(&shared.count, counted);
    for (int i = 0; i < 4; ++i) {
      if ((any >> 8 * i & 0xffu) == 0) continue;
      input[place] = static_cast<uint16_t>(k - first + i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        reinterpret_cast<uint8_t*>(shared.code[r])[place] = static_cast<uint8_t>(word[r] >> 8 * i);
      }
      ++place;
    }
  }
  __syncthreads();
  const int count = shared.count, place = count + threadIdx.x;
  if (place < (count + 3) / 4 * 4) {
    input[place] = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) reinterpret_cast<uint8_t*>(shared.code[r])[place] = 0;
  }
  __syncthreads();
}

// Adds the products of the listed inputs to shared.sum. weights: this lane's word of the span's
// first input.
template <Encoding kEncoding, int kRows>
__device__ void Multiply(const Job& job, const uint32_t* weights,
                         Shared<kEncoding, kRows>& shared) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int fours = (shared.count + 3) / 4;
  int32_t sum[kRows][kHalves<kEncoding>][4] = {};
  for (int first = warp; first < fours; first += kAhead * kWarps) {
    uint32_t words[kAhead][4] = {};
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      if (first + ahead * kWarps >= fours) break;
      const uint2 inputs = shared.input[first + ahead * kWarps];
      words[ahead][0] = __ldg(weights + (inputs.x & 0xffffu) * kWarp);
      words[ahead][1] = __ldg(weights + (inputs.x >> 16) * kWarp);
      words[ahead][2] = __ldg(weights + (inputs.y & 0xffffu) * kWarp);
      words[ahead][3] = __ldg(weights + (inputs.y >> 16) * kWarp);
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int four = first + ahead * kWarps;
      if (four >= fours) break;
      Transpose(words[ahead]);
#pragma unroll
      for (int half = 0; half < kHalves<kEncoding>; ++half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t word = words[ahead][i];
          const uint32_t w = kEncoding == Encoding::kInt8 ? word
                             : half == 0                  ? LowNibbles16(word)
                                                          : HighNibbles16(word);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            sum[r][half][i] = __dp4a(static_cast<int>(w), static_cast<int>(shared.code[r][four]),
                                     sum[r][half][i]);
          }
        }
      }
    }
  }
  if (warp >= fours) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= job.rows) break;
#pragma unroll
    for (int half = 0; half < kHalves<kEncoding>; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        atomicAdd(&shared.sum[r][OutputOf<kEncoding>(lane, half, i)],
                  Unscaled<kEncoding>(sum[r][half][i]));
      }
    }
  }
}

// Scales, adds the bias, activates and writes a strip, whose sums are complete.
template <Encoding kEncoding>
__device__ void Finish(const Job& job, const Skip& skip, int64_t strip) {
  for (int i = threadIdx.x; i < job.rows * kOutputs<kEncoding>; i += kThreads) {
    const int row = i / kOutputs<kEncoding>;
    const int64_t output = strip * kOutputs<kEncoding> + i % kOutputs<kEncoding>;
    if (output >= job.outputs) continue;
    const int64_t panel = output / kPanelOutputs;
    const float* scale =
        job.scale + panel * skip.shape.scale_rows * kPanelOutputs + output % kPanelOutputs;
    float value = 0;
    for (int32_t g = 0; g < skip.shape.scale_rows; ++g) {
      const int32_t sum =
          __ldcg(skip.sum +
                 (int64_t{g} * job.rows + row) * skip.shape.strips * kOutputs<kEncoding> + output);
      value += scale[int64_t{g} * kPanelOutputs] * static_cast<float>(sum);
    }
    value = job.row_scale[row] * value + job.bias[output];
    Store(job, row * job.outputs + output, ActivateOnDevice(job.activation, value));
  }
}

// A block's work: strip blockIdx.x mod strips, span blockIdx.x / strips. kRows ≥ job.rows.
template <Encoding kEncoding, int kRows>
__device__ void Span(const Job& job, const Skip& skip, Shared<kEncoding, kRows>& shared) {
  LetNextLaunchStart();
  const int64_t strip = blockIdx.x % skip.shape.strips;
  const int32_t span = blockIdx.x / skip.shape.strips;
  const int32_t scale_row = span / skip.shape.spans_per_scale;
  const int64_t first = int64_t{scale_row} * skip.shape.scale_inputs +
                        int64_t{span % skip.shape.spans_per_scale} * kSkipSpan;
  const int64_t row_end = min(int64_t{scale_row + 1} * skip.shape.scale_inputs, skip.shape.inputs);
  for (int i = threadIdx.x; i < kRows * kOutputs<kEncoding>; i += kThreads) {
    (&shared.sum[0][0])[i] = 0;
  }
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  WaitForEarlierLaunch();
  ListInputs<kEncoding, kRows>(job, first, min(first + kSkipSpan, row_end), shared);
  Multiply<kEncoding, kRows>(
      job, skip.input_words + (strip * skip.shape.inputs + first) * kWarp + threadIdx.x % kWarp,
      shared);
  __syncthreads();
  for (int i = threadIdx.x; i < job.rows * kOutputs<kEncoding>; i += kThreads) {
    const int row = i / kOutputs<kEncoding>, output = i % kOutputs<kEncoding>;
    const int32_t sum = shared.sum[row][output];
    if (sum == 0) continue;
    atomicAdd(&skip.sum[((int64_t{scale_row} * job.rows + row) * skip.shape.strips + strip) *
                            kOutputs<kEncoding> +
                        output],
              sum);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.last = CountArrival(&job.arrived[strip]) == skip.shape.spans() - 1;
  }
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  Finish<kEncoding>(job, skip, strip);
}

}  // namespace sparsefuse::cuda::skip

#endif  // SPARSEFUSE_KERNELS_CUDA_SKIP_ZEROS_CUH_
