// Linear layers as EmitLinear writes them, run by ONNX Runtime with the operator library and
// without it, against the format's definition in double precision. (Opsets, shapes and inputs of
// every kind: tests/oracle/test_operator.py.)

#include "passes/lower/linear.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "passes/engine/engine.h"
#include "tests/kernels/linear_case.h"
#include "tests/support/catch.h"
#include "tests/support/linear_model.h"

namespace sparsefuse {
namespace {

using test::ExactLinear;
using test::LinearLayer;

std::vector<float> Run(const Model& model, const std::vector<float>& x, int64_t inputs,
                       const std::string& library) {
  SessionOptions options;
  options.operator_library = library;
  const Session session(model, options);
  const Dims dims = {static_cast<int64_t>(x.size()) / inputs, inputs};
  return session.Run({{"x", Tensor::Of<float>(dims, x)}})[0].ToFloats();
}

// Bodies decode scales less exactly than kernels, and multiply sparse weights with several scale
// rows a panel as floats: 16 times the kernel's bound covers that here.
void CheckBoth(const Model& model, const LinearLayer& layer, Activation activation, int64_t rows) {
  const std::vector<float> x = test::RandomRows(rows, layer.shape.inputs, 5);
  const test::Exact exact = ExactLinear(layer, x, rows, {}, activation);
  for (const std::string library : {SPARSEFUSE_OPS_LIBRARY, ""}) {
    const std::vector<float> y = Run(model, x, layer.shape.inputs, library);
    const double slack = library.empty() ? 16 : 1;
    REQUIRE(y.size() == exact.y.size());
    for (size_t i = 0; i < y.size(); ++i) {
      INFO((library.empty() ? "body" : "kernel") << ", element " << i);
      REQUIRE(std::fabs(y[i] - exact.y[i]) <= slack * exact.bound[i]);
    }
  }
}

TEST_CASE("every operator: what is emitted means what the layer means") {
  for (const Encoding encoding :
       {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
    for (const bool sparse : {false, true}) {
      for (const int64_t scale_groups : {0, 2}) {
        for (const Activation activation : kActivations) {
          LinearLayer layer({200, 70, scale_groups, encoding, sparse}, 1, scale_groups == 2);
          test::BoundPairs(layer);
          Model model = test::EmptyModel(layer);
          const Node* node = test::AppendLinear(model, layer, activation);
          INFO(node->op() << ", scale groups " << scale_groups);
          REQUIRE(node->op() == OperatorName({encoding, sparse, activation}));
          CheckBoth(model, layer, activation, 3);
        }
      }
    }
  }
}

TEST_CASE("names of operators") {
  CHECK(OperatorName({}) == "QuantizedLinear8");
  CHECK(OperatorName({Encoding::kInt4, true, Activation::kGeluTanh}) ==
        "BlockSparseLinear4GeluTanh");
  CHECK(OperatorName({Encoding::kNested1, false, Activation::kSilu}) ==
        "QuantizedLinearNested1Silu");
  CHECK(OperatorName({Encoding::kNested4, true, Activation::kRelu}) ==
        "BlockSparseLinearNested4Relu");
}

TEST_CASE("one function for each operator, however many nodes it has") {
  LinearLayer layer({64, 32, 0}, 1);
  test::BoundPairs(layer);
  Model model = test::EmptyModel(layer);
  test::AppendLinear(model, layer, Activation::kNone);
  test::AppendLinear(model, layer, Activation::kRelu);
  test::AppendLinear(model, layer, Activation::kNone);
  CHECK(model.functions().size() == 2);
  CHECK(model.FindFunction("sparsefuse", "QuantizedLinear8"));
  CHECK(model.FindFunction("sparsefuse", "QuantizedLinear8Relu"));
  CHECK(model.opset_imports["sparsefuse"] == 1);
  CHECK(model.functions()[0]->opset_imports == std::map<std::string, int64_t>{{"", 21}});
}

TEST_CASE("inputs and attributes of a sparse nested layer, with a gate") {
  LinearLayer layer({200, 70, 2, Encoding::kNested4, true}, 1, true);
  layer.gate = {1, 2, 3, 0};
  Model model = test::EmptyModel(layer);
  const Node* node = test::AppendLinear(model, layer, Activation::kNone);
  REQUIRE(node->inputs().size() == 8);
  const Tensor& packed = *node->constant_input(1);
  CHECK(packed.dtype() == DType::kUint8);
  CHECK(packed.dims() == Dims{2, layer.groups(), 1024});
  REQUIRE(packed.bytes().size() == layer.packed.size());
  CHECK(std::memcmp(packed.bytes().data(), layer.packed.data(), layer.packed.size()) == 0);
  CHECK(node->constant_input(2)->dims() == Dims{layer.scale_rows(), 32});
  CHECK(node->constant_input(3)->ToFloats() == layer.bias);
  CHECK(node->constant_input(4)->ToFloats() == layer.smooth);
  CHECK(node->constant_input(5)->ToFloats() == layer.gate);
  CHECK(node->constant_input(6)->dtype() == DType::kUint16);
  CHECK(node->constant_input(6)->dims() == Dims{16 * layer.groups()});
  CHECK(node->constant_input(7)->dtype() == DType::kInt32);
  CHECK(node->constant_input(7)->dims() == Dims{4});
  CHECK(node->GetInt("K", 0) == 200);
  CHECK(node->GetInt("N", 0) == 70);
  CHECK(node->GetInt("scale_groups", 0) == 2);
  CHECK(node->GetFloat("scale_base", 0) == layer.scale_base);
  CHECK(node->GetInt("layout", 0) == 1);
}

TEST_CASE("without a bias, smoothing or a gate: zeros, ones, never in 4 bits") {
  LinearLayer layer({200, 70, 0, Encoding::kNested4, false}, 1);
  std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
  Model model = test::EmptyModel(layer);
  QuantizedWeight weight = test::WeightOf(layer);
  Builder builder(model.graph());
  Value* y = builder.Op("Identity", {model.graph().FindValue("x")});
  Node* placeholder = y->producer();
  model.graph().AddGraphOutput(y);
  EmitLinear(model, builder, model.graph().FindValue("x"), StoreLayout1(builder, weight), weight,
             {}, Activation::kNone, y);
  model.graph().RemoveNode(placeholder);
  CheckBoth(model, layer, Activation::kNone, 1);  // one row may be read in 4 bits
}

TEST_CASE("panels without quads, and a layer without any") {
  for (const int64_t scale_groups : {0, 1}) {
    for (const bool all : {false, true}) {
      LinearLayer layer({100, 70, scale_groups, Encoding::kInt4, true}, 1);
      test::SetQuads(layer,
                     {{}, all ? std::vector<int64_t>{} : std::vector<int64_t>{0, 7, 24}, {}});
      layer.Pack();
      const int64_t rows = scale_groups == 0 ? 3 : all ? 0 : 1;
      layer.scale_code.resize(static_cast<size_t>(rows) * 32);
      Model model = test::EmptyModel(layer);
      test::AppendLinear(model, layer, Activation::kNone);
      CheckBoth(model, layer, Activation::kNone, 2);
    }
  }
}

TEST_CASE("a weight that contradicts itself is refused") {
  const LinearLayer layer({200, 70, 2, Encoding::kInt8, true}, 1);
  const auto refused = [&](auto change) {
    QuantizedWeight weight = test::WeightOf(layer);
    change(weight);
    Model model = test::EmptyModel(layer);
    Builder builder(model.graph());
    REQUIRE_THROWS_AS(StoreLayout1(builder, weight), InternalError);
  };
  refused([](QuantizedWeight& w) { w.codes.pop_back(); });
  refused([](QuantizedWeight& w) { w.scale_codes.pop_back(); });
  refused([](QuantizedWeight& w) { w.scale_groups = 1; });
  refused([](QuantizedWeight& w) { w.group_ptr.pop_back(); });
  refused([](QuantizedWeight& w) { w.quad.pop_back(); });
  refused([](QuantizedWeight& w) { std::swap(w.quad[0], w.quad[1]); });
  refused([](QuantizedWeight& w) { w.inputs = 0; });
}

// QuantizedLinear8 of a tied weight: the embedding's side reads rows and scales.
TEST_CASE("rows and scales unpacked by standard operators") {
  const LinearLayer layer({100, 70, 0}, 1);
  const QuantizedWeight weight = test::WeightOf(layer);
  Model model = test::EmptyModel(layer);
  Builder builder(model.graph());
  const RowsAndScales unpacked = UnpackLayout1(builder, StoreLayout1(builder, weight), weight);
  model.graph().AddGraphOutput(unpacked.rows);
  model.graph().AddGraphOutput(unpacked.scales);
  const Session session(model, SessionOptions{});
  const std::vector<float> x(100);
  const std::vector<Tensor> outputs = session.Run({{"x", Tensor::Of<float>({1, 100}, x)}});
  CHECK(outputs[0].dims() == Dims{70, 100});
  const std::vector<int64_t> rows = outputs[0].ToInts();
  CHECK(std::equal(rows.begin(), rows.end(), layer.codes.begin(), layer.codes.end()));
  const std::vector<float> scales = outputs[1].ToFloats(), expected = Scales(weight);
  REQUIRE(scales.size() == expected.size());
  for (size_t n = 0; n < scales.size(); ++n) {
    CHECK(std::fabs(scales[n] - expected[n]) <= 4 * 0x1p-24f * expected[n]);
  }
}

}  // namespace
}  // namespace sparsefuse
