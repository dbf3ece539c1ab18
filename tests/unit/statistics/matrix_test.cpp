// Products with constant weights, however they are spelt, against Y = X·W + b by plain loops.

#include "passes/statistics/matrix.h"

#include <fmt/format.h>

#include "onnx_io/text.h"
#include "passes/statistics/gram.h"
#include "tests/support/catch.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using test::Difference;
using test::ParseGraph;
using test::ParseUnnamed;
using test::Producer;

struct Form {
  std::string name;
  std::string signature;  // inputs, outputs and weights; "y" is what the product leads to
  std::string nodes;
  std::string product = "y";  // an output of the node that is seen as a matrix
};

const std::vector<Form> kForms = {
    {"MatMul", "(float[2,3,5] x) => (float[2,3,4] y) <float[5,4] w = ?>", "y = MatMul(x, w)"},
    {"MatMul, Add", "(float[2,3,5] x) => (float[2,3,4] y) <float[5,4] w = ?, float[4] b = ?>",
     "p = MatMul(x, w) y = Add(p, b)", "p"},
    {"Add with the bias first",
     "(float[2,3,5] x) => (float[2,3,4] y) <float[5,4] w = ?, float[4] b = ?>",
     "p = MatMul(x, w) y = Add(b, p)", "p"},
    {"one number as bias", "(float[6,5] x) => (float[6,4] y) <float[5,4] w = ?, float[1] b = ?>",
     "p = MatMul(x, w) y = Add(p, b)", "p"},
    {"transposed weight", "(float[2,3,5] x) => (float[2,3,4] y) <float[4,5] w = ?, float[4] b = ?>",
     "t = Transpose<perm = [1, 0]>(w) p = MatMul(x, t) y = Add(p, b)", "p"},
    {"Gemm", "(float[6,5] x) => (float[6,4] y) <float[5,4] w = ?, float[4] b = ?>",
     "y = Gemm(x, w, b)"},
    {"Gemm without bias", "(float[6,5] x) => (float[6,4] y) <float[4,5] w = ?>",
     "y = Gemm<transB = 1, beta = 3.0>(x, w)"},
    {"Gemm with factors", "(float[6,5] x) => (float[6,4] y) <float[4,5] w = ?, float[1,4] b = ?>",
     "y = Gemm<transB = 1, alpha = 0.5, beta = -2.0>(x, w, b)"},
    {"Gemm of a transposed weight",
     "(float[6,5] x) => (float[6,4] y) <float[5,4] w = ?, float[4] b = ?>",
     "t = Transpose(w) y = Gemm<transB = 1, alpha = 2.0>(x, t, b)"},
    {"Gemm of a transposed input",
     "(float[5,6] x) => (float[6,4] y) <float[5,4] w = ?, float[4] b = ?>",
     "y = Gemm<transA = 1>(x, w, b)"},
    {"Conv", "(float[2,3,6,5] x) => (float[2,4,6,3] y) <float[4,3,3,2] w = ?, float[4] b = ?>",
     "y = Conv<pads = [1,0,1,1], strides = [1,2]>(x, w, b)"},
    {"Conv without bias", "(float[2,3,9] x) => (float[2,4,7] y) <float[4,3,3] w = ?>",
     "y = Conv(x, w)"},
};

Model ModelOf(const Form& form) {
  return ParseUnnamed(fmt::format("{} {{ {} }}", form.signature, form.nodes));
}

MatrixView View(const Model& model, const Form& form) {
  std::string reason;
  const std::optional<MatrixView> view = AsMatrix(*Producer(model, form.product), &reason);
  INFO(reason);
  REQUIRE(view);
  return *view;
}

Feeds FeedsOf(const Model& model) {
  Dims dims;
  for (const auto& dim : model.graph().inputs()[0]->type()->dims) {
    dims.push_back(std::get<int64_t>(dim));
  }
  return {{"x", test::RandomTensor(dims, 11)}};
}

// X as rows; a convolution's by the definition of its window, element by element.
Eigen::MatrixXd InputOf(const Model& model, const MatrixView& view, const Feeds& feeds) {
  if (!view.node->Is("Conv")) {
    return test::RowsOf(feeds[0].second, view.node->GetInt("transA", 0) != 0 ? 0 : -1);
  }
  const Tensor y = test::RunOne(model, feeds, "y");
  const Dims &kernel = view.weight->constant()->dims(), &in = feeds[0].second.dims();
  const std::vector<float> x = feeds[0].second.ToFloats();
  const size_t axes = kernel.size() - 2;
  const std::vector<int64_t> strides = view.node->GetInts("strides", std::vector<int64_t>(axes, 1));
  const std::vector<int64_t> pads = view.node->GetInts("pads", std::vector<int64_t>(2 * axes, 0));
  Eigen::MatrixXd rows = Eigen::MatrixXd::Zero(y.size() / kernel[0], view.inputs);
  for (int64_t t = 0; t < rows.rows(); ++t) {
    for (int64_t i = 0; i < rows.cols(); ++i) {
      int64_t place = t, element = i, at = 0, weight = 1;
      bool inside = true;
      for (size_t axis = axes; axis-- > 0;) {
        const int64_t length = in[2 + axis], out = y.dims()[2 + axis];
        const int64_t p = place % out * strides[axis] + element % kernel[2 + axis] - pads[axis];
        inside = inside && p >= 0 && p < length;
        at += p * weight;
        weight *= length;
        place /= out;
        element /= kernel[2 + axis];
      }
      // What is left is the sample and the channel.
      if (inside) rows(t, i) = x[static_cast<size_t>((place * in[1] + element) * weight + at)];
    }
  }
  return rows;
}

Eigen::MatrixXd OutputOf(const Model& model, const MatrixView& view, const Feeds& feeds) {
  return test::RowsOf(test::RunOne(model, feeds, view.output->name()),
                      view.node->Is("Conv") ? 1 : -1);
}

Eigen::MatrixXd Product(const Eigen::MatrixXd& x, const Eigen::MatrixXd& weight,
                        const Eigen::VectorXd& bias) {
  Eigen::MatrixXd y(x.rows(), weight.cols());
  for (int64_t t = 0; t < y.rows(); ++t) {
    for (int64_t j = 0; j < y.cols(); ++j) {
      y(t, j) = bias[j];
      for (int64_t i = 0; i < x.cols(); ++i) y(t, j) += x(t, i) * weight(i, j);
    }
  }
  return y;
}

TEST_CASE("every spelling of a product is X·W + b") {
  for (const Form& form : kForms) {
    INFO(form.name);
    const Model model = ModelOf(form);
    const MatrixView view = View(model, form);
    const Feeds feeds = FeedsOf(model);
    CHECK(view.output->name() == "y");
    CHECK(view.input->name() == "x");
    CHECK(view.inputs == Weight(view).rows());
    CHECK(view.outputs == 4);
    const Eigen::MatrixXd x = InputOf(model, view, feeds);
    const Eigen::MatrixXd y = OutputOf(model, view, feeds);
    CHECK(Difference(y, Product(x, Weight(view), Bias(view))) < 1e-6);
  }
}

TEST_CASE("a weight that is set is the one that is computed with") {
  for (const Form& form : kForms) {
    INFO(form.name);
    Model model = ModelOf(form);
    const Feeds feeds = FeedsOf(model);
    const MatrixView before = View(model, form);
    const Node* node = before.node;
    const Eigen::MatrixXd x = InputOf(model, before, feeds);
    const Eigen::MatrixXd weight = test::RandomMatrix(before.inputs, 4, 5);
    const Eigen::VectorXd bias = test::RandomMatrix(4, 1, 6);
    SetWeight(model, before, weight, bias);
    Verify(model);
    const std::optional<MatrixView> after = AsMatrix(*node);
    REQUIRE(after);
    CHECK(after->output->name() == "y");
    CHECK(after->output->is_graph_output());
    CHECK(Difference(Weight(*after), weight) < 1e-7);
    CHECK(Difference(Bias(*after), bias) < 1e-7);
    CHECK(Difference(OutputOf(model, *after, feeds), Product(x, weight, bias)) < 1e-6);
  }
}

TEST_CASE("what is read is written back to the bit") {
  for (const Form& form : kForms) {
    INFO(form.name);
    Model model = ModelOf(form);
    const Feeds feeds = FeedsOf(model);
    const Tensor before = test::RunOne(model, feeds, "y");
    const size_t nodes = model.graph().node_count();
    const MatrixView view = View(model, form);
    const Eigen::MatrixXd weight = Weight(view);
    const Eigen::VectorXd bias = Bias(view);
    SetWeight(model, view, weight, bias);
    CHECK(model.graph().node_count() == nodes);  // no bias is added for zeros
    const std::optional<MatrixView> after = AsMatrix(*Producer(model, form.product));
    REQUIRE(after);
    CHECK(Weight(*after) == weight);
    CHECK(Bias(*after) == bias);
  }
}

TEST_CASE("others that read the same weight keep theirs") {
  for (const char* nodes : {
           "y = MatMul(x, w) z = MatMul(x, w)",
           "t = Transpose(v) y = MatMul(x, t) z = MatMul(x, t)",
           "t = Transpose(v) s = Transpose(v) y = MatMul(x, t) z = MatMul(x, s)",
           "t = Transpose(w) y = Gemm<transB = 1>(x, t) z = Gemm<transB = 1>(x, t)",
           "y = Gemm(x, w, b) z = Gemm(x, w, b)",
           "y = MatMul(x, w) z = Gemm<transB = 1>(x, v)",
       }) {
    INFO(nodes);
    Model model = ParseGraph(fmt::format(
        R"(<ir_version: 8, opset_import: ["" : 17]>
           g (float[6,5] x) => (float[6,4] y, float[6,4] z)
           <float[5,4] w = ?, float[4,5] v = ?, float[4] b = ?> {{ {} }})",
        nodes));
    const Feeds feeds = FeedsOf(model);
    const Tensor z = test::RunOne(model, feeds, "z");
    const Eigen::MatrixXd weight = test::RandomMatrix(5, 4, 5);
    const Eigen::VectorXd bias = test::RandomMatrix(4, 1, 6);
    SetWeight(model, *AsMatrix(*Producer(model, "y")), weight, bias);
    Verify(model);
    CHECK(test::RowsOf(test::RunOne(model, feeds, "z"), -1) == test::RowsOf(z, -1));
    CHECK(Difference(test::RowsOf(test::RunOne(model, feeds, "y"), -1),
                     Product(test::RowsOf(feeds[0].second, -1), weight, bias)) < 1e-6);
  }
}

TEST_CASE("a bias that is added leaves the output's readers and order as they were") {
  Model model = ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[6,5] x) => (float[6,4] y, float[6,4] z) <float[5,4] w = ?>
      { y = MatMul(x, w) z = Relu(y) })");
  const Eigen::VectorXd bias = test::RandomMatrix(4, 1, 6);
  const MatrixView view = *AsMatrix(*Producer(model, "y"));
  SetWeight(model, view, Weight(view), bias);
  Verify(model);
  std::vector<std::string> ops;
  for (const Node* node : model.graph().Nodes()) ops.push_back(node->op());
  CHECK(ops == std::vector<std::string>{"MatMul", "Add", "Relu"});
  CHECK(Producer(model, "y")->Is("Add"));
  CHECK(Producer(model, "z")->input(0)->name() == "y");
}

TEST_CASE("weights of other floating-point types keep their type") {
  for (const DType dtype : {DType::kFloat16, DType::kBfloat16, DType::kDouble}) {
    INFO(DTypeName(dtype));
    Model model = ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
        g (float[6,5] x) => (float[6,4] y) <float[5,4] w = ?> { y = MatMul(x, w) })");
    const Eigen::MatrixXd eighths = (test::RandomMatrix(4, 5, 3) * 64).array().round() / 8;
    model.graph().FindValue("w")->set_initializer(
        ToTensor(dtype, {5, 4}, {eighths.data(), 20}));  // exact in all of them
    const MatrixView view = *AsMatrix(*Producer(model, "y"));
    CHECK(Weight(view) == eighths.transpose());
    SetWeight(model, view, 2 * Weight(view), Eigen::VectorXd::Ones(4));
    const MatrixView after = *AsMatrix(*view.node);
    CHECK(after.weight->constant()->dtype() == dtype);
    CHECK(after.bias->constant()->dtype() == dtype);
    CHECK(Weight(after) == 2 * eighths.transpose());
    CHECK(Bias(after) == Eigen::VectorXd::Ones(4));
  }
}

TEST_CASE("what is no matrix, and why") {
  const Model model = ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[1,2,8,8] x, float[5,4] v, float[4,4] u, float[4] r) => (float[1,4,8,8] y)
      <float[4,1,3,3] d = ?, float[2,5,4] w = ?, float[4,5] l = ?, float[5,4] m = ?,
       float[4,2,1,1] k = ?, int64[5,4] i = {1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1}> {
        y = Conv<group = 2, pads = [1,1,1,1]>(x, d)
        a = MatMul(u, v)
        b = MatMul(u, w)
        c = MatMul(l, v)
        e = Relu(u)
        f = Gemm(u, m, u)
        h = Conv(x, k, r)
        j = MatMul(u, i)
      })");
  const auto why = [&](const char* value) {
    std::string reason;
    CHECK(!AsMatrix(*Producer(model, value), &reason));
    CHECK(!AsMatrix(*Producer(model, value)));
    return reason;
  };
  CHECK(why("y") == "2 groups");
  CHECK(why("a") == "weight is not constant");
  CHECK(why("b") == "weight has 3 axes");
  CHECK(why("c") == "the constant is the left operand");
  CHECK(why("e") == "no matrix product");
  CHECK(why("f") == "bias is not constant");
  CHECK(why("h") == "bias is not constant");
  CHECK(why("j") == "weight is int64, not float");
}

}  // namespace
}  // namespace sparsefuse
