#include "passes/statistics/gram.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "passes/lower/builder.h"

namespace sparsefuse {
namespace {

using FloatRows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t kBatchBytes = int64_t{64} << 20;
constexpr int64_t kMostSamples = 16;

// --- What ONNX Runtime computes
// -------------------------------------------------------------------

// The window of a convolution as channels: a depthwise convolution each of whose filters picks one
// element. Axis 1 of the result is [Cin, kernel…] in the weight's order; exact.
Value* AddWindow(Builder& builder, Value* x, const Node& conv) {
  const Tensor& weight = *conv.constant_input(1);
  const int64_t channels = weight.dims()[1];
  const int64_t kernel = weight.size() / weight.dims()[0] / channels;
  std::vector<double> picks(static_cast<size_t>(channels * kernel * kernel), 0);
  for (int64_t i = 0; i < channels * kernel; ++i) {
    picks[static_cast<size_t>(i * kernel + i % kernel)] = 1;
  }
  Dims dims = weight.dims();
  dims[0] = channels * kernel;
  dims[1] = 1;
  Attributes attributes;
  for (const Attribute& attribute : conv.attributes()) {
    if (const auto* ints = std::get_if<std::vector<int64_t>>(&attribute.data)) {
      attributes.emplace_back(attribute.name, *ints);
    } else if (const auto* text = std::get_if<std::string>(&attribute.data)) {
      attributes.emplace_back(attribute.name, *text);
    }
  }
  attributes.emplace_back("group", channels);
  Value* filters = builder.Constant(ToTensor(weight.dtype(), std::move(dims), picks));
  return builder.Op("Conv", {x, filters}, std::move(attributes));
}

// A model whose run yields the tensors behind rows.
class Probe {
 public:
  explicit Probe(const Model& model) : model_(model.Clone()), builder_(model_.graph()) {}

  // The place of the tensor among the outputs.
  size_t Add(const Rows& rows) {
    const auto key = std::pair(rows.tensor, rows.window);
    const auto [known, is_new] = places_.emplace(key, outputs_.size());
    if (!is_new) return known->second;
    Value* value = model_.graph().FindValue(rows.tensor);
    SF_CHECK(value, "no tensor \"{}\"", rows.tensor);
    if (rows.window) value = AddWindow(builder_, value, *rows.window);
    outputs_.push_back(value->name());
    return known->second;
  }

  BatchRun Run(const Batches& batches) const { return {model_, batches, outputs_}; }

 private:
  Model model_;
  Builder builder_;
  std::vector<std::string> outputs_;
  std::map<std::pair<std::string, const Node*>, size_t> places_;
};

// aᵀ·b of float matrices, [T, i] and [T, j].
Model ProductModel() {
  Model model;
  model.opset_imports[""] = 13;
  const auto input = [&](const char* name, const char* width) {
    return model.graph().AddGraphInput(
        name, ValueType{DType::kFloat, true, {std::string("rows"), std::string(width)}});
  };
  Value* a = input("a", "i");
  Value* b = input("b", "j");
  Builder builder(model.graph());
  model.graph().AddGraphOutput(builder.Op("Gemm", {a, b}, AttributeList("transA", int64_t{1})));
  return model;
}

// One product at a time for each thread.
class Products {
 public:
  explicit Products(const Context& context) {
    const Model model = ProductModel();
    for (int i = 0; i < std::max(1, context.threads); ++i) {
      sessions_.emplace_back(model, SessionOptions{.threads = 1});
    }
  }

  // aᵀ·b. For use by the batch alone while it is computed.
  Eigen::MatrixXf Compute(size_t batch, const FloatRows& a, const FloatRows& b) const {
    if (a.rows() == 0) return Eigen::MatrixXf::Zero(a.cols(), b.cols());
    const auto tensor = [](const FloatRows& rows) {
      return Tensor::Of<float>({rows.rows(), rows.cols()},
                               {rows.data(), static_cast<size_t>(rows.size())});
    };
    const Tensor right = tensor(b), left = &a == &b ? right : tensor(a);
    // Eigen's matrices lie by columns, so bᵀ·a by rows is what is wanted.
    const Tensor product = sessions_[batch % sessions_.size()].Run({{"a", right}, {"b", left}})[0];
    return Eigen::Map<const Eigen::MatrixXf>(product.data<float>().data(), a.cols(), b.cols());
  }

 private:
  std::vector<Session> sessions_;
};

// --- Rows of one batch
// ----------------------------------------------------------------------------

// Rows of `tensor` in the order of its axes other than the features', those of padding left out.
FloatRows GatherRows(const Tensor& tensor, const Rows& rows, const std::optional<std::string>& mask,
                     const Feeds& feeds) {
  const int64_t wanted = rows.window ? 1 : rows.feature_axis;
  const int64_t axis = wanted < 0 ? wanted + tensor.rank() : wanted;
  SF_CHECK(axis >= 0 && axis < tensor.rank(), "\"{}\" is {}", rows.tensor, ToString(tensor.dims()));
  Dims others = tensor.dims();
  const int64_t n = others[static_cast<size_t>(axis)];
  others.erase(others.begin() + axis);
  int64_t inner = 1;
  for (size_t i = static_cast<size_t>(axis); i < others.size(); ++i) inner *= others[i];
  const std::vector<bool> kept = KeptRows(mask, feeds, others);
  const int64_t all = n == 0 ? 0 : tensor.size() / n;
  const int64_t count = kept.empty() ? all : std::count(kept.begin(), kept.end(), true);
  std::vector<float> converted;
  if (tensor.dtype() != DType::kFloat) converted = tensor.ToFloats();
  const float* data = converted.empty() ? tensor.data<float>().data() : converted.data();
  FloatRows result(count, n);
  int64_t to = 0;
  for (int64_t row = 0; row < all; ++row) {
    if (!kept.empty() && !kept[static_cast<size_t>(row)]) continue;
    const float* from = data + row / inner * n * inner + row % inner;
    for (int64_t i = 0; i < n; ++i) result(to, i) = from[i * inner];
    ++to;
  }
  if (!result.allFinite()) {
    throw UserError(ErrorCode::kEngine, "holds NaN or infinity on the calibration data",
                    "a weight before it or a sample has such values: correct that one")
        .At(fmt::format("tensor \"{}\"", Printable(rows.tensor)));
  }
  return result;
}

struct BatchMoments {
  double count = 0;         // T
  Eigen::VectorXd mean;     // [n]
  Eigen::VectorXd squares;  // [n] Σ x²
};

// Takes the mean off each column. What is left of it is below float's resolution of the mean.
BatchMoments Center(FloatRows& values) {
  const Eigen::Index n = values.cols();
  BatchMoments moments{static_cast<double>(values.rows()), Eigen::VectorXd::Zero(n),
                       Eigen::VectorXd::Zero(n)};
  for (Eigen::Index t = 0; t < values.rows(); ++t) {
    const auto row = values.row(t).transpose().cast<double>();
    moments.mean += row;
    moments.squares += row.cwiseAbs2();
  }
  if (values.rows() > 0) moments.mean /= moments.count;
  values.rowwise() -= moments.mean.cast<float>().transpose();
  return moments;
}

// --- Sums over batches
// ----------------------------------------------------------------------------

// Σ (a − mean of a)(b − mean of b)ᵀ of parts, put together as Chan, Golub and LeVeque do (1979).
struct CenteredSum {
  double count = 0;
  Eigen::VectorXd a_mean, b_mean;
  Eigen::MatrixXd sum;  // empty unless products are added

  void Add(double rows, const Eigen::VectorXd& a, const Eigen::VectorXd& b,
           const Eigen::MatrixXf& product) {
    if (rows == 0) return;
    if (count == 0) {
      a_mean = Eigen::VectorXd::Zero(a.size());
      b_mean = Eigen::VectorXd::Zero(b.size());
      sum = Eigen::MatrixXd::Zero(product.rows(), product.cols());
    }
    const double total = count + rows;
    const Eigen::VectorXd a_step = a - a_mean, b_step = b - b_mean;
    if (product.size() > 0) {
      sum += product.cast<double>();
      sum.noalias() += (a_step * (count * rows / total)) * b_step.transpose();
    }
    a_mean += a_step * (rows / total);
    b_mean += b_step * (rows / total);
    count = total;
  }
};

// Takes out what rounding left between the two triangles.
Eigen::MatrixXd Symmetric(Eigen::MatrixXd sum) {
  for (Eigen::Index j = 0; j < sum.cols(); ++j) {
    for (Eigen::Index i = 0; i < j; ++i) sum(i, j) = sum(j, i) = (sum(i, j) + sum(j, i)) / 2;
  }
  return sum;
}

size_t Slots(const Context& context) { return static_cast<size_t>(std::max(1, context.threads)); }

}  // namespace

Rows InputRows(const MatrixView& view) {
  Rows rows{.tensor = view.input->name()};
  if (view.node->Is("Conv")) rows.window = view.node;
  if (view.node->Is("Gemm") && view.node->GetInt("transA", 0) != 0) rows.feature_axis = 0;
  return rows;
}

Rows OutputRows(const MatrixView& view, std::string tensor) {
  if (tensor.empty()) tensor = view.output->name();
  return {.tensor = std::move(tensor), .feature_axis = view.node->Is("Conv") ? 1 : -1};
}

std::vector<RowStatistics> CollectRows(const Model& model, std::span<const RowRequest> requests,
                                       const Batches& batches,
                                       const std::optional<std::string>& mask,
                                       const Context& context) {
  struct Part {
    BatchMoments moments;
    Eigen::MatrixXf product;
  };
  Probe probe(model);
  std::vector<size_t> places;
  for (const RowRequest& request : requests) places.push_back(probe.Add(request.rows));
  const Products products(context);
  const size_t slots = Slots(context);
  std::vector<std::vector<Part>> parts(slots);
  std::vector<CenteredSum> sums(requests.size());
  std::vector<RowStatistics> statistics(requests.size());
  const BatchRun run = probe.Run(batches);
  RunBatches(
      {&run, 1}, context,
      [&](size_t batch, std::vector<std::vector<Tensor>> outputs) {
        std::vector<Part>& own = parts[batch % slots];
        for (size_t i = 0; i < requests.size(); ++i) {
          FloatRows x = GatherRows(outputs[0][places[i]], requests[i].rows, mask, batches[batch]);
          Part part{Center(x), {}};
          if (requests[i].gram) part.product = products.Compute(batch, x, x);
          own.push_back(std::move(part));
        }
      },
      [&](size_t batch) {
        for (size_t i = 0; i < requests.size(); ++i) {
          const Part& part = parts[batch % slots][i];
          const BatchMoments& moments = part.moments;
          sums[i].Add(moments.count, moments.mean, moments.mean, part.product);
          Eigen::VectorXd& squares = statistics[i].squares;
          if (squares.size() == 0) squares = Eigen::VectorXd::Zero(moments.squares.size());
          squares += moments.squares;
        }
        parts[batch % slots].clear();
      });
  for (size_t i = 0; i < requests.size(); ++i) {
    statistics[i].count = sums[i].count;
    statistics[i].mean = std::move(sums[i].a_mean);
    if (requests[i].gram) statistics[i].gram = Symmetric(std::move(sums[i].sum));
  }
  return statistics;
}

std::vector<PairStatistics> CollectPairs(const Model& teacher, const Model& student,
                                         std::span<const RowPair> pairs,
                                         const Batches& teacher_batches,
                                         const Batches& student_batches,
                                         const std::optional<std::string>& mask,
                                         const Context& context) {
  struct Part {
    BatchMoments teacher, student;
    Eigen::MatrixXf gram, cross;
  };
  Probe teacher_probe(teacher), student_probe(student);
  std::vector<std::pair<size_t, size_t>> places;
  for (const RowPair& pair : pairs) {
    places.emplace_back(teacher_probe.Add(pair.teacher), student_probe.Add(pair.student));
  }
  const Products products(context);
  const size_t slots = Slots(context);
  std::vector<std::vector<Part>> parts(slots);
  std::vector<CenteredSum> grams(pairs.size()), crosses(pairs.size());
  const BatchRun runs[] = {teacher_probe.Run(teacher_batches), student_probe.Run(student_batches)};
  RunBatches(
      runs, context,
      [&](size_t batch, std::vector<std::vector<Tensor>> outputs) {
        for (size_t i = 0; i < pairs.size(); ++i) {
          FloatRows x = GatherRows(outputs[0][places[i].first], pairs[i].teacher, mask,
                                   teacher_batches[batch]);
          FloatRows x_hat = GatherRows(outputs[1][places[i].second], pairs[i].student, mask,
                                       student_batches[batch]);
          SF_CHECK(x.rows() == x_hat.rows(), "\"{}\" and \"{}\" have {} and {} rows",
                   pairs[i].teacher.tensor, pairs[i].student.tensor, x.rows(), x_hat.rows());
          Part part{Center(x), Center(x_hat), {}, {}};
          part.gram = products.Compute(batch, x_hat, x_hat);
          part.cross = products.Compute(batch, x_hat, x);
          parts[batch % slots].push_back(std::move(part));
        }
      },
      [&](size_t batch) {
        for (size_t i = 0; i < pairs.size(); ++i) {
          const Part& part = parts[batch % slots][i];
          const double rows = part.teacher.count;
          grams[i].Add(rows, part.student.mean, part.student.mean, part.gram);
          crosses[i].Add(rows, part.student.mean, part.teacher.mean, part.cross);
        }
        parts[batch % slots].clear();
      });
  std::vector<PairStatistics> statistics(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    statistics[i] = {crosses[i].count, std::move(crosses[i].b_mean), std::move(crosses[i].a_mean),
                     Symmetric(std::move(grams[i].sum)), std::move(crosses[i].sum)};
  }
  return statistics;
}

int64_t ChooseBatch(const Model& model, std::span<const MatrixView> views, const Context& context) {
  Model probe = model.Clone();
  Builder builder(probe.graph());
  BatchRun run{probe, MakeBatches(*context.calibration, {&context.splits.fit.front(), 1}, 1), {}};
  for (const MatrixView& view : views) {
    Value* shape = builder.Op("Shape", {probe.graph().FindValue(view.node->output(0)->name())});
    run.outputs.push_back(shape->name());
  }
  int64_t largest = 1;  // bytes of a sample
  if (!views.empty()) {
    const std::vector<Tensor> shapes = RunBatches(run, context)[0];
    for (size_t i = 0; i < views.size(); ++i) {
      int64_t rows = 1;
      for (const int64_t length : shapes[i].ToInts()) rows *= length;
      largest = std::max(largest, rows / views[i].outputs * views[i].inputs * 4);
    }
  }
  return std::clamp(kBatchBytes / largest, int64_t{1}, kMostSamples);
}

}  // namespace sparsefuse
