// Models that lie, which must end in an error and nothing else.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/plugin_session.h"
#include "tests/support/catch.h"
#ifdef SPARSEFUSE_CUDA_OPS_LIBRARY
#include "tests/kernels/cuda/fake_device.h"
#endif

namespace sparsefuse::test {
namespace {

using onnx::TensorProto;

std::string ErrorOf(Ort::Session (*load)(const NodeModel&), const NodeModel& model) {
  try {
    load(model);
    return "";
  } catch (const Ort::Exception& e) {
    return e.what();
  }
}

// The error that loading gives, or "" if it loads: the same for every provider.
std::string LoadError(const NodeModel& model) {
  std::string error = ErrorOf([](const NodeModel& m) { return Load(m); }, model);
#ifdef SPARSEFUSE_CUDA_OPS_LIBRARY
  REQUIRE(ErrorOf(LoadOnDevice, model) == error);
  REQUIRE(Device().lent.empty());
  REQUIRE(Device().allocators == 0);
#endif
  return error;
}

void RemoveAttribute(NodeModel& model, const std::string& name) {
  auto& attributes = *model.node().mutable_attribute();
  for (int i = 0; i < attributes.size(); ++i) {
    if (attributes[i].name() == name) return attributes.DeleteSubrange(i, 1);
  }
}

TEST_CASE("attributes: missing, of another type, out of range") {
  const LinearLayer layer({100, 40, 0}, 1);
  const LayerParts parts(layer);
  REQUIRE(LoadError(parts.Model()) == "");
  for (const char* name : {"K", "N", "scale_groups", "layout"}) {
    INFO(name);
    NodeModel model = parts.Model();
    RemoveAttribute(model, name);
    REQUIRE(LoadError(model).find(name) != std::string::npos);
    REQUIRE(LoadError(model.Float(name, 1)).find(name) != std::string::npos);
    for (int64_t value : {int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{63}, int64_t{129},
                          int64_t{1} << 24, (int64_t{1} << 24) + 1, int64_t{65536}, int64_t{65537},
                          int64_t{1} << 31, int64_t{1} << 32, std::numeric_limits<int64_t>::min(),
                          std::numeric_limits<int64_t>::max()}) {
      NodeModel changed = parts.Model();
      RemoveAttribute(changed, name);
      const bool harmless = (std::string(name) == "layout" && value == 1) ||
                            (std::string(name) == "scale_groups" && value >= 0 && value <= 1024 &&
                             value != 1);  // ≥ 2 groups: one row of scales, as with 0
      INFO(value);
      const std::string error = LoadError(changed.Int(name, value));
      REQUIRE((error == "") == harmless);
      const std::string out_of_range = std::string("attribute ") + name + " is ";
      if (value < 0) REQUIRE(error.find(out_of_range) != std::string::npos);
    }
  }
  for (float value : {0.0f, -1.0f, INFINITY, std::nanf("")}) {
    NodeModel model = parts.Model();
    RemoveAttribute(model, "scale_base");
    REQUIRE(LoadError(model.Float("scale_base", value)).find("scale_base") != std::string::npos);
  }
  NodeModel model = parts.Model();
  RemoveAttribute(model, "scale_base");
  REQUIRE(LoadError(model).find("scale_base") != std::string::npos);
  REQUIRE(LoadError(model.Int("scale_base", 1)).find("scale_base") != std::string::npos);
  for (const float share : {0.0f, 0.5f, 1.0f}) {  // a hint that may be missing
    REQUIRE(LoadError(parts.Model().Float("zero_inputs", share)) == "");
  }
  for (const float share : {-0.1f, 1.1f, INFINITY, std::nanf("")}) {
    REQUIRE(LoadError(parts.Model().Float("zero_inputs", share)).find("must lie in 0 to 1") !=
            std::string::npos);
  }
  REQUIRE(LoadError(parts.Model().Int("zero_inputs", 1)).find("no float") != std::string::npos);
  NodeModel text = parts.Model();
  onnx::AttributeProto& zeros = *text.node().add_attribute();
  zeros.set_name("zero_inputs");
  zeros.set_type(onnx::AttributeProto::STRING);
  zeros.set_s("0.5");
  REQUIRE(LoadError(text).find("no float") != std::string::npos);
  NodeModel newer = parts.Model();
  RemoveAttribute(newer, "layout");
  REQUIRE(LoadError(newer.Int("layout", 2)).find("newer library") != std::string::npos);
}

TEST_CASE("constants: one element less, one more, another rank, another type") {
  const LinearLayer layer({100, 40, 0}, 1);
  const std::vector<std::vector<int64_t> LayerParts::*> members = {
      &LayerParts::weight_dims, &LayerParts::scale_dims, &LayerParts::bias_dims,
      &LayerParts::smooth_dims};
  const std::vector<std::string> names = {"weight", "scale_code", "bias", "smooth"};
  for (size_t i = 0; i < members.size(); ++i) {
    INFO(names[i]);
    const auto broken = [&](const std::function<void(std::vector<int64_t>&)>& change) {
      LayerParts parts(layer);
      change(parts.*members[i]);
      return LoadError(parts.Model());
    };
    REQUIRE(broken([](auto& dims) { dims[0] -= 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims[0] += 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.back() -= 1; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.push_back(1); }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims[0] = 0; }).find(names[i]) != std::string::npos);
    REQUIRE(broken([](auto& dims) { dims.clear(); }).find(names[i]) != std::string::npos);
    NodeModel typed = LayerParts(layer).Model();
    for (auto& tensor : *typed.model().mutable_graph()->mutable_initializer()) {
      if (tensor.name() != names[i]) continue;
      const bool bytes = tensor.data_type() != TensorProto::FLOAT;
      tensor.set_data_type(bytes ? TensorProto::BOOL : TensorProto::INT32);
    }
    REQUIRE(LoadError(typed) != "");
  }
}

// One number of a constant at a time: what says where blocks are, and how long the gate is.
TEST_CASE("lists of blocks and gates that lie are refused") {
  LinearLayer layer({100, 70, 0, Encoding::kNested1, true}, 1);
  layer.gate = {1, 0, 0, 2};
  layer.gate.resize(4 + 2 * 100);
  REQUIRE(LoadError(LayerParts(layer).Model()) == "");
  const auto refused = [&](const std::function<void(LinearLayer&)>& change,
                           const std::string& why) {
    LayerParts parts(layer);
    change(parts.layer);
    const std::string error = LoadError(parts.Model());
    INFO(error);
    return error.find(why) != std::string::npos;
  };
  for (const int value : {26, 27, 255, 65535}) {
    for (const size_t i : {size_t{0}, size_t{3}, layer.quad.size() - 1}) {
      CHECK(refused([&](LinearLayer& l) { l.quad[i] = static_cast<uint16_t>(value); }, "blocks: "));
    }
  }
  for (const int32_t value : {-1, 1, 1000000, INT32_MIN, INT32_MAX}) {
    CHECK(refused([&](LinearLayer& l) { l.group_ptr[0] = value; }, "group_ptr"));
  }
  for (const int32_t value : {-1, 1000000, INT32_MIN, INT32_MAX}) {
    for (const size_t i : {size_t{1}, size_t{2}, size_t{3}}) {
      CHECK(refused([&](LinearLayer& l) { l.group_ptr[i] = value; }, ""));
    }
  }
  for (const float value : {-1.0f, 0.5f, 1025.0f, 1e9f, 3e38f, INFINITY, NAN}) {
    CHECK(refused([&](LinearLayer& l) { l.gate[3] = value; }, "sketch rows"));
  }
  for (const float value : {1.0f, 3.0f}) {
    CHECK(refused([&](LinearLayer& l) { l.gate[3] = value; }, "input gate has shape"));
  }
  const auto broken = [&](std::vector<int64_t> LayerParts::*member, auto change) {
    LayerParts parts(layer);
    change(parts.*member);
    return LoadError(parts.Model());
  };
  for (const auto member :
       {&LayerParts::weight_dims, &LayerParts::scale_dims, &LayerParts::gate_dims,
        &LayerParts::quad_dims, &LayerParts::group_ptr_dims}) {
    CHECK(broken(member, [](auto& dims) { dims.back() -= 1; }) != "");
    CHECK(broken(member, [](auto& dims) { dims.back() += 1; }) != "");
    CHECK(broken(member, [](auto& dims) { dims.push_back(1); }) != "");
    CHECK(broken(member, [](auto& dims) { dims.clear(); }) != "");
    CHECK(broken(member, [](auto& dims) { dims = {0}; }) != "");
  }
  CHECK(broken(&LayerParts::weight_dims, [](auto& dims) {
          dims[1] = 100000;
        }).find("weight has 100000 groups, at most") != std::string::npos);
}

TEST_CASE("inputs: too few, too many, absent") {
  const LinearLayer layer({100, 40, 0}, 1);
  NodeModel few = LayerParts(layer).Model();
  few.node().mutable_input()->RemoveLast();
  REQUIRE(LoadError(few) != "");
  NodeModel many = LayerParts(layer).Model();
  many.node().add_input("bias");
  REQUIRE(LoadError(many) != "");
  for (int i = 1; i < 5; ++i) {
    INFO(i);
    NodeModel absent = LayerParts(layer).Model();
    absent.node().set_input(i, "");
    const std::string error = ErrorOf([](const NodeModel& m) { return Load(m); }, absent);
#ifdef SPARSEFUSE_CUDA_OPS_LIBRARY
    CHECK(ErrorOf(LoadOnDevice, absent) != "");
#endif
    if (error.empty()) {  // ONNX Runtime lets it pass: then the run must fail
      Ort::Session session = Load(absent);
      REQUIRE_THROWS_AS(Run(session, RandomRows(1, 100, 1), {1, 100}), Ort::Exception);
    }
  }
}

TEST_CASE("X of another last dimension, rank or size is refused at run time") {
  const LinearLayer layer({100, 40, 0}, 1);
  std::vector<Ort::Session> sessions;
  sessions.push_back(Load(LayerParts(layer).Model()));
#ifdef SPARSEFUSE_CUDA_OPS_LIBRARY
  sessions.push_back(LoadOnDevice(LayerParts(layer).Model()));
#endif
  const auto refused_by = [&](Ort::Session& session, const std::vector<int64_t>& dims,
                              const std::string& why) {
    int64_t count = 1;
    for (int64_t dim : dims) count *= dim;
    try {
      Run(session, std::vector<float>(static_cast<size_t>(count)), dims);
      return false;
    } catch (const Ort::Exception& e) {
      return std::string(e.what()).find(why) != std::string::npos;
    }
  };
  const auto refused = [&](const std::vector<int64_t>& dims, const std::string& why) {
    return std::all_of(sessions.begin(), sessions.end(),
                       [&](Ort::Session& session) { return refused_by(session, dims, why); });
  };
  REQUIRE(refused({2, 99}, "last dimension 99, expected K = 100"));
  REQUIRE(refused({2, 101}, "last dimension 101"));
  REQUIRE(refused({100, 1}, "last dimension 1"));
  REQUIRE(refused({100, 0}, "last dimension 0"));
  REQUIRE(refused({}, "scalar"));
  REQUIRE(refused(std::vector<int64_t>(40, 1), "rank"));
}

TEST_CASE("hostile numbers in the constants stay numbers") {
  LinearLayer layer({100, 40, 0}, 1);
  layer.scale_base = std::numeric_limits<float>::max();
  layer.bias[0] = NAN;
  layer.bias[1] = INFINITY;
  layer.smooth.assign(100, 1);
  layer.smooth[99] = NAN;
  for (std::byte& b : layer.packed) b = std::byte{128};
  Ort::Session session = Load(LayerParts(layer).Model());
  for (float v : Run(session, RandomRows(9, 100, 1), {9, 100}).values) REQUIRE(std::isnan(v));
}

TEST_CASE("names from the model cannot break an error message") {
  const LinearLayer layer({100, 40, 0}, 1);
  NodeModel model = LayerParts(layer).Model();
  model.node().set_name(std::string(3000, 'x') + "%s%n\x1b[31m\n");
  RemoveAttribute(model, "K");
  REQUIRE(LoadError(model).find("\"K\"") == std::string::npos);
  REQUIRE(LoadError(model).find("K") != std::string::npos);
  model.node().set_name("a%s%n\x1b[31m\nb");
  const std::string error = LoadError(model);
  REQUIRE(error.find("node \"a%s%n?[31m?b\"") != std::string::npos);
}

}  // namespace
}  // namespace sparsefuse::test
