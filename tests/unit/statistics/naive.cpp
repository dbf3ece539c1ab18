#include "tests/unit/statistics/naive.h"

#include <limits>

#include "passes/data/random.h"
#include "passes/engine/engine.h"
#include "tests/unit/analysis/graphs.h"

namespace sparsefuse::test {
namespace {

double Uniform(uint64_t seed, uint64_t i) {
  return static_cast<double>(RandomAt(seed, i) >> 11) * 0x1p-53;
}

}  // namespace

Tensor RandomTensor(const Dims& dims, uint64_t seed, double low, double high) {
  std::vector<float> values(static_cast<size_t>(ElementCount(dims).value()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(low + (high - low) * Uniform(seed, i));
  }
  return Tensor::Of<float>(dims, values);
}

Eigen::MatrixXd RandomMatrix(int64_t rows, int64_t columns, uint64_t seed) {
  Eigen::MatrixXd matrix(rows, columns);
  for (int64_t i = 0; i < matrix.size(); ++i) {
    matrix(i / columns, i % columns) = 2 * Uniform(seed, static_cast<uint64_t>(i)) - 1;
  }
  return matrix;
}

Model ParseUnnamed(const std::string& graph) {
  return ParseGraph("<ir_version: 8, opset_import: [\"\" : 17]> g " + graph);
}

Tensor RunOne(const Model& model, const Feeds& feeds, const std::string& output) {
  const std::string names[] = {output};
  const Session session(WithOutputs(model, names), {.optimize = false});
  return session.Run(feeds, names)[0];
}

Eigen::MatrixXd RowsOf(const Tensor& tensor, int64_t axis) {
  const std::vector<float> values = tensor.ToFloats();
  const Dims& dims = tensor.dims();
  const auto at = static_cast<size_t>(axis < 0 ? axis + tensor.rank() : axis);
  const int64_t n = dims[at];
  Eigen::MatrixXd rows(tensor.size() / n, n);
  for (int64_t element = 0; element < tensor.size(); ++element) {
    int64_t row = 0, feature = 0, rest = element, weight = 1;
    for (size_t i = dims.size(); i-- > 0; rest /= dims[i]) {
      if (i == at) {
        feature = rest % dims[i];
      } else {
        row += rest % dims[i] * weight;
        weight *= dims[i];
      }
    }
    rows(row, feature) = values[static_cast<size_t>(element)];
  }
  return rows;
}

Eigen::MatrixXd Stack(const std::vector<Eigen::MatrixXd>& parts) {
  Eigen::MatrixXd all(0, parts[0].cols());
  for (const Eigen::MatrixXd& part : parts) {
    all.conservativeResize(all.rows() + part.rows(), Eigen::NoChange);
    all.bottomRows(part.rows()) = part;
  }
  return all;
}

Eigen::MatrixXd Fetch(const Model& model, const std::vector<Feeds>& batches,
                      const std::string& tensor, int64_t axis) {
  std::vector<Eigen::MatrixXd> parts;
  for (const Feeds& feeds : batches) parts.push_back(RowsOf(RunOne(model, feeds, tensor), axis));
  return Stack(parts);
}

NaiveMoments MomentsOf(const Eigen::MatrixXd& rows) {
  NaiveMoments moments{Eigen::VectorXd::Zero(rows.cols()), Eigen::VectorXd::Zero(rows.cols()),
                       CrossOf(rows, rows)};
  for (int64_t t = 0; t < rows.rows(); ++t) {
    for (int64_t i = 0; i < rows.cols(); ++i) {
      moments.mean[i] += rows(t, i) / static_cast<double>(rows.rows());
      moments.squares[i] += rows(t, i) * rows(t, i);
    }
  }
  return moments;
}

Eigen::MatrixXd CrossOf(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  Eigen::MatrixXd cross = Eigen::MatrixXd::Zero(a.cols(), b.cols());
  for (int64_t i = 0; i < a.cols(); ++i) {
    for (int64_t j = 0; j < b.cols(); ++j) {
      double a_mean = 0, b_mean = 0;
      for (int64_t t = 0; t < a.rows(); ++t) {
        a_mean += a(t, i) / static_cast<double>(a.rows());
        b_mean += b(t, j) / static_cast<double>(b.rows());
      }
      for (int64_t t = 0; t < a.rows(); ++t) cross(i, j) += (a(t, i) - a_mean) * (b(t, j) - b_mean);
    }
  }
  return cross;
}

Eigen::MatrixXd Select(const Eigen::MatrixXd& rows, const std::vector<bool>& keep) {
  Eigen::MatrixXd selected(0, rows.cols());
  for (int64_t t = 0; t < rows.rows(); ++t) {
    if (!keep[static_cast<size_t>(t)]) continue;
    selected.conservativeResize(selected.rows() + 1, Eigen::NoChange);
    selected.row(selected.rows() - 1) = rows.row(t);
  }
  return selected;
}

double Difference(const Eigen::MatrixXd& found, const Eigen::MatrixXd& expected) {
  if (found.rows() != expected.rows() || found.cols() != expected.cols()) {
    return std::numeric_limits<double>::infinity();
  }
  if (expected.size() == 0) return 0;
  const double largest = expected.cwiseAbs().maxCoeff();
  return (found - expected).cwiseAbs().maxCoeff() / (largest > 0 ? largest : 1);
}

Node* Producer(const Model& model, std::string_view value) {
  return model.graph().FindValue(value)->producer();
}

}  // namespace sparsefuse::test
