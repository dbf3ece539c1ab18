// What the rules of all attention operators share:
//   softmax(softcap(scale · Q Kᵀ) + biases, where a key is seen) V
// with Q [batch, heads, rows, width], K and V [batch, kv heads, keys, width].

#ifndef SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_SCORES_H_
#define SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_SCORES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "passes/cleanup/decompose_rules.h"

namespace sparsefuse {

struct AttentionParts {
  Value* queries;
  Value* keys;
  Value* values;
  float scale;
  float softcap = 0;                // 0: none
  std::vector<Value*> biases = {};  // added to the scores
  // bool, broadcasting to the scores: keys that a row does not see. Null: it sees all.
  Value* unseen = nullptr;
  // Whether a row may see no key at all: its result is zero. Otherwise it must see one.
  bool blind_rows = false;
};

// [batch, heads, rows, width of values]; the node's output `output`, if one is given.
Value* EmitScores(Emitter& emitter, const AttentionParts& parts, std::optional<size_t> output = {});

// [batch, rows, heads · width] ⇄ [batch, heads, rows, width]; the latter as output 0 of the node.
Value* SplitHeads(Emitter& emitter, Value* x, int64_t heads, int64_t width);
void MergeHeads(Emitter& emitter, Value* x, int64_t size);

struct HeadCounts {
  int64_t heads, kv_heads;  // the latter divides the former
};

// Keys or values of fewer heads: each serves as many queries' heads in a row.
Value* RepeatHeads(Emitter& emitter, Value* x, const HeadCounts& counts, int64_t width);

// int64 [count]: start, start + 1, …; both int64 [], a null start is zero.
Value* Positions(Emitter& emitter, Value* count, Value* start = nullptr);
// bool [rows, keys]: keys behind the row's own position.
Value* Later(Emitter& emitter, Value* rows, Value* keys);

// The mask that com.microsoft's Attention and MultiHeadAttention take: added to the scores of
// masked keys is their mask_filter_value.
enum class PaddingForm {
  kNone,       // absent, or the same for all keys
  kKeys,       // [batch, keys], positive where a key counts
  kKeysOrOne,  // the same, or of one column, which is ignored
  kRows,       // [batch, rows, keys], as kKeys
  kLengths,    // [batch]: the first so many keys count
  kRanges,     // [2 · batch]: ends, then starts of what counts
};

struct Padding {
  PaddingForm form = PaddingForm::kNone;
  std::string reason;  // of a form that is not taken apart
};

// Of input `mask`, the batch being the first axis of input 0. All keys are along axis 1 of input
// `keys`; null: some are elsewhere.
Padding FindPadding(const FusedNode& fused, size_t mask, std::optional<size_t> keys);

// What is added to the scores: float [batch, 1, 1 or rows, keys].
Value* EmitPadding(Emitter& emitter, Value* mask, PaddingForm form, Value* key_positions,
                   float filter);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_CLEANUP_DECOMPOSE_SCORES_H_
