#include <string>
#include <string_view>

#include "tests/support/catch.h"

namespace sparsefuse {

std::string CleanReason(std::string_view message);  // passes/engine/ort.h, private

namespace {

TEST_CASE("paths and signatures of ONNX Runtime's sources are left out") {
  CHECK(CleanReason(
            "Load model from m.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:149 "
            "onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&, const "
            "std::function<void(int)>&) Unsupported model IR version: 13, max supported IR "
            "version: 10\n") == "Unsupported model IR version: 13, max supported IR version: 10");
  CHECK(CleanReason(
            "Exception during initialization: /build/core/optimizer/x.cpp:9 virtual "
            "onnxruntime::common::Status onnxruntime::T<int>::Apply(const A&) const [with A = "
            "B<C>] index < size() was false. Too many.") ==
        "Exception during initialization: index < size() was false. Too many.");
  CHECK(
      CleanReason("Non-zero status code returned while running Add node. Name:'a' Status Message: "
                  "/onnxruntime_src/core/math/binary.h:47 Attempting to broadcast an axis (0) by a "
                  "dimension other than 1. 2 by 3\n\n") ==
      "Non-zero status code returned while running Add node. Name:'a' Status Message: Attempting "
      "to "
      "broadcast an axis (0) by a dimension other than 1. 2 by 3");
}

TEST_CASE("what only looks like a source position stays") {
  CHECK(CleanReason("cannot open /models/a.onnx: no such file") ==
        "cannot open /models/a.onnx: no such file");
  CHECK(CleanReason("node '/model/layer.cc' at 3/4") == "node '/model/layer.cc' at 3/4");
  CHECK(CleanReason("see /a.cc:x") == "see /a.cc:x");
  CHECK(CleanReason("") == "ONNX Runtime gave no reason");
  CHECK(CleanReason(" \n\t") == "ONNX Runtime gave no reason");
}

TEST_CASE("long reasons are cut between characters") {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "é";  // 2 bytes each
  for (const std::string& prefix : {std::string(), std::string("x")}) {
    const std::string cut = CleanReason(prefix + text);
    CHECK(cut.size() <= 300);
    CHECK(cut.size() >= 297);
    CHECK(cut.ends_with("é…"));
  }
}

}  // namespace
}  // namespace sparsefuse
