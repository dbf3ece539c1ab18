#include "passes/statistics/store.h"

#include <chrono>

#include "tests/support/catch.h"
#include "tests/support/support.h"
#include "tests/unit/analysis/graphs.h"
#include "tests/unit/statistics/naive.h"

namespace sparsefuse {
namespace {

namespace fs = std::filesystem;

Model SmallModel() {
  return test::ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[n,3] x) => (float[n,300] y) <float[3,300] w = ?> { y = MatMul(x, w) })");
}

struct Fixture {
  test::TempDir folder;
  Model model = SmallModel();
  Batches batches = {{{"x", test::RandomTensor({4, 3}, 1)}},
                     {{"x", test::RandomTensor({2, 3}, 2)}}};
  Context context;

  Fixture() { context.cache_folder = folder.path() / "cache"; }
  StatisticsStore Store() const { return {model, batches, context}; }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(context.cache_folder / "statistics")) {
      files.push_back(entry.path());
    }
    return files;
  }
};

Matrices Some() {
  const Eigen::MatrixXd rows = test::RandomMatrix(5, 7, 3);
  return {rows, rows.transpose() * rows, Eigen::MatrixXd(0, 4), Eigen::MatrixXd::Constant(1, 1, 2)};
}

TEST_CASE("what is kept is found, to the bit, by a store of the same model and data") {
  const Fixture fixture;
  StatisticsStore first = fixture.Store();
  CHECK(!first.Find("moments"));
  first.Keep("moments", Some());
  StatisticsStore second = fixture.Store();
  const std::optional<Matrices> found = second.Find("moments");
  REQUIRE(found);
  CHECK(*found == Some());
  CHECK(!second.Find("other moments"));
  CHECK(first.notes().empty());
  CHECK(second.notes().empty());
  CHECK(fixture.Files().size() == 1);  // no temporary is left
}

TEST_CASE("symmetric matrices take half the room") {
  const Fixture fixture;
  StatisticsStore store = fixture.Store();
  const Eigen::MatrixXd rows = test::RandomMatrix(60, 60, 3);
  const Eigen::MatrixXd gram = rows.transpose() * rows;
  store.Keep("a", {(gram + gram.transpose()) / 2});
  CHECK(fs::file_size(fixture.Files()[0]) < 60 * 61 / 2 * 8 + 300);
}

TEST_CASE("another model or other data has statistics of its own") {
  Fixture fixture;
  fixture.Store().Keep("moments", Some());
  Fixture other;
  other.context = fixture.context;
  CHECK(other.Store().Find("moments"));
  // A weight that is left out of the serialised graph.
  std::vector<float> weight = other.model.graph().FindValue("w")->initializer()->ToFloats();
  weight[17] += 1;
  other.model.graph().FindValue("w")->set_initializer(Tensor::Of<float>({3, 300}, weight));
  CHECK(!other.Store().Find("moments"));
  Fixture later;
  later.context = fixture.context;
  later.batches[1][0].second = test::RandomTensor({2, 3}, 3);
  CHECK(!later.Store().Find("moments"));
}

TEST_CASE("files that are damaged or foreign are ignored with a note") {
  const Fixture fixture;
  StatisticsStore store = fixture.Store();
  store.Keep("moments", Some());
  const fs::path file = fixture.Files()[0];
  const std::string good = test::ReadFile(file);
  const auto check = [&](const std::string& bytes) {
    test::WriteFile(file, bytes);
    StatisticsStore again = fixture.Store();
    CHECK(!again.Find("moments"));
    REQUIRE(again.notes().size() == 1);
    CHECK(again.notes()[0].find(file.string()) == 0);
  };
  for (size_t at = 0; at < good.size(); at += 7) {
    INFO(at);
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x40);
    check(flipped);
    check(good.substr(0, at));
  }
  check(good + "x");
  // Of another key under this name.
  store.Keep("others", Some());
  for (const fs::path& path : fixture.Files()) {
    if (path != file) check(test::ReadFile(path));
  }
  test::WriteFile(file, good);
  CHECK(fixture.Store().Find("moments"));
  fs::remove(file);
  fs::create_directory(file);
  StatisticsStore again = fixture.Store();
  CHECK(!again.Find("moments"));
  CHECK(again.notes().size() == 1);
}

TEST_CASE("when too much is kept the oldest goes") {
  const Fixture fixture;
  const fs::path folder = fixture.context.cache_folder / "statistics";
  fs::create_directories(folder);
  const auto now = fs::file_time_type::clock::now();
  int age = 0;
  for (const char* name : {"young.stats", "old.stats", "another.kind"}) {
    test::WriteFile(folder / name, "");
    fs::resize_file(folder / name, uintmax_t{5} << 29);  // 2.5 GiB, sparse
    fs::last_write_time(folder / name, now - std::chrono::hours(++age));
  }
  StatisticsStore store = fixture.Store();
  store.Keep("moments", Some());
  CHECK(fs::exists(folder / "young.stats"));
  CHECK(!fs::exists(folder / "old.stats"));
  CHECK(fs::exists(folder / "another.kind"));
  CHECK(store.Find("moments"));
}

TEST_CASE("without a folder nothing is kept, and where none can be made it is noted") {
  Fixture fixture;
  fixture.context.cache_folder.clear();
  StatisticsStore none = fixture.Store();
  none.Keep("moments", Some());
  CHECK(!none.Find("moments"));
  CHECK(none.notes().empty());
  test::WriteFile(fixture.folder / "file", "");
  fixture.context.cache_folder = fixture.folder / "file";
  StatisticsStore store = fixture.Store();
  store.Keep("moments", Some());
  CHECK(store.notes().size() == 1);
  CHECK(!store.Find("moments"));
}

TEST_CASE("rows from the store are those that were computed") {
  const Fixture fixture;
  const RowRequest requests[] = {{{"x"}}, {{"y"}, false}};
  StatisticsStore first = fixture.Store(), second = fixture.Store();
  const auto collect = [&](StatisticsStore& store, const Model& model) {
    return store.Rows("all", model, requests, fixture.batches, {}, fixture.context);
  };
  const std::vector<RowStatistics> computed = collect(first, fixture.model);
  // A model that yields something else shows that nothing is computed the second time.
  const Model other = test::ParseGraph(R"(<ir_version: 8, opset_import: ["" : 17]>
      g (float[n,3] x) => (float[n,3] y) { y = Neg(x) })");
  const std::vector<RowStatistics> found = collect(second, other);
  REQUIRE(found.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(found[i].count == computed[i].count);
    CHECK(found[i].mean == computed[i].mean);
    CHECK(found[i].squares == computed[i].squares);
    CHECK(found[i].gram == computed[i].gram);
  }
  CHECK(found[0].gram.rows() == 3);
  CHECK(found[1].gram.size() == 0);
  // Other wishes are other statistics.
  const RowRequest both[] = {{{"x"}}, {{"y"}}};
  CHECK(second.Rows("all", fixture.model, both, fixture.batches, {}, fixture.context)[1]
            .gram.rows() == 300);
}

}  // namespace
}  // namespace sparsefuse
