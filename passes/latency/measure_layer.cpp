#include "passes/latency/measure_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "passes/data/random.h"
#include "passes/latency/machine.h"
#include "passes/lower/linear.h"

namespace sparsefuse {
namespace {

constexpr int64_t kOpset = 21;
constexpr int64_t kBitsBlocks[] = {32, 128};  // of MatMulNBits

// Several copies of the layer in one model, each with its own weights and X: the fixed cost of a
// run weighs less, and weights come from where they do in a whole model. Fewer of what is large or
// long.
int64_t Copies(const LayerShape& shape, int64_t rows) {
  const int64_t weights = shape.inputs * shape.outputs;
  const int64_t by_memory = (int64_t{16} << 20) / weights;  // 64 MiB of floats
  const int64_t by_time = int64_t{1'000'000'000} / (weights * rows);
  return std::clamp<int64_t>(std::min(by_memory, by_time), 1, 4);
}

// Deterministic values in [−1, 1): only timing depends on them.
std::vector<float> Floats(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(RandomAt(1, i) >> 40) * 0x1p-23f - 1;
  }
  return values;
}

// Codes in [−largest, largest].
std::vector<int8_t> Codes(int64_t count, int64_t largest) {
  std::vector<int8_t> codes(static_cast<size_t>(count));
  for (size_t i = 0; i < codes.size(); ++i) {
    const uint64_t range = static_cast<uint64_t>(2 * largest + 1);
    codes[i] = static_cast<int8_t>(static_cast<int64_t>(Below(RandomAt(2, i), range)) - largest);
  }
  return codes;
}

// Keeps the same share of every panel's quads, at random.
void Thin(QuantizedWeight& weight, double density) {
  const int64_t quads = QuadCount(weight.inputs);
  const auto keep = std::max<int64_t>(1, std::llround(density * static_cast<double>(quads)));
  weight.group_ptr = {0};
  uint64_t draw = 0;
  for (int64_t panel = 0; panel < PanelCount(weight.outputs); ++panel) {
    int64_t left = keep;
    for (int64_t quad = 0; quad < quads; ++quad) {  // each with the chance that fills up the rest
      if (Below(RandomAt(3, draw++), static_cast<uint64_t>(quads - quad)) >=
          static_cast<uint64_t>(left)) {
        continue;
      }
      weight.quad.push_back(static_cast<uint16_t>(quad));
      --left;
    }
    while (weight.quad.size() % kGroupQuads) weight.quad.push_back(static_cast<uint16_t>(quads));
    weight.group_ptr.push_back(static_cast<int32_t>(weight.quad.size() / kGroupQuads));
  }
}

QuantizedWeight RandomWeight(const LayerShape& shape, Encoding encoding, double density) {
  QuantizedWeight weight;
  weight.inputs = shape.inputs;
  weight.outputs = shape.outputs;
  weight.encoding = encoding;
  weight.codes = Codes(shape.inputs * shape.outputs, encoding == Encoding::kInt4 ? 7 : 127);
  weight.scale_base = 0.01f;
  weight.scale_codes.resize(static_cast<size_t>(PanelCount(shape.outputs) * kPanelOutputs));
  if (density < 1) Thin(weight, density);
  return weight;
}

Value* EmitFloat(Graph& graph, Builder& builder, Value* x, const LayerShape& shape) {
  Value* weight = graph.AddInitializer(
      graph.FreshName("w"),
      Tensor::Of<float>({shape.inputs, shape.outputs}, Floats(shape.inputs * shape.outputs)));
  Value* y = builder.Op("MatMul", {x, weight});
  if (!shape.bias) return y;
  return builder.Op(
      "Add", {y, builder.Constant(Tensor::Of<float>({shape.outputs}, Floats(shape.outputs)))});
}

Value* EmitNBits(Builder& builder, Value* x, const LayerShape& shape, int64_t block) {
  const int64_t blocks = (shape.inputs + block - 1) / block;
  const std::vector<int8_t> codes = Codes(shape.outputs * blocks * block / 2, 127);
  Value* weight = builder.Constant(Tensor::FromBytes(
      DType::kUint8, {shape.outputs, blocks, block / 2}, std::as_bytes(std::span(codes))));
  const std::vector<float> scales(static_cast<size_t>(shape.outputs * blocks), 0.01f);
  Value* y =
      builder.Op("MatMulNBits",
                 {x, weight, builder.Constant(Tensor::Of<float>({shape.outputs * blocks}, scales))},
                 AttributeList("K", shape.inputs, "N", shape.outputs, "bits", 4, "block_size",
                               block, "accuracy_level", 4),  // activations in int8: the fastest
                 "com.microsoft");
  return builder.Op(
      "Add", {y, builder.Constant(Tensor::Of<float>({shape.outputs}, Floats(shape.outputs)))});
}

// As the passes write it.
Value* EmitQuantized(Model& model, Builder& builder, Value* x, const LayerShape& shape,
                     const LayerForm& form) {
  Value* y = builder.Op("Identity", {x});  // its output is taken over
  Node* placeholder = y->producer();
  const std::vector<float> bias = Floats(shape.outputs);
  if (form.kind == LayerForm::Kind::kStandardInt8) {
    const QuantizedWeight weight = RandomWeight(shape, Encoding::kInt8, 1);
    EmitStandardLinear8(builder, x, nullptr, weight, bias, y);
  } else {
    const QuantizedWeight weight = RandomWeight(shape, form.encoding, form.density);
    EmitLinear(model, builder, x, StoreLayout1(builder, weight), weight, bias, Activation::kNone,
               y);
  }
  model.graph().RemoveNode(placeholder);
  return y;
}

// Inputs x0, x1 …: [1, rows, K], one a copy. `block`: of MatMulNBits.
Model LayerModel(const LayerShape& shape, int64_t rows, const LayerForm& form, int64_t block) {
  Model model;
  model.ir_version = 10;
  model.opset_imports[""] = kOpset;
  if (form.kind == LayerForm::Kind::kMatMulNBits) model.opset_imports["com.microsoft"] = 1;
  Graph& graph = model.graph();
  const ValueType type{
      .dtype = DType::kFloat, .has_shape = true, .dims = {int64_t{1}, rows, shape.inputs}};
  for (int64_t copy = 0; copy < Copies(shape, rows); ++copy) {
    Value* x = graph.AddGraphInput(fmt::format("x{}", copy), type);
    Builder builder(graph);  // one a copy, so that copies share no constants
    switch (form.kind) {
      case LayerForm::Kind::kFloat:
        graph.AddGraphOutput(EmitFloat(graph, builder, x, shape));
        break;
      case LayerForm::Kind::kMatMulNBits:
        graph.AddGraphOutput(EmitNBits(builder, x, shape, block));
        break;
      case LayerForm::Kind::kStandardInt8:
      case LayerForm::Kind::kOperator:
        graph.AddGraphOutput(EmitQuantized(model, builder, x, shape, form));
        break;
    }
  }
  return model;
}

// The sessions that stand for one form: two for MatMulNBits, none where it cannot run.
std::vector<Session> Open(const LayerShape& shape, int64_t rows, const LayerForm& form,
                          const SessionOptions& options) {
  std::vector<Session> sessions;
  switch (form.kind) {
    case LayerForm::Kind::kMatMulNBits:
      for (const int64_t block : kBitsBlocks) {
        try {
          sessions.emplace_back(LayerModel(shape, rows, form, block), options);
        } catch (const UserError&) {
          return {};  // the engine lacks the operator
        }
      }
      return sessions;
    case LayerForm::Kind::kOperator:
      if (options.operator_library.empty() || shape.inputs > kMaxInputs ||
          shape.outputs > kMaxOutputs) {
        return {};
      }
      break;
    case LayerForm::Kind::kFloat:
    case LayerForm::Kind::kStandardInt8:
      break;
  }
  sessions.emplace_back(LayerModel(shape, rows, form, 0), options);
  return sessions;
}

std::vector<double> Measure(const LayerShape& shape, int64_t rows, std::span<const LayerForm> forms,
                            const SessionOptions& options) {
  std::vector<std::vector<Session>> by_form;
  std::vector<const Session*> all;
  for (const LayerForm& form : forms) {
    by_form.push_back(Open(shape, rows, form, options));
    for (const Session& session : by_form.back()) all.push_back(&session);
  }
  Feeds feeds;
  const int64_t copies = Copies(shape, rows);
  const Tensor x = Tensor::Of<float>({1, rows, shape.inputs}, Floats(rows * shape.inputs));
  for (int64_t copy = 0; copy < copies; ++copy) feeds.emplace_back(fmt::format("x{}", copy), x);
  const TimingOptions timing{.warmup = 2, .min_runs = 15, .min_seconds = 0.05, .max_seconds = 2};
  const std::vector<Latency> latencies = TimeInterleaved(all, feeds, timing);

  std::vector<double> milliseconds;
  auto latency = latencies.begin();
  for (const std::vector<Session>& sessions : by_form) {
    double fastest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < sessions.size(); ++i) fastest = std::min(fastest, latency++->min_ms);
    milliseconds.push_back(fastest / static_cast<double>(copies));
  }
  return milliseconds;
}

}  // namespace

MeasureLayer MeasureInEngine(const SessionOptions& options) {
  return [options](const LayerShape& shape, int64_t rows, std::span<const LayerForm> forms) {
    return Measure(shape, rows, forms, options);
  };
}

LatencyTable MachineLatencies(const SessionOptions& options, const std::filesystem::path& folder) {
  return LatencyTable(DescribeMachine(options), folder.empty() ? folder : folder / "latency.json",
                      MeasureInEngine(options));
}

}  // namespace sparsefuse
