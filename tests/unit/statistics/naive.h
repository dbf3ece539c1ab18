// Statistics and products by plain loops in double, and what the tests of passes/statistics share.

#ifndef SPARSEFUSE_TESTS_UNIT_STATISTICS_NAIVE_H_
#define SPARSEFUSE_TESTS_UNIT_STATISTICS_NAIVE_H_

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_io/model.h"
#include "passes/data/dataset.h"

namespace sparsefuse::test {

// Uniform in [low, high); the same for the same seed.
Tensor RandomTensor(const Dims& dims, uint64_t seed, double low = -1, double high = 1);
Eigen::MatrixXd RandomMatrix(int64_t rows, int64_t columns, uint64_t seed);

// ParseGraph of a graph without its name, in opset 17: "(float[n,3] x) => (float[n,3] y) { … }".
Model ParseUnnamed(const std::string& graph);

// One run without optimisation, on one thread.
Tensor RunOne(const Model& model, const Feeds& feeds, const std::string& output);

// Rows of a float tensor with its features along `axis`, in the order of the other axes.
Eigen::MatrixXd RowsOf(const Tensor& tensor, int64_t axis);

// Rows of all parts, one below the other.
Eigen::MatrixXd Stack(const std::vector<Eigen::MatrixXd>& parts);
// A tensor's rows over all batches.
Eigen::MatrixXd Fetch(const Model& model, const std::vector<Feeds>& batches,
                      const std::string& tensor, int64_t axis);

struct NaiveMoments {
  Eigen::VectorXd mean, squares;
  Eigen::MatrixXd gram;  // centred
};
NaiveMoments MomentsOf(const Eigen::MatrixXd& rows);
// Σ (a − mean)(b − mean)ᵀ
Eigen::MatrixXd CrossOf(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);

// Those of `rows` for which `keep` holds.
Eigen::MatrixXd Select(const Eigen::MatrixXd& rows, const std::vector<bool>& keep);

// Largest difference relative to the largest magnitude of `expected`; infinite if the shapes
// differ.
double Difference(const Eigen::MatrixXd& found, const Eigen::MatrixXd& expected);

Node* Producer(const Model& model, std::string_view value);

}  // namespace sparsefuse::test

#endif  // SPARSEFUSE_TESTS_UNIT_STATISTICS_NAIVE_H_
