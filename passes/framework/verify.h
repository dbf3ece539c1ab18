// Whether a model still does what the original did: after each pass, and before anything is
// published.

#ifndef SPARSEFUSE_PASSES_FRAMEWORK_VERIFY_H_
#define SPARSEFUSE_PASSES_FRAMEWORK_VERIFY_H_

#include <functional>
#include <string>
#include <vector>

#include "passes/engine/engine.h"
#include "passes/framework/pass.h"

namespace sparsefuse {

// What candidates are compared on.
enum class Basis {
  kNothing,  // the engine cannot run the original: structure only
  kRunning,  // the original's answers are random numbers or rounding noise: candidates must load,
             // run and stay finite
  kProbes,   // made-up inputs (probes.h)
  kData,     // samples of the fit split
};

// The original's answers, taken once and kept for every candidate.
struct Reference {
  Basis basis = Basis::kNothing;
  std::string reason;       // why the basis is not kData
  double tolerance = 1e-4;  // lossless: allowed error, relative to the largest element of an output
  std::vector<Port> outputs;  // those that are tensors
  std::vector<double> noise;  // of each: how far it moves, as an error, when the float inputs move
                              // by 2⁻²⁰ of themselves: what rounding alone may do to it
  std::vector<Feeds> feeds;   // one batch each
  std::vector<std::vector<Tensor>> answers;  // [batch][output]
};

// At most `samples` calibration samples, fewer when the answers pass 256 MiB; without data two
// seeded probes. The tolerance is 1e-2 for models that compute in 16 bits, or quantise (a change in
// the last bit of a float moves an integer by a whole step). UserError E_ENGINE when the original
// fails on the user's own data.
Reference MakeReference(const Model& teacher, const Context& context, int64_t samples = 8);

struct Verification {
  Basis basis = Basis::kNothing;
  std::string reason;    // as Reference
  double max_error = 0;  // largest error of any output, relative to its largest element
  double cosine = 1;     // lowest of the outputs' mean cosines

  // "full" or "structure", as in metadata_props: full means compared on data.
  const char* Level() const { return basis == Basis::kData ? "full" : "structure"; }
};

// Opens the candidate and compares it with the reference. UserError E_VERIFY naming the output:
// it does not load or run; an output is missing, has another type or shape; it is not finite or
// constant where the original's is; lossless: an error above the tolerance (integers: more than
// 0.1 % differ) and above 10 times the noise; lossy, on data only: a mean cosine below
// `min_cosine`. With Basis::kNothing the candidate is not opened.
Verification VerifyAgainst(const Reference& reference, const std::function<Session()>& candidate,
                           Exactness exactness, double min_cosine = 0.95);

// The same file with the operator library and without, where function bodies run: the integers are
// the same, the floats differ by rounding, which later quantisation can amplify; mean cosine ≥
// 0.999 for every output, else E_VERIFY.
inline constexpr double kMinBodyCosine = 0.999;
Verification VerifyBodies(const Reference& reference, const Session& with_library,
                          const Session& without_library);

// E_VERIFY unless both graphs have the same inputs and outputs: names, order, element types. Of
// models before IR 4 the inputs that are initializers do not count.
void VerifySignature(const Model& teacher, const Model& student);

}  // namespace sparsefuse

#endif  // SPARSEFUSE_PASSES_FRAMEWORK_VERIFY_H_
