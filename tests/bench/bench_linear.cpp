// Times the linear operators against ONNX Runtime's own fp32 MatMul, dynamic int8
// (DynamicQuantizeMatMul) and 4-bit (MatMulNBits), whole operators in one process, interleaved, and
// prints one JSON document.
//
//   bench_linear [--threads N] [--seconds S per point] [--rows 1,8,…] [--shapes 768x3072,…]
//                [--encodings int8,int4,…] [--densities 1,0.5,…] [--cache hot|cold]
//
// Ours: "<encoding> <density>", the operator library inside ONNX Runtime; density 1 is the dense
// operator, others keep that share of the 32×4 blocks, at random, rounded to whole groups. Cold:
// each run takes the next of as many copies as come to kColdBytes, so that weights come from
// memory. With one thread the clock is the thread's CPU time. With AMX a probe brackets every
// sample, and samples beside a slow one are dropped (AmxTileNs).

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/bench/machine_probe.h"
#include "tests/kernels/layer_model.h"

namespace sparsefuse::test {
namespace {

using nlohmann::ordered_json;

constexpr double kColdBytes = 192e6;
constexpr int kMostCopies = 64;
constexpr double kSlowTile = 1.5;  // of the fastest probe

struct Arguments {
  int threads = 1;
  double seconds = 0.5;
  bool cold = false;
  std::vector<int64_t> rows = {1, 8, 16, 32, 120};
  std::vector<std::array<int64_t, 2>> shapes = {
      {768, 3072}, {3072, 768}, {3072, 3072}, {4096, 11008}};
  std::vector<std::string> encodings = {"int8", "int4", "nested1", "nested4"};
  std::vector<double> densities = {1, 0.5, 0.2, 0.1};
};

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> items;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
  return items;
}

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--threads") {
      arguments.threads = std::stoi(value);
    } else if (key == "--seconds") {
      arguments.seconds = std::stod(value);
    } else if (key == "--cache") {
      arguments.cold = value == "cold";
    } else if (key == "--encodings") {
      arguments.encodings = Split(value);
    } else if (key == "--densities") {
      arguments.densities.clear();
      for (const std::string& item : Split(value)) arguments.densities.push_back(std::stod(item));
    } else if (key == "--rows") {
      arguments.rows.clear();
      for (const std::string& item : Split(value)) arguments.rows.push_back(std::stoll(item));
    } else if (key == "--shapes") {
      arguments.shapes.clear();
      for (const std::string& item : Split(value)) {
        const size_t cross = item.find('x');
        arguments.shapes.push_back(
            {std::stoll(item.substr(0, cross)), std::stoll(item.substr(cross + 1))});
      }
    } else {
      throw std::runtime_error("unknown argument " + key);
    }
  }
  return arguments;
}

Encoding EncodingOf(const std::string& name) {
  if (name == "int8") return Encoding::kInt8;
  if (name == "int4") return Encoding::kInt4;
  if (name == "nested1") return Encoding::kNested1;
  if (name == "nested4") return Encoding::kNested4;
  throw std::runtime_error("unknown encoding " + name);
}

// A session with X and Y bound.
class BoundSession {
 public:
  BoundSession(const NodeModel& model, const Ort::SessionOptions& options, std::vector<float>& x,
               std::array<int64_t, 2> x_dims, std::vector<float>& y, std::array<int64_t, 2> y_dims)
      : bytes_(model.Bytes()),
        session_(Environment(), bytes_.data(), bytes_.size(), options),
        binding_(session_) {
    const Ort::MemoryInfo cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    binding_.BindInput("X",
                       Ort::Value::CreateTensor<float>(cpu, x.data(), x.size(), x_dims.data(), 2));
    binding_.BindOutput("Y",
                        Ort::Value::CreateTensor<float>(cpu, y.data(), y.size(), y_dims.data(), 2));
    bytes_.clear();
    bytes_.shrink_to_fit();
  }
  void Run() { session_.Run(Ort::RunOptions{nullptr}, binding_); }

 private:
  std::string bytes_;
  Ort::Session session_;
  Ort::IoBinding binding_;
};

// One way to compute a layer: how its model is made, and the bytes of weights that a run reads.
struct Contender {
  std::string name;
  std::function<NodeModel()> model;
  double bytes;
  double density = 1;
  bool ours = false;

  std::vector<std::unique_ptr<BoundSession>> copies;
  size_t next = 0;
  std::vector<double> seconds;

  void Run() {
    copies[next]->Run();
    next = (next + 1) % copies.size();
  }
};

NodeModel Fp32Model(int64_t inputs, int64_t outputs) {
  NodeModel model("MatMul", "");
  model.Constant("w", onnx::TensorProto::FLOAT, {inputs, outputs}, RandomRows(inputs, outputs, 1));
  return model;
}

NodeModel DynamicInt8Model(int64_t inputs, int64_t outputs) {
  NodeModel model("DynamicQuantizeMatMul", "com.microsoft");
  const auto count = static_cast<size_t>(outputs);
  std::vector<int8_t> codes(static_cast<size_t>(inputs * outputs));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<int8_t>(i * 7919 % 255 - 127);
  model.Constant("w", onnx::TensorProto::INT8, {inputs, outputs}, codes);
  model.Constant("s", onnx::TensorProto::FLOAT, {outputs}, std::vector<float>(count, 0.01f));
  model.Constant("z", onnx::TensorProto::INT8, {outputs}, std::vector<int8_t>(count));
  model.Constant("b", onnx::TensorProto::FLOAT, {outputs}, std::vector<float>(count, 0.5f));
  return model;
}

// accuracy_level 4: activations in int8, the fastest.
NodeModel Bits4Model(int64_t inputs, int64_t outputs, int64_t block) {
  NodeModel model("MatMulNBits", "com.microsoft");
  const int64_t blocks = (inputs + block - 1) / block;
  model.Int("K", inputs).Int("N", outputs).Int("bits", 4).Int("block_size", block);
  model.Int("accuracy_level", 4);
  std::vector<uint8_t> codes(static_cast<size_t>(outputs * blocks * block / 2));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7919);
  model.Constant("w", onnx::TensorProto::UINT8, {outputs, blocks, block / 2}, codes);
  model.Constant("s", onnx::TensorProto::FLOAT, {outputs * blocks},
                 std::vector<float>(static_cast<size_t>(outputs * blocks), 0.01f));
  return model;
}

// Every row is easy, as the largest sketch that quantize fits tells: 0.7 % of the
// weights' bytes.
std::vector<float> SketchGate(int64_t inputs, int64_t outputs) {
  const auto rows = static_cast<int64_t>(0.007 / sizeof(float) * static_cast<double>(outputs));
  std::vector<float> gate = {1, 0, 1e30f, static_cast<float>(rows)};
  const std::vector<float> sketch = RandomRows(rows, inputs, 3);
  gate.insert(gate.end(), sketch.begin(), sketch.end());
  return gate;
}

// Keeps a share of the quads of every panel, a multiple of 16.
void Thin(LinearLayer& layer, double density) {
  const auto quads = static_cast<size_t>(QuadCount(layer.shape.inputs));
  const auto keep = std::clamp<size_t>(
      static_cast<size_t>(density * static_cast<double>(quads) / 16 + 0.5) * 16, 16, quads);
  std::mt19937 random(5);
  std::vector<std::vector<int64_t>> kept(static_cast<size_t>(layer.shape.panels()));
  for (std::vector<int64_t>& panel : kept) {
    panel.resize(quads);
    std::iota(panel.begin(), panel.end(), 0);
    std::shuffle(panel.begin(), panel.end(), random);
    panel.resize(keep);
    std::sort(panel.begin(), panel.end());
  }
  SetQuads(layer, kept);
  layer.Pack();
}

LinearLayer MakeLayer(int64_t inputs, int64_t outputs, Encoding encoding, double density) {
  const int64_t scale_groups = encoding == Encoding::kInt8 || density < 1 ? 0 : 8;
  LinearLayer layer({inputs, outputs, scale_groups, encoding, density < 1}, 1);
  if (encoding == Encoding::kInt8) BoundPairs(layer);  // as the compressor writes them
  if (density < 1) Thin(layer, density);
  if (IsNested(encoding)) layer.gate = {1, 0, 0, 0};  // no row is easy
  return layer;
}

std::vector<Contender> Contenders(int64_t inputs, int64_t outputs, const Arguments& arguments) {
  const auto weights = static_cast<double>(inputs * outputs);
  std::vector<Contender> all;
  all.push_back({"ort fp32", [=] { return Fp32Model(inputs, outputs); }, 4 * weights});
  all.push_back({"ort dynamic int8", [=] { return DynamicInt8Model(inputs, outputs); }, weights});
  for (const int64_t block : {32, 128}) {
    const auto name = "ort 4-bit, blocks of " + std::to_string(block);
    all.push_back({name, [=] { return Bits4Model(inputs, outputs, block); },
                   weights / 2 + 4 * weights / static_cast<double>(block)});
  }
  for (const std::string& name : arguments.encodings) {
    const Encoding encoding = EncodingOf(name);
    std::vector<bool> readings = {false};
    if (IsNested(encoding)) readings.push_back(true);
    for (const double density : arguments.densities) {
      for (const bool easy : readings) {
        std::ostringstream title;
        title << name << (easy ? " in 4 bits " : " ") << density;
        const double bits = encoding == Encoding::kInt4 || easy ? 0.5 : 1;
        all.push_back({title.str(),
                       [=] {
                         LinearLayer layer = MakeLayer(inputs, outputs, encoding, density);
                         if (easy) layer.gate = {0, 0, 1, 0};  // every row is
                         return LayerParts(layer).Model();
                       },
                       bits * weights * density, density, true});
      }
      if (!IsNested(encoding)) continue;
      std::ostringstream title;
      title << name << " in 4 bits, by a sketch " << density;
      all.push_back({title.str(),
                     [=] {
                       LinearLayer layer = MakeLayer(inputs, outputs, encoding, density);
                       layer.gate = SketchGate(inputs, outputs);
                       return LayerParts(layer).Model();
                     },
                     0.5 * weights * density, density, true});
    }
  }
  return all;
}

// Rounds of every contender in turn until the time is up; a sample repeats a short run.
void Measure(std::vector<Contender>& contenders, double seconds, bool cpu_time) {
  std::vector<int> repeats;
  double fast_tile = AmxTileNs();
  for (Contender& c : contenders) {
    for (size_t i = 0; i < c.copies.size(); ++i) c.Run();
    const double start = Now(cpu_time);
    c.Run();
    repeats.push_back(std::clamp(static_cast<int>(50e-6 / (Now(cpu_time) - start + 1e-9)), 1, 50));
    c.seconds.clear();
  }
  const double deadline = Now(false) + seconds;
  for (int round = 0; round < 5 || Now(false) < deadline; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const double before = AmxTileNs();
      const double start = Now(cpu_time);
      for (int r = 0; r < repeats[i]; ++r) contenders[i].Run();
      const double sample = (Now(cpu_time) - start) / repeats[i];
      const double after = AmxTileNs();
      fast_tile = std::min({fast_tile, before, after});
      if (std::max(before, after) <= kSlowTile * fast_tile) contenders[i].seconds.push_back(sample);
    }
  }
}

ordered_json Point(int64_t inputs, int64_t outputs, int64_t rows, const Arguments& arguments) {
  std::vector<float> x = RandomRows(rows, inputs, 7);
  std::vector<float> y(static_cast<size_t>(rows * outputs));
  std::vector<Contender> contenders = Contenders(inputs, outputs, arguments);
  for (Contender& c : contenders) {
    const int copies =
        arguments.cold ? std::clamp(static_cast<int>(kColdBytes / c.bytes) + 1, 2, kMostCopies) : 1;
    const NodeModel model = c.model();
    for (int i = 0; i < copies; ++i) {
      c.copies.push_back(std::make_unique<BoundSession>(
          model, Options(arguments.threads, c.ours ? SPARSEFUSE_OPS_LIBRARY : ""), x,
          std::array{rows, inputs}, y, std::array{rows, outputs}));
    }
  }
  Measure(contenders, arguments.seconds * static_cast<double>(contenders.size()) / 4,
          arguments.threads == 1);
  ordered_json results;
  for (Contender& c : contenders) {
    if (c.seconds.empty()) continue;  // no sample beside a fast probe
    std::sort(c.seconds.begin(), c.seconds.end());
    const double least = c.seconds.front();
    const double products = static_cast<double>(rows * inputs * outputs) * c.density;
    results[c.name] = {{"min_us", least * 1e6},
                       {"median_us", c.seconds[c.seconds.size() / 2] * 1e6},
                       {"samples", c.seconds.size()},
                       {"gops", 2 * products / least * 1e-9},
                       {"weight_gb_per_s", c.bytes / least * 1e-9}};
  }
  return {{"inputs", inputs}, {"outputs", outputs}, {"rows", rows}, {"results", results}};
}

int Main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  setenv("SPARSEFUSE_GATE", "always", 1);
  std::array<char, 256> features;
  DescribeCpuFeatures(DetectCpuFeatures(), features);
  ordered_json document = {{"cpu", features.data()},
                           {"kernel", SelectLinearKernel()->name},
                           {"onnxruntime", OrtGetApiBase()->GetVersionString()},
                           {"threads", arguments.threads},
                           {"cache", arguments.cold ? "cold" : "hot"},
                           {"clock", arguments.threads == 1 ? "thread CPU time" : "wall"},
                           {"peak_gops", PeakGops()},
                           {"stream_gb_per_s", StreamGbPerSecond()},
                           {"amx_tile_ns", AmxTileNs()},
                           {"points", ordered_json::array()}};
  for (const auto& [inputs, outputs] : arguments.shapes) {
    for (int64_t rows : arguments.rows) {
      document["points"].push_back(Point(inputs, outputs, rows, arguments));
      std::fprintf(stderr, "%lld x %lld, %lld rows\n", static_cast<long long>(inputs),
                   static_cast<long long>(outputs), static_cast<long long>(rows));
    }
  }
  std::printf("%s\n", document.dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace sparsefuse::test

int main(int argc, char** argv) {
  try {
    return sparsefuse::test::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_linear: %s\n", e.what());
    return 1;
  }
}
