#include "onnx_io/wire.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "onnx_io/error.h"

namespace sparsefuse {
namespace {

// Messages of onnx.proto that hold other messages; kLeaf for those that do not.
enum class Kind {
  kModel,
  kGraph,
  kNode,
  kAttribute,
  kTensor,
  kSparseTensor,
  kValueInfo,
  kType,
  kTensorType,   // Tensor and SparseTensor
  kElementType,  // Sequence and Optional
  kMapType,
  kShape,
  kFunction,
  kTraining,
  kAnnotation,
  kNodeDevice,
  kSharding,
  kShardedDim,
  kLeaf,
};

enum class Count { kOnce, kMany };

struct Field {
  Kind in;
  uint64_t number;
  Kind kind;
  Count count;
  std::string_view name;
};

// Every field of onnx.proto (ONNX 1.23) whose type is a message.
constexpr std::array kFields = {
    Field{Kind::kModel, 7, Kind::kGraph, Count::kOnce, "graph"},
    Field{Kind::kModel, 8, Kind::kLeaf, Count::kMany, "opset_import"},
    Field{Kind::kModel, 14, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kModel, 20, Kind::kTraining, Count::kMany, "training_info"},
    Field{Kind::kModel, 25, Kind::kFunction, Count::kMany, "functions"},
    Field{Kind::kModel, 26, Kind::kLeaf, Count::kMany, "configuration"},
    Field{Kind::kGraph, 1, Kind::kNode, Count::kMany, "node"},
    Field{Kind::kGraph, 5, Kind::kTensor, Count::kMany, "initializer"},
    Field{Kind::kGraph, 11, Kind::kValueInfo, Count::kMany, "input"},
    Field{Kind::kGraph, 12, Kind::kValueInfo, Count::kMany, "output"},
    Field{Kind::kGraph, 13, Kind::kValueInfo, Count::kMany, "value_info"},
    Field{Kind::kGraph, 14, Kind::kAnnotation, Count::kMany, "quantization_annotation"},
    Field{Kind::kGraph, 15, Kind::kSparseTensor, Count::kMany, "sparse_initializer"},
    Field{Kind::kGraph, 16, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kNode, 5, Kind::kAttribute, Count::kMany, "attribute"},
    Field{Kind::kNode, 9, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kNode, 10, Kind::kNodeDevice, Count::kMany, "device_configurations"},
    Field{Kind::kAttribute, 5, Kind::kTensor, Count::kOnce, "t"},
    Field{Kind::kAttribute, 6, Kind::kGraph, Count::kOnce, "g"},
    Field{Kind::kAttribute, 10, Kind::kTensor, Count::kMany, "tensors"},
    Field{Kind::kAttribute, 11, Kind::kGraph, Count::kMany, "graphs"},
    Field{Kind::kAttribute, 14, Kind::kType, Count::kOnce, "tp"},
    Field{Kind::kAttribute, 15, Kind::kType, Count::kMany, "type_protos"},
    Field{Kind::kAttribute, 22, Kind::kSparseTensor, Count::kOnce, "sparse_tensor"},
    Field{Kind::kAttribute, 23, Kind::kSparseTensor, Count::kMany, "sparse_tensors"},
    Field{Kind::kTensor, 3, Kind::kLeaf, Count::kOnce, "segment"},
    Field{Kind::kTensor, 13, Kind::kLeaf, Count::kMany, "external_data"},
    Field{Kind::kTensor, 16, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kSparseTensor, 1, Kind::kTensor, Count::kOnce, "values"},
    Field{Kind::kSparseTensor, 2, Kind::kTensor, Count::kOnce, "indices"},
    Field{Kind::kValueInfo, 2, Kind::kType, Count::kOnce, "type"},
    Field{Kind::kValueInfo, 4, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kType, 1, Kind::kTensorType, Count::kOnce, "tensor_type"},
    Field{Kind::kType, 4, Kind::kElementType, Count::kOnce, "sequence_type"},
    Field{Kind::kType, 5, Kind::kMapType, Count::kOnce, "map_type"},
    Field{Kind::kType, 7, Kind::kLeaf, Count::kOnce, "opaque_type"},
    Field{Kind::kType, 8, Kind::kTensorType, Count::kOnce, "sparse_tensor_type"},
    Field{Kind::kType, 9, Kind::kElementType, Count::kOnce, "optional_type"},
    Field{Kind::kTensorType, 2, Kind::kShape, Count::kOnce, "shape"},
    Field{Kind::kElementType, 1, Kind::kType, Count::kOnce, "elem_type"},
    Field{Kind::kMapType, 2, Kind::kType, Count::kOnce, "value_type"},
    Field{Kind::kShape, 1, Kind::kLeaf, Count::kMany, "dim"},
    Field{Kind::kFunction, 7, Kind::kNode, Count::kMany, "node"},
    Field{Kind::kFunction, 9, Kind::kLeaf, Count::kMany, "opset_import"},
    Field{Kind::kFunction, 11, Kind::kAttribute, Count::kMany, "attribute_proto"},
    Field{Kind::kFunction, 12, Kind::kValueInfo, Count::kMany, "value_info"},
    Field{Kind::kFunction, 14, Kind::kLeaf, Count::kMany, "metadata_props"},
    Field{Kind::kTraining, 1, Kind::kGraph, Count::kOnce, "initialization"},
    Field{Kind::kTraining, 2, Kind::kGraph, Count::kOnce, "algorithm"},
    Field{Kind::kTraining, 3, Kind::kLeaf, Count::kMany, "initialization_binding"},
    Field{Kind::kTraining, 4, Kind::kLeaf, Count::kMany, "update_binding"},
    Field{Kind::kAnnotation, 2, Kind::kLeaf, Count::kMany, "quant_parameter_tensor_names"},
    Field{Kind::kNodeDevice, 2, Kind::kSharding, Count::kMany, "sharding_spec"},
    Field{Kind::kSharding, 3, Kind::kLeaf, Count::kMany, "index_to_device_group_map"},
    Field{Kind::kSharding, 4, Kind::kShardedDim, Count::kMany, "sharded_dim"},
    Field{Kind::kShardedDim, 2, Kind::kLeaf, Count::kMany, "simple_sharding"},
};

const Field* FindField(Kind in, uint64_t number) {
  const auto found = std::find_if(kFields.begin(), kFields.end(), [&](const Field& field) {
    return field.in == in && field.number == number;
  });
  return found == kFields.end() ? nullptr : &*found;
}

// A message being read.
struct Level {
  Kind kind;
  size_t end;     // first byte after it
  uint64_t seen;  // bit n: the singular message field n (< 64) was there
  std::string_view name;
};

class Scanner {
 public:
  Scanner(std::span<const std::byte> bytes, const WireLimits& limits)
      : bytes_(bytes), limits_(limits) {
    levels_.push_back({Kind::kModel, bytes.size(), 0, "model"});
  }

  void Run() {
    while (!levels_.empty()) {
      if (at_ == levels_.back().end) {
        levels_.pop_back();
      } else {
        ReadField();
      }
    }
  }

 private:
  [[noreturn]] void Broken(std::string_view what, std::string_view hint = {}) const {
    std::string path;
    for (const Level& level : levels_) {
      if (!path.empty()) path += '.';
      path += level.name;
    }
    throw UserError(ErrorCode::kModel,
                    fmt::format("is damaged: {} at byte {}, in {}", what, at_, path),
                    std::string(hint));
  }

  uint64_t ReadVarint() {
    uint64_t value = 0;
    const size_t end = levels_.back().end;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == end) Broken("a number is cut off", Truncated(end));
      const auto byte = static_cast<uint64_t>(bytes_[at_++]);
      if (shift < 64) value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    Broken("a number has more than ten bytes");
  }

  std::string_view Truncated(uint64_t needed_end) const {
    return needed_end >= bytes_.size() ? "the file looks truncated" : "";
  }

  void Skip(uint64_t length) {
    const size_t left = levels_.back().end - at_;
    if (length > left) {
      const uint64_t needed_end = length > UINT64_MAX - at_ ? UINT64_MAX : at_ + length;
      Broken(fmt::format("a field of {} bytes has {}", length, left), Truncated(needed_end));
    }
    at_ += static_cast<size_t>(length);
  }

  void ReadField() {
    const uint64_t tag = ReadVarint();
    const uint64_t number = tag >> 3;
    if (number == 0 || number > (1u << 29) - 1) Broken("an impossible field number");
    switch (tag & 7) {
      case 0:
        ReadVarint();
        return;
      case 1:
        Skip(8);
        return;
      case 5:
        Skip(4);
        return;
      case 2:
        break;
      case 3:
      case 4:
        Broken("a protobuf group, which ONNX does not have");
      default:
        Broken("an impossible wire type");
    }
    const uint64_t length = ReadVarint();
    const size_t start = at_;
    Skip(length);
    const Field* field = FindField(levels_.back().kind, number);
    if (!field) return;
    CountMessage(*field);
    if (field->kind == Kind::kLeaf) return;
    levels_.push_back({field->kind, at_, 0, field->name});
    at_ = start;
    if (static_cast<int>(levels_.size()) > limits_.depth) {
      throw UserError(ErrorCode::kLimit,
                      fmt::format("messages are nested deeper than {}", limits_.depth));
    }
  }

  void CountMessage(const Field& field) {
    if (++messages_ > limits_.messages) {
      throw UserError(ErrorCode::kLimit, fmt::format("has more than {} parts", limits_.messages));
    }
    if (field.count == Count::kMany) return;
    Level& level = levels_.back();
    if (level.seen >> field.number & 1) {
      Broken(fmt::format("\"{}\" appears twice", field.name));
    }
    level.seen |= 1ull << field.number;
  }

  std::span<const std::byte> bytes_;
  WireLimits limits_;
  std::vector<Level> levels_;
  size_t at_ = 0;
  int64_t messages_ = 0;
};

}  // namespace

void CheckWire(std::span<const std::byte> model, const WireLimits& limits) {
  Scanner(model, limits).Run();
}

}  // namespace sparsefuse
