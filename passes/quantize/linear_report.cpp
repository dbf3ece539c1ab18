#include "passes/quantize/linear_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace sparsefuse {
namespace {

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string ScalesText(const CodedWeight& coded, const StoredBytes& bytes) {
  const std::string count = coded.source == ScaleSource::kClusters
                                ? fmt::format("{} fusion clusters", coded.scales.ClusterCount())
                                : std::string(ScaleSourceName(coded.source));
  return fmt::format(
      "{}, scales {:.2f} % of its bytes", count,
      Percent(static_cast<double>(bytes.scales), static_cast<double>(bytes.weights)));
}

std::string FeedbackText(const QuantizedLayer& quantized) {
  if (quantized.coded.feedback) return "error feedback";
  if (!quantized.no_feedback.empty()) {
    return fmt::format("no error feedback: {}", quantized.no_feedback);
  }
  return "error feedback gained nothing";
}

}  // namespace

std::string_view EncodingText(Encoding encoding) {
  switch (encoding) {
    case Encoding::kInt8:
      return "int8";
    case Encoding::kInt4:
      return "int4";
    case Encoding::kNested1:
      return "nested1";
    case Encoding::kNested4:
      return "nested4";
  }
  return "?";
}

void StoredBytes::Add(const StoredBytes& other) {
  weights += other.weights;
  scales += other.scales;
  index += other.index;
  parameters += other.parameters;
}

std::string Describe(const LayerReport& report) {
  const CodedWeight& coded = report.quantized->coded;
  std::string text =
      fmt::format("{} linear {}→{} ({})", EncodingText(coded.encoding), report.layer->inputs,
                  report.layer->outputs, Describe(*report.choice));
  if (!report.int8_reason.empty()) text += fmt::format(", in 8 bits: {}", report.int8_reason);
  if (report.choice->sparse) {
    text += fmt::format(", {:.0f} % of its blocks stored", 100 * report.stored_quads);
  }
  text += ", " + ScalesText(coded, report.bytes);
  text += ", " + FeedbackText(*report.quantized);
  if (report.quantized->alpha > 0)
    text += fmt::format(", smoothed (α {})", report.quantized->alpha);
  if (!report.quantized->has_data) {
    text += ", searched without data";
  } else if (coded.plain_error > 0) {
    text += fmt::format(", block error {:.0f} % of plain rounding's",
                        Percent(coded.error, coded.plain_error));
  }
  if (IsNested(coded.encoding) && coded.error > 0) {
    text += fmt::format(", {:.0f} times that in the 4-bit reading", coded.error_high / coded.error);
  }
  if (report.zero_inputs >= kFewestZeroInputs) {
    text += fmt::format(", {:.0f} % of its inputs' codes are 0", 100 * report.zero_inputs);
  }
  if (const FittedGate& gate = report.quantized->gate; !gate.gate.empty()) {
    text += fmt::format(
        ", gate by {} (R² {:.2f})",
        gate.sketch_rows > 0 ? fmt::format("a sketch of {}", gate.sketch_rows) : std::string("‖x‖"),
        gate.r_squared);
  }
  return text;
}

Finding Totals(const StoredBytes& bytes) {
  const auto all = static_cast<double>(bytes.weights + bytes.scales + bytes.index);
  const auto parameters = static_cast<double>(std::max<int64_t>(1, bytes.parameters));
  std::string text = fmt::format(
      "linear weights: {:.2f} bits each, {:.3f} of fp32's bytes, scales "
      "{} bytes ({:.2f} %)",
      8 * all / parameters, all / (4 * parameters), bytes.scales,
      Percent(static_cast<double>(bytes.scales), static_cast<double>(bytes.weights)));
  if (bytes.index > 0) text += fmt::format(", block index {} bytes", bytes.index);
  return {.subject = "model", .op = "", .action = std::move(text), .reason = ""};
}

}  // namespace sparsefuse
