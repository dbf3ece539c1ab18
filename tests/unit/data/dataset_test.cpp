#include "passes/data/dataset.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <string>

#include "onnx_io/text.h"
#include "tests/support/catch.h"
#include "tests/support/dataset.h"
#include "tests/support/npy_files.h"
#include "tests/support/support.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;
using test::Counting;
using test::MakeDataset;
using test::NpyBytes;
using test::TempDir;
using test::WriteFile;
using test::ZipBytes;

Model WithInputs(const std::string& inputs) {
  return ModelFromText("<ir_version: 8, opset_import: [\"\" : 17]> g (" + inputs +
                       ") => (int64[K] shape) { shape = Shape(x) }");
}

// "CODE: message; hint" of the error, with the temporary directory left out.
std::string ErrorOf(const std::function<void()>& load) {
  try {
    load();
  } catch (const UserError& error) {
    std::string line = std::string(ErrorName(error.code)) + ": " + error.Line();
    for (size_t at; (at = line.find("sparsefuse-test-")) != std::string::npos;) {
      const size_t begin = line.rfind(' ', at) + 1;
      line.erase(begin, at + 22 + 1 - begin);
    }
    return line;
  }
  return "accepted";
}

std::string NpzError(const Model& model, const Feeds& arrays) {
  return ErrorOf([&] { MakeDataset(model, arrays); });
}

const Tensor& Feed(const Feeds& feeds, const std::string& name) {
  for (const auto& [feed, tensor] : feeds) {
    if (feed == name) return tensor;
  }
  throw std::runtime_error("no feed " + name);
}

TEST_CASE("samples are gathered by index") {
  const Dataset data = MakeDataset(
      WithInputs("float[N,3] x"),
      {{"x", Counting({5, 3})}, {"label", Tensor::Of<int64_t>({5}, {10, 11, 12, 13, 14})}});
  CHECK(data.size() == 5);
  CHECK(data.fixed_batch() == 0);
  CHECK(data.has_labels());
  const std::vector<int64_t> mixed = {4, 0, 4};
  const Feeds feeds = data.Gather(mixed);
  REQUIRE(feeds.size() == 1);
  CHECK(Feed(feeds, "x").dims() == Dims{3, 3});
  CHECK(Feed(feeds, "x").ToFloats() == std::vector<float>{12, 13, 14, 0, 1, 2, 12, 13, 14});
  CHECK(data.GatherLabels(mixed).ToInts() == std::vector<int64_t>{14, 10, 14});
  // Samples side by side are not copied.
  const std::vector<int64_t> range = {1, 2, 3};
  CHECK(Feed(data.Gather(range), "x").ToFloats() ==
        std::vector<float>{3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(Feed(data.Gather(range), "x").bytes().data() ==
        Feed(data.Gather(range), "x").bytes().data());
}

TEST_CASE("a model of fixed batch 1 takes [samples, rest]") {
  const Dataset data = MakeDataset(WithInputs("float[1,2,2] x"), {{"x", Counting({3, 2, 2})}});
  CHECK(data.fixed_batch() == 1);
  CHECK(data.size() == 3);
  const std::vector<int64_t> one = {2};
  CHECK(Feed(data.Gather(one), "x").dims() == Dims{1, 2, 2});
  CHECK(Feed(data.Gather(one), "x").ToFloats() == std::vector<float>{8, 9, 10, 11});
}

TEST_CASE("a larger fixed batch drops the rest and says so") {
  const Dataset data = MakeDataset(WithInputs("float[4,1] x"),
                                   {{"x", Counting({10, 1})}, {"label", Counting({10})}});
  CHECK(data.fixed_batch() == 4);
  CHECK(data.size() == 8);
  CHECK(data.labels().dims() == Dims{8});
  REQUIRE(data.warnings.size() == 2);
  CHECK(data.warnings[0] == "the last 2 samples are left out: the model takes 4 in every run");
  CHECK(data.warnings[1] == "8 samples: 256 or more are recommended");
  CHECK(NpzError(WithInputs("float[4,1] x"), {{"x", Counting({3, 1})}}) ==
        "E_DATA: data.npz: 3 samples, the model takes 4 in every run");
}

TEST_CASE("inputs that belong to a sample as a whole") {
  // A recurrent state's first axis is no batch, and a scalar has none.
  const Model model = WithInputs("float[1,4] x, float[2,1,3] state, int64 rate");
  const Dataset data = MakeDataset(model, {{"x", Counting({2, 4})},
                                           {"state", Counting({2, 2, 1, 3})},
                                           {"rate", Tensor::Of<int64_t>({2}, {16000, 8000})}});
  CHECK(data.fixed_batch() == 1);
  const std::vector<int64_t> second = {1};
  const Feeds feeds = data.Gather(second);
  CHECK(Feed(feeds, "x").dims() == Dims{1, 4});
  CHECK(Feed(feeds, "state").dims() == Dims{2, 1, 3});
  CHECK(Feed(feeds, "state").ToFloats() == std::vector<float>{6, 7, 8, 9, 10, 11});
  CHECK(Feed(feeds, "rate").dims().empty());
  CHECK(Feed(feeds, "rate").ToInts() == std::vector<int64_t>{8000});

  CHECK(NpzError(model, {{"x", Counting({2, 4})},
                         {"state", Counting({2, 1, 3})},
                         {"rate", Tensor::Of<int64_t>({2}, {1, 2})}}) ==
        "E_DATA: data.npz: inputs \"state\" and \"rate\" differ in their first axis, so it is not "
        "the "
        "sample of both; give \"state\" whole, as [samples,2,…]");
  CHECK(NpzError(WithInputs("float[1,4] x, float[2,1,3] state"),
                 {{"x", Counting({2, 4})}, {"state", Counting({2, 1, 3})}}) ==
        "E_DATA: data.npz: inputs \"state\" and \"x\" differ in their first axis, so it is not the "
        "sample of both; give \"state\" whole, as [samples,2,…]");
}

TEST_CASE("an input with a default value is optional") {
  const Model model = ModelFromText(
      "<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,2] x, float[2] w) => (float[N,2] y) "
      "<float[2] w = {1, 2}> { y = Mul(x, w) }");
  CHECK(MakeDataset(model, {{"x", Counting({3, 2})}}).size() == 3);
}

TEST_CASE("names that do not fit are errors that name the nearest") {
  const Model model = WithInputs("int64[N,S] input_ids, int64[N,S] attention_mask, float[N] x");
  const Tensor ids = Tensor::Of<int64_t>({1, 2}, {1, 2});
  CHECK(NpzError(model, {{"inputs_ids", ids}}) ==
        "E_DATA: data.npz: array \"inputs_ids\": the model has no input \"inputs_ids\"; its inputs "
        "are "
        "\"input_ids\", \"attention_mask\", \"x\"; did you mean \"input_ids\"?");
  CHECK(NpzError(model, {{"labels", ids}}).ends_with("did you mean \"label\"?"));
  CHECK(NpzError(model, {{"input_ids", ids}}) ==
        "E_DATA: data.npz: no array for the model's inputs \"attention_mask\", \"x\"; it holds "
        "\"input_ids\"");
}

TEST_CASE("types are never converted") {
  const Model model = WithInputs("int64[N,2] x");
  CHECK(NpzError(model, {{"x", Tensor::Of<int32_t>({1, 2}, {1, 2})}}) ==
        "E_DATA: data.npz: array \"x\": is int32, but input \"x\" is int64 [N,2]; convert it: "
        "array.astype(\"int64\")");
  CHECK(NpzError(WithInputs("float[N,2] x"), {{"x", Tensor::Of<double>({1, 2}, {1, 2})}})
            .ends_with("array.astype(\"float32\")"));
  CHECK(NpzError(WithInputs("bool[N] x"), {{"x", Tensor::Of<uint8_t>({1}, {1})}})
            .ends_with("array.astype(\"bool\")"));
  CHECK(NpzError(WithInputs("bfloat16[N] x"), {{"x", Counting({1})}})
            .ends_with("NumPy has no bfloat16: give test_data_set_* folders"));
  CHECK(NpzError(WithInputs("string[N] x"), {{"x", Counting({1})}}) ==
        "E_UNSUPPORTED: data.npz: array \"x\": the model's input \"x\" is no tensor of numbers");
}

TEST_CASE("shapes that do not fit show what is expected") {
  CHECK(NpzError(WithInputs("float[N,3,H,W] x"), {{"x", Counting({2, 4, 5, 5})}}) ==
        "E_DATA: data.npz: array \"x\": is [2,4,5,5], but input \"x\" is float [N,3,H,W]: expected "
        "[samples,3,H,W]");
  CHECK(NpzError(WithInputs("float[1,28,28] x"), {{"x", Counting({2, 28})}}) ==
        "E_DATA: data.npz: array \"x\": is [2,28], but input \"x\" is float [1,28,28]: expected "
        "[samples,28,28]; it has 2 axes instead of 3");
  CHECK(NpzError(WithInputs("float x"), {{"x", Counting({})}}) ==
        "E_DATA: data.npz: array \"x\": is [], but input \"x\" is float []: expected [samples]; it "
        "has "
        "0 axes instead of 1");
  CHECK(NpzError(WithInputs("float[N] x, float[N] y"),
                 {{"x", Counting({2})}, {"y", Counting({3})}}) ==
        "E_DATA: data.npz: arrays \"x\" and \"y\" have 2 and 3 samples");
  CHECK(NpzError(WithInputs("float[N] x"), {{"x", Counting({2})}, {"label", Counting({3})}}) ==
        "E_DATA: data.npz: arrays \"x\" and \"label\" have 2 and 3 samples");
  CHECK(NpzError(WithInputs("float[N] x"), {{"x", Counting({0})}}) ==
        "E_DATA: data.npz: array \"x\": holds no samples");
}

TEST_CASE("a symbol with two lengths is a warning") {
  const Dataset data = MakeDataset(WithInputs("float[N,S] x, float[N,S] y"),
                                   {{"x", Counting({2, 3})}, {"y", Counting({2, 4})}});
  REQUIRE(data.warnings.size() == 2);
  CHECK(data.warnings[1] == "dimension \"S\" is 3 in array \"x\" and 4 in array \"y\"");
}

TEST_CASE("values that are not finite are counted") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Model model = WithInputs("float[N,2] x");
  CHECK(NpzError(model, {{"x", Tensor::Of<float>({3, 2}, {0, 1, 2, nan, -inf, 5})}}) ==
        "E_DATA: data.npz: array \"x\": 2 elements are NaN or infinite, the first in sample 1; "
        "remove "
        "or mend these samples");
  CHECK(NpzError(
            WithInputs("float16[N] x"),
            {{"x", Tensor::FromBytes(DType::kFloat16, {1}, std::as_bytes(std::span("\0\x7C", 2)))}})
            .starts_with("E_DATA: data.npz: array \"x\": 1 element is NaN or infinite"));
  CHECK(NpzError(WithInputs("double[N] x"), {{"x", Tensor::Of<double>({1}, {std::nan("")})}})
            .starts_with("E_DATA: data.npz: array \"x\": 1 element is NaN"));
  // Doubles beyond float's range are finite.
  CHECK(NpzError(WithInputs("double[N] x"), {{"x", Tensor::Of<double>({1}, {1e300})}}) ==
        "accepted");
}

TEST_CASE("archives that numpy compressed") {
  // import io, numpy as np; b = io.BytesIO(); np.savez_compressed(
  //   b, x=np.arange(48, dtype=np.float32).reshape(4, 12) / 8, label=np.array([3, 1, 2, 0]))
  // print(b.getvalue().hex())
  constexpr std::string_view kHex =
      "504b03042d0000000800000021003c357475ffffffffffffffff05001400782e6e70790100100040010000"
      "00000000b5000000000000009dc8210f01711cc6f19f669228fedb9fed02269819974c61576c246e9c09c6"
      "edcecc66b60b8220dc4610044110044110042fc14bf012bc045ff30e3cdb273cdf4dbd51b35a1199ca5cf7"
      "1cbfebe982d2c57e4e1b4af7c7dec4b347edb1d773bebd620f7d87ee0f6cd7e1277386ca6453865aa87f17"
      "93df4a22011e90b28882890e028438e082079e78e10d3145a28823018524d2c8c34415169ae86000173304"
      "58628535426cb1c31e071c71c219175c71c3ddfc00504b03042d0000000800000021009fcc4a96ffffffff"
      "ffffffff090014006c6162656c2e6e707901001000a0000000000000004e000000000000009bec17ea1b10"
      "c9c850c650ad9e925a9c5ca46ea5a06e9369a1aea3a09e965f54529498179f5f94920a12774bcc294e058a"
      "17672416a402f91a263a9a3a0ab50a14002e6606086084d24c0ca80000504b01022d032d00000008000000"
      "21003c357475b500000040010000050000000000000000000000800100000000782e6e7079504b01022d03"
      "2d0000000800000021009fcc4a964e000000a00000000900000000000000000000008001ec0000006c6162"
      "656c2e6e7079504b050600000000020002006a000000750100000000";
  std::string bytes;
  for (size_t i = 0; i < kHex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(kHex.substr(i, 2)), nullptr, 16));
  }
  const TempDir dir;
  WriteFile(dir / "data.npz", bytes);
  const Model model = WithInputs("float[N,12] x");
  const Dataset data = Dataset::Load(dir / "data.npz", model);
  const std::vector<int64_t> third = {2};
  CHECK(Feed(data.Gather(third), "x").ToFloats() ==
        std::vector<float>{3, 3.125, 3.25, 3.375, 3.5, 3.625, 3.75, 3.875, 4, 4.125, 4.25, 4.375});
  CHECK(data.labels().ToInts() == std::vector<int64_t>{3, 1, 2, 0});

  // No truncation and no flipped bit is read as something else.
  for (size_t length = 0; length < bytes.size(); length += 7) {
    INFO("first " << length << " bytes");
    WriteFile(dir / "data.npz", bytes.substr(0, length));
    CHECK(ErrorOf([&] { Dataset::Load(dir / "data.npz", model); }).starts_with("E_DATA"));
  }
  for (size_t i = 100; i < 200; ++i) {  // in the packed bytes of x
    INFO("byte " << i);
    std::string flipped = bytes;
    flipped[i] ^= 0x10;
    WriteFile(dir / "data.npz", flipped);
    CHECK(ErrorOf([&] { Dataset::Load(dir / "data.npz", model); }).starts_with("E_DATA"));
  }
}

TEST_CASE("hostile archives") {
  const TempDir dir;
  const Model model = WithInputs("float[N] x");
  const auto error = [&](const std::vector<test::ZipMember>& members) {
    WriteFile(dir / "data.npz", ZipBytes(members));
    return ErrorOf([&] { Dataset::Load(dir / "data.npz", model); });
  };
  const std::string one = NpyBytes(Counting({1}));
  CHECK(error({{"x.npy", one}}) == "accepted");
  CHECK(error({}) == "E_DATA: data.npz: the archive holds no arrays");
  CHECK(error({{"x.npy", one}, {"x.npy", one}}) ==
        "E_DATA: data.npz: array \"x\": is in the archive twice");
  CHECK(error({{"x.txt", one}})
            .starts_with("E_DATA: data.npz: entry \"x.txt\" is not an .npy array"));
  CHECK(error({{"../../x.npy", one}}).find("no input \"../../x\"") != std::string::npos);
  CHECK(error({{"x.npy", one, 0, {}, 0}}).find("cannot be unpacked: CRC error") !=
        std::string::npos);
  CHECK(error({{"x.npy", one, 12}}).find("compression method 12") != std::string::npos);
  CHECK(error({{"x.npy", one, 8}}).starts_with("E_DATA: data.npz: array \"x\""));
  CHECK(error({{"x.npy", one, 8, 0xF0000000u}}).find("bytes unpacked from 132: not possible") !=
        std::string::npos);
  const std::string huge = NpyBytes(
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }", "abcd");
  CHECK(error({{"x.npy", huge}}) ==
        "E_DATA: data.npz: array \"x\": [1152921504606846976] of float need 4611686018427387904 "
        "bytes, the file has 132; the file looks truncated");
}

TEST_CASE("files that are no archive are told apart") {
  const TempDir dir;
  const Model model = WithInputs("float[N] x");
  const auto error = [&](std::string_view bytes) {
    WriteFile(dir / "data.npz", bytes);
    return ErrorOf([&] { Dataset::Load(dir / "data.npz", model); });
  };
  CHECK(error("") == "E_DATA: data.npz: the file is empty");
  CHECK(error("version https://git-lfs.github.com/spec/v1\n").find("a git-lfs pointer") !=
        std::string::npos);
  CHECK(error("<!DOCTYPE html>").find("HTML") != std::string::npos);
  CHECK(error("\x1f\x8b\x08").find("gzip") != std::string::npos);
  CHECK(error("\x80\x04\x95").find("pickle") != std::string::npos);
  CHECK(error(NpyBytes(Counting({1}))).find("put it in a folder") != std::string::npos);
  CHECK(error("1,2,3\n") == "E_DATA: data.npz: not an .npz archive; write it with numpy.savez");
  CHECK(ErrorOf([&] {
          Dataset::Load(dir / "absent.npz", model);
        }).starts_with("E_READ: absent.npz: "));
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK(ErrorOf([&] { Dataset::Load(dir / "pipe", model); }).starts_with("E_READ: pipe: "));
}

TEST_CASE("a folder of .npy files") {
  const TempDir dir;
  const Model model = WithInputs("float[N,2] x");
  CHECK(ErrorOf([&] {
          Dataset::Load(dir.path(), model);
        }).find("holds no .npy files and no test_data_set_* folders") != std::string::npos);
  WriteFile(dir / "x.npy", NpyBytes(Counting({3, 2})));
  WriteFile(dir / "label.npy", NpyBytes(Tensor::Of<int64_t>({3}, {1, 2, 3})));
  WriteFile(dir / "README.txt", "ignored");
  const Dataset data = Dataset::Load(dir.path(), model);
  CHECK(data.size() == 3);
  CHECK(data.labels().ToInts() == std::vector<int64_t>{1, 2, 3});
  WriteFile(dir / "x.npy", NpyBytes(Counting({3, 4})));
  CHECK(ErrorOf([&] { Dataset::Load(dir.path(), model); }) ==
        "E_DATA: x.npy: is [3,4], but input \"x\" is float [N,2]: expected [samples,2]");
}

TEST_CASE("more than 64 GiB are a limit, not an allocation") {
  const TempDir dir;
  const Model model = WithInputs("uint8[N] x");
  const uint64_t elements = uint64_t{65} << 30;
  WriteFile(dir / "x.npy", NpyBytes(fmt::format("{{'descr': '|u1', 'fortran_order': False, "
                                                "'shape': ({},), }}",
                                                elements),
                                    ""));
  // A sparse file: nothing of it lies on the disk.
  const uint64_t header = fs::file_size(dir / "x.npy");
  if (truncate((dir / "x.npy").c_str(), static_cast<off_t>(header + elements)) != 0) {
    WARN("skipped: no sparse files here");
    return;
  }
  CHECK(ErrorOf([&] {
          Dataset::Load(dir.path(), model);
        }).starts_with("E_LIMIT: x.npy: unpacks to 69793218560 bytes"));
}

// A serialized onnx.TensorProto: dims (field 1), data_type (2), raw_data (9).
std::string TensorProtoBytes(const Tensor& tensor) {
  std::string bytes;
  for (const int64_t dim : tensor.dims()) bytes += std::string("\x08") + static_cast<char>(dim);
  bytes += std::string("\x10") + static_cast<char>(tensor.dtype());
  bytes += std::string("\x4A") + static_cast<char>(tensor.bytes().size());
  return bytes.append(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size());
}

TEST_CASE("test_data_set folders: each set is one sample") {
  const TempDir dir;
  const Model model = WithInputs("float[N,2] x, int64 rate");
  for (const int set : {0, 2, 10}) {
    const fs::path folder = dir / ("test_data_set_" + std::to_string(set));
    fs::create_directory(folder);
    // Sets may differ in symbolic axes.
    WriteFile(folder / "input_0.pb", TensorProtoBytes(Counting({set == 2 ? 3 : 1, 2})));
    WriteFile(folder / "input_1.pb", TensorProtoBytes(Tensor::Scalar<int64_t>(set)));
    WriteFile(folder / "output_0.pb", "ignored");
  }
  const Dataset data = Dataset::Load(dir.path(), model);
  CHECK(data.size() == 3);
  CHECK(data.fixed_batch() == 1);
  const std::vector<int64_t> second = {1}, third = {2};
  CHECK(Feed(data.Gather(second), "x").dims() == Dims{3, 2});
  CHECK(Feed(data.Gather(third), "rate").ToInts() == std::vector<int64_t>{10});  // numeric order
  CHECK(Dataset::Load(dir / "test_data_set_2", model).size() == 1);

  const fs::path folder = dir / "test_data_set_2";
  const auto error = [&] { return ErrorOf([&] { Dataset::Load(folder, model); }); };
  WriteFile(folder / "input_0.pb", TensorProtoBytes(Counting({1, 3})));
  CHECK(error() ==
        "E_DATA: test_data_set_2/input_0.pb: is [1,3], but input \"x\" is float [N,2]: expected "
        "[N,2]");
  WriteFile(folder / "input_0.pb", TensorProtoBytes(Counting({1, 2})).substr(0, 9));
  CHECK(
      error().starts_with("E_DATA: test_data_set_2/input_0.pb: not a serialized onnx.TensorProto"));
  std::string short_data = TensorProtoBytes(Counting({1, 2}));
  short_data[1] = 2;  // dims [2,2] over the bytes of two elements
  WriteFile(folder / "input_0.pb", short_data);
  CHECK(error().starts_with("E_TENSOR: test_data_set_2/input_0.pb: "));
  WriteFile(folder / "input_0.pb", "");
  CHECK(error() == "E_DATA: test_data_set_2/input_0.pb: the file is empty");
  fs::remove(folder / "input_1.pb");
  WriteFile(folder / "input_0.pb", TensorProtoBytes(Counting({1, 2})));
  CHECK(error() == "E_DATA: test_data_set_2: 1 inputs, the model has 2");
  WriteFile(folder / "input_2.pb", TensorProtoBytes(Counting({1, 2})));
  CHECK(error() == "E_DATA: test_data_set_2: input_1.pb is missing or given twice");
}

TEST_CASE("splits are disjoint, complete and the same for the same seed") {
  for (const int64_t samples : {3, 4, 5, 10, 64, 512, 1001}) {
    INFO(samples << " samples");
    const Splits splits = MakeSplits(samples, 7);
    std::set<int64_t> all;
    for (const auto* part : {&splits.fit, &splits.select, &splits.audit}) {
      CHECK(!part->empty());
      CHECK(std::is_sorted(part->begin(), part->end()));
      all.insert(part->begin(), part->end());
    }
    CHECK(static_cast<int64_t>(splits.fit.size() + splits.select.size() + splits.audit.size()) ==
          samples);
    CHECK(static_cast<int64_t>(all.size()) == samples);
    CHECK(*all.begin() == 0);
    CHECK(*all.rbegin() == samples - 1);
    CHECK(MakeSplits(samples, 7).fit == splits.fit);
  }
  const Splits splits = MakeSplits(512, 0);
  CHECK(splits.fit.size() == 307);
  CHECK(splits.select.size() == 102);
  CHECK(splits.audit.size() == 103);
  CHECK(MakeSplits(512, 1).fit != splits.fit);
  for (const int64_t samples : {0, 1, 2}) {
    const Splits shared = MakeSplits(samples, 0);
    CHECK(static_cast<int64_t>(shared.fit.size()) == samples);
    CHECK(shared.fit == shared.select);
    CHECK(shared.fit == shared.audit);
  }
}

TEST_CASE("splits take every part of the data alike") {
  // 10,000 samples: each tenth should hold 600 of the fit split, standard deviation 15.
  const Splits splits = MakeSplits(10000, 3);
  for (int64_t tenth = 0; tenth < 10; ++tenth) {
    const auto in_tenth = std::count_if(splits.fit.begin(), splits.fit.end(),
                                        [&](int64_t i) { return i / 1000 == tenth; });
    CHECK(std::abs(in_tenth - 600) < 75);
  }
}

}  // namespace
}  // namespace sparsefuse
