// Statistics of rows against plain loops in double over what a plain session returns.

#include "passes/statistics/gram.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>

#include "onnx_io/reader.h"
#include "passes/framework/context.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/support.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

using test::Difference;
using test::Fetch;
using test::ParseUnnamed;
using test::Producer;
using test::Stack;

// fp32 products of batches, summed in fp64.
constexpr double kTolerance = 2e-6;

Batches RandomBatches(const Dims& dims, int count, double low = -1, double high = 1) {
  Batches batches;
  for (int i = 0; i < count; ++i) {
    Dims own = dims;
    if (i + 1 == count) own[0] = 1;  // the last batch is smaller
    batches.push_back({{"x", test::RandomTensor(own, static_cast<uint64_t>(i) + 1, low, high)}});
  }
  return batches;
}

void CheckMoments(const RowStatistics& found, const Eigen::MatrixXd& rows) {
  const test::NaiveMoments expected = test::MomentsOf(rows);
  CHECK(found.count == static_cast<double>(rows.rows()));
  CHECK(Difference(found.mean, expected.mean) < kTolerance);
  CHECK(Difference(found.squares, expected.squares) < kTolerance);
  CHECK(Difference(found.gram, expected.gram) < kTolerance);
  CHECK(found.gram == found.gram.transpose());
}

TEST_CASE("inputs and outputs of linear layers, over batches of different size") {
  const Model model = ParseUnnamed(R"((float[n,3,5] x) => (float[n,3,2] y)
      <float[5,4] v = ?, float[4] b = ?, float[4,2] w = ?>
      { p = MatMul(x, v) q = Add(p, b) h = Relu(q) y = MatMul(h, w) })");
  const Batches batches = RandomBatches({4, 3, 5}, 3);
  const MatrixView first = *AsMatrix(*Producer(model, "p")),
                   second = *AsMatrix(*Producer(model, "y"));
  const RowRequest requests[] = {{InputRows(first)},
                                 {OutputRows(first)},
                                 {InputRows(second), false},
                                 {OutputRows(second)},
                                 {OutputRows(first, "h")}};
  const auto found = CollectRows(model, requests, batches, {}, {});
  REQUIRE(found.size() == 5);
  CheckMoments(found[0], Fetch(model, batches, "x", -1));
  CheckMoments(found[1], Fetch(model, batches, "q", -1));
  CheckMoments(found[3], Fetch(model, batches, "y", -1));
  CheckMoments(found[4], Fetch(model, batches, "h", -1));
  CHECK(found[2].gram.size() == 0);
  CHECK(found[2].mean == found[4].mean);
  CHECK(found[2].squares == found[4].squares);
}

TEST_CASE("a Gemm's transposed input") {
  const Model model = ParseUnnamed(R"((float[5,6] x) => (float[6,4] y) <float[5,4] w = ?>
      { y = Gemm<transA = 1>(x, w) })");
  const Batches batches = {{{"x", test::RandomTensor({5, 6}, 1)}},
                           {{"x", test::RandomTensor({5, 6}, 2)}}};
  const RowRequest requests[] = {{InputRows(*AsMatrix(*Producer(model, "y")))}};
  CheckMoments(CollectRows(model, requests, batches, {}, {})[0], Fetch(model, batches, "x", 0));
}

TEST_CASE("a large mean costs no digits") {
  const Model model = ParseUnnamed("(float[n,3] x) => (float[n,3] y) { y = Relu(x) }");
  const Batches batches = RandomBatches({50, 3}, 4, 999.5, 1000.5);
  const RowRequest requests[] = {{{"x"}}};
  const RowStatistics found = CollectRows(model, requests, batches, {}, {})[0];
  const Eigen::MatrixXd rows = Fetch(model, batches, "x", -1);
  CHECK(Difference(found.gram, test::MomentsOf(rows).gram) < kTolerance);
}

// What the window of a convolution sees by definition, for attributes that need no inference.
struct WindowCase {
  std::string attributes;
  std::vector<int64_t> strides, begins, ends, dilations;  // height, width
};

Eigen::MatrixXd NaiveWindow(const Tensor& x, const WindowCase& window, int64_t kh, int64_t kw) {
  const Dims& d = x.dims();
  const std::vector<float> values = x.ToFloats();
  const int64_t kernel[] = {kh, kw};
  int64_t out[2];
  for (size_t i = 0; i < 2; ++i) {
    out[i] = (d[2 + i] + window.begins[i] + window.ends[i] -
              (window.dilations[i] * (kernel[i] - 1) + 1)) /
                 window.strides[i] +
             1;
  }
  Eigen::MatrixXd rows = Eigen::MatrixXd::Zero(d[0] * out[0] * out[1], d[1] * kh * kw);
  for (int64_t n = 0; n < d[0]; ++n) {
    for (int64_t oy = 0; oy < out[0]; ++oy) {
      for (int64_t ox = 0; ox < out[1]; ++ox) {
        for (int64_t c = 0; c < d[1]; ++c) {
          for (int64_t ky = 0; ky < kh; ++ky) {
            for (int64_t kx = 0; kx < kw; ++kx) {
              const int64_t y =
                  oy * window.strides[0] + ky * window.dilations[0] - window.begins[0];
              const int64_t z =
                  ox * window.strides[1] + kx * window.dilations[1] - window.begins[1];
              if (y < 0 || y >= d[2] || z < 0 || z >= d[3]) continue;
              rows((n * out[0] + oy) * out[1] + ox, (c * kh + ky) * kw + kx) =
                  values[static_cast<size_t>(((n * d[1] + c) * d[2] + y) * d[3] + z)];
            }
          }
        }
      }
    }
  }
  return rows;
}

TEST_CASE("a convolution's input is what its window sees") {
  const std::vector<WindowCase> cases = {
      {"", {1, 1}, {0, 0}, {0, 0}, {1, 1}},
      {"pads = [1, 0, 2, 1], strides = [2, 1]", {2, 1}, {1, 0}, {2, 1}, {1, 1}},
      {"dilations = [2, 3], pads = [1, 1, 1, 1]", {1, 1}, {1, 1}, {1, 1}, {2, 3}},
      // 7×8 in, stride 2: 4×4 out, so 2·3 + 3 − 7 = 2 and 2·3 + 2 − 8 = 0 rows are added.
      {"auto_pad = \"SAME_UPPER\", strides = [2, 2]", {2, 2}, {1, 0}, {1, 0}, {1, 1}},
      // Stride 1: 2 and 1 are added, the odd one at the end or at the beginning.
      {"auto_pad = \"SAME_UPPER\"", {1, 1}, {1, 0}, {1, 1}, {1, 1}},
      {"auto_pad = \"SAME_LOWER\"", {1, 1}, {1, 1}, {1, 0}, {1, 1}},
      {"auto_pad = \"VALID\", kernel_shape = [3, 2], group = 1", {1, 1}, {0, 0}, {0, 0}, {1, 1}},
  };
  for (const WindowCase& window : cases) {
    INFO(window.attributes);
    const Model model = ParseUnnamed(fmt::format(
        "(float[n,3,7,8] x) => (float[n,4,h,w] y) <float[4,3,3,2] k = ?> {{ y = Conv{}(x, k) }}",
        window.attributes.empty() ? "" : "<" + window.attributes + ">"));
    const Batches batches = RandomBatches({2, 3, 7, 8}, 2);
    const MatrixView view = *AsMatrix(*Producer(model, "y"));
    CHECK(view.inputs == 18);
    CHECK(view.kernel == 6);
    const RowRequest requests[] = {{InputRows(view)}, {OutputRows(view)}};
    const auto found = CollectRows(model, requests, batches, {}, {});
    std::vector<Eigen::MatrixXd> parts;
    for (const Feeds& feeds : batches) {
      parts.push_back(NaiveWindow(feeds[0].second, window, 3, 2));
    }
    const Eigen::MatrixXd x = Stack(parts), y = Fetch(model, batches, "y", 1);
    CheckMoments(found[0], x);
    CheckMoments(found[1], y);
    CHECK(Difference(x * Weight(view), y) < kTolerance);  // the rows' orders agree, too
  }
}

// Attention with a mask; its scores' columns that are padding get no weight.
Model Attention() {
  return ParseUnnamed(R"((float[b,s,4] x, int64[b,s] mask) => (float[b,3] y)
      <float[4,4] wq = ?, float[4,5] wv = ?, float[5,3] wo = ?, float one = {1.0},
       float low = {-10000.0}, int64[1] first = {1}, int64 zero = {0}> {
        q = MatMul(x, wq)
        t = Transpose<perm = [0, 2, 1]>(x)
        scores = MatMul(q, t)
        u = Unsqueeze(mask, first) c = Cast<to = 1>(u) d = Sub(one, c) f = Mul(d, low)
        masked = Add(scores, f)
        p = Softmax(masked)
        v = MatMul(x, wv)
        o = MatMul(p, v)
        pooled = Gather<axis = 1>(o, zero)
        y = MatMul(pooled, wo)
      })");
}

TEST_CASE("rows of padding are left out, pooled rows are all kept") {
  const Model model = Attention();
  const std::vector<int64_t> lengths = {3, 5, 1, 4};
  std::vector<int64_t> mask;
  std::vector<bool> keep;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < 5; ++t) {
      mask.push_back(t < length);
      keep.push_back(t < length);
    }
  }
  const Tensor x = test::RandomTensor({4, 5, 4}, 1);
  const Batches batches = {{{"x", x}, {"mask", Tensor::Of<int64_t>({4, 5}, mask)}}};
  const std::optional<std::string> found_mask = FindPaddingMask(model, batches);
  REQUIRE(found_mask == "mask");
  const RowRequest requests[] = {{InputRows(*AsMatrix(*Producer(model, "q")))},
                                 {OutputRows(*AsMatrix(*Producer(model, "v")))},
                                 {InputRows(*AsMatrix(*Producer(model, "y")))}};
  const auto found = CollectRows(model, requests, batches, found_mask, {});
  CheckMoments(found[0], test::Select(test::RowsOf(x, -1), keep));
  CHECK(found[0].count == 13);
  CheckMoments(found[1], test::Select(Fetch(model, batches, "v", -1), keep));
  CheckMoments(found[2], Fetch(model, batches, "pooled", -1));
  CHECK(found[2].count == 4);
}

TEST_CASE("a pair of models: the student's Gram and the cross moments") {
  const Model teacher = ParseUnnamed(R"((float[n,3,5] x) => (float[n,3,4] h) <float[5,4] w = ?>
      { p = MatMul(x, w) h = Relu(p) })");
  // Other weights, and narrower.
  const Model student = ParseUnnamed(R"((float[n,3,5] x) => (float[n,3,2] h)
      <float[5,3] unused = ?, float[5,2] w = ?> { p = MatMul(x, w) h = Tanh(p) })");
  const Batches batches = RandomBatches({4, 3, 5}, 3);
  Batches other = RandomBatches({4, 3, 5}, 3, 0, 2);  // the student's own activations
  const RowPair pairs[] = {{{"h"}, {"h"}}, {{"x"}, {"h"}}};
  const auto found = CollectPairs(teacher, student, pairs, batches, other, {}, {});
  const Eigen::MatrixXd x_hat = Fetch(student, other, "h", -1);
  const char* const tensors[] = {"h", "x"};
  for (size_t i = 0; i < 2; ++i) {
    const Eigen::MatrixXd x = Fetch(teacher, batches, tensors[i], -1);
    CHECK(found[i].count == 27);
    CHECK(Difference(found[i].teacher_mean, test::MomentsOf(x).mean) < kTolerance);
    CHECK(Difference(found[i].student_mean, test::MomentsOf(x_hat).mean) < kTolerance);
    CHECK(Difference(found[i].student_gram, test::MomentsOf(x_hat).gram) < kTolerance);
    CHECK(Difference(found[i].cross, test::CrossOf(x_hat, x)) < kTolerance);
  }
}

TEST_CASE("the least-squares fit from these moments is the best there is") {
  // W' = Ĥ⁻¹·C·W, b' = b + μᵀW − μ̂ᵀW': what the student's repair will compute. At the optimum the
  // residual is orthogonal to the student's inputs and sums to 0.
  const Model model = ParseUnnamed("(float[n,4] x) => (float[n,4] y) { y = Tanh(x) }");
  const Batches batches = RandomBatches({40, 4}, 3, -1, 3);
  const RowPair pairs[] = {{{"x"}, {"y"}}};
  const PairStatistics found = CollectPairs(model, model, pairs, batches, batches, {}, {})[0];
  const Eigen::MatrixXd weight = test::RandomMatrix(4, 2, 9);
  const Eigen::MatrixXd fit = found.student_gram.ldlt().solve(found.cross * weight);
  const Eigen::MatrixXd x = Fetch(model, batches, "x", -1), y = Fetch(model, batches, "y", -1);
  Eigen::MatrixXd residual = x * weight - y * fit;
  const Eigen::RowVectorXd shift =
      found.teacher_mean.transpose() * weight - found.student_mean.transpose() * fit;
  residual.rowwise() -= shift;
  CHECK((y.transpose() * residual).cwiseAbs().maxCoeff() < 1e-3);
  CHECK(residual.colwise().sum().cwiseAbs().maxCoeff() < 1e-4);
  CHECK(residual.norm() > 1);
}

TEST_CASE("one thread and several give the same bytes") {
  // ONNX Runtime adds up the 512 products of these in other portions when it gives each thread
  // less than 64 of the 128 columns.
  const Model model = ParseUnnamed(R"((float[1,128,512] x) => (float[1,16,128] y)
      <int64[1] begin = {0}, int64[1] end = {16}, int64[1] axis = {1}> {
        a = Slice(x, begin, end, axis) t = Transpose<perm = [0, 2, 1]>(x)
        y = MatMul(a, t) })");
  const Batches batches = RandomBatches({1, 128, 512}, 5);
  const RowRequest requests[] = {{{"x"}}, {{"y"}}};
  const RowPair pairs[] = {{{"a"}, {"y"}}};
  Context one, three;
  three.threads = 3;
  const auto a = CollectRows(model, requests, batches, {}, one);
  const auto b = CollectRows(model, requests, batches, {}, three);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(a[i].gram == b[i].gram);
    CHECK(a[i].mean == b[i].mean);
    CHECK(a[i].squares == b[i].squares);
  }
  const auto c = CollectPairs(model, model, pairs, batches, batches, {}, one);
  const auto d = CollectPairs(model, model, pairs, batches, batches, {}, three);
  CHECK(c[0].cross == d[0].cross);
  CHECK(c[0].student_gram == d[0].student_gram);
}

TEST_CASE("a model in half precision") {
  Model model = ParseUnnamed(R"((float16[n,2,5,5] x) => (float16[n,3,4,4] y) <float[3,2,2,2] k = ?>
      { y = Conv(x, k) })");
  Value* k = model.graph().FindValue("k");
  const std::vector<double> weight(24, 0.25);
  k->set_initializer(ToTensor(DType::kFloat16, {3, 2, 2, 2}, weight));
  std::vector<double> values(100);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i % 17) / 8 - 1;
  const Tensor x = ToTensor(DType::kFloat16, {2, 2, 5, 5}, values);
  const MatrixView view = *AsMatrix(*Producer(model, "y"));
  const RowRequest requests[] = {{InputRows(view)}, {OutputRows(view)}};
  const Batches batches = {{{"x", x}}};
  const auto found = CollectRows(model, requests, batches, {}, {});
  CheckMoments(found[0], NaiveWindow(x, {"", {1, 1}, {0, 0}, {0, 0}, {1, 1}}, 2, 2));
  CheckMoments(found[1], Fetch(model, batches, "y", 1));
}

TEST_CASE("activations that are not finite are an error that names them") {
  const Model model = ParseUnnamed("(float[n,2] x) => (float[n,2] y) { y = Log(x) }");
  const Batches batches = {{{"x", Tensor::Of<float>({1, 2}, {1, -1})}}};
  const RowRequest requests[] = {{{"y"}}};
  try {
    CollectRows(model, requests, batches, {}, {});
    FAIL("no error");
  } catch (const UserError& error) {
    CHECK(error.code == ErrorCode::kEngine);
    CHECK(error.where == "tensor \"y\"");
  }
}

TEST_CASE("the batch is as large as its rows allow") {
  // 64·64 places of 16·9 floats: 2.25 MiB a sample. With a kernel of 11 by 11 30.25 MiB, two
  // samples; with 64 channels 121 MiB. A linear layer on 1 row is never a reason.
  struct Case {
    int channels, kernel;
    int64_t batch;
  };
  for (const auto& [channels, kernel, batch] :
       {Case{16, 3, 16}, Case{16, 11, 2}, Case{64, 11, 1}}) {
    INFO(channels << ' ' << kernel);
    const Model model = ParseUnnamed(fmt::format(
        R"((float[n,{0},64,64] x) => (float[n,5] y) <float[2,{0},{1},{1}] k = ?, float[2,5] w = ?>
           {{ c = Conv<auto_pad = "SAME_UPPER">(x, k) p = GlobalAveragePool(c) f = Flatten(p)
              y = MatMul(f, w) }})",
        channels, kernel));
    const test::Calibration calibration(model,
                                        {{"x", test::RandomTensor({3, channels, 64, 64}, 1)}});
    const MatrixView views[] = {*AsMatrix(*Producer(model, "c")), *AsMatrix(*Producer(model, "y"))};
    CHECK(ChooseBatch(model, views, calibration.context) == batch);
    CHECK(ChooseBatch(model, {views + 1, 1}, calibration.context) == 16);
  }
}

TEST_CASE("the assets: whose rows are padded, and how many count") {
  const auto assets = test::Assets();
  if (!assets) return;
  for (const char* name : {"encoder-sst2", "stories260k", "resnet8-cifar10"}) {
    INFO(name);
    const Model model = ReadModel(*assets / name / "model.onnx");
    const Dataset data = Dataset::Load(*assets / name / "calibration.npz", model);
    std::vector<int64_t> samples;
    for (int64_t i = 0; i < 40; ++i) samples.push_back(i);
    const Batches batches = MakeBatches(data, samples, 16);
    const std::optional<std::string> mask = FindPaddingMask(model, batches);
    CHECK(mask.has_value() == (std::string(name) == "encoder-sst2"));
    std::vector<RowRequest> requests;
    for (const Node* node : model.graph().TopologicalOrder()) {
      if (const auto view = AsMatrix(*node)) requests.push_back({InputRows(*view), false});
    }
    CHECK(requests.size() >= 9);
    const auto found = CollectRows(model, requests, batches, mask, {});
    if (!mask) continue;
    double tokens = 0;
    for (const Feeds& feeds : batches) {
      for (const auto& [input, tensor] : feeds) {
        for (const int64_t value : tensor.ToInts()) tokens += input == *mask ? value : 0;
      }
    }
    // 4 layers of 6 matrices, then pooler and classifier.
    REQUIRE(found.size() == 26);
    for (size_t i = 0; i < 24; ++i) CHECK(found[i].count == tokens);
    CHECK(found[24].count == 40);
    CHECK(found[25].count == 40);
  }
}

}  // namespace
}  // namespace sparsefuse
