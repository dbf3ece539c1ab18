// write_functions OPSET FILE: a model without nodes that holds the functions of all linear
// operators, for the Python judges.

#include <cstdlib>
#include <exception>
#include <iostream>

#include "onnx_io/writer.h"
#include "passes/lower/linear_body.h"

int main(int count, char** arguments) {
  using namespace sparsefuse;
  if (count != 3) {
    std::cerr << "usage: write_functions OPSET FILE\n";
    return 2;
  }
  try {
    Model model;
    model.opset_imports[""] = std::atoi(arguments[1]);
    for (const bool sparse : {false, true}) {
      for (const Encoding encoding :
           {Encoding::kInt8, Encoding::kInt4, Encoding::kNested1, Encoding::kNested4}) {
        for (const Activation activation : kActivations) {
          AddLinearFunction(model, {encoding, sparse, activation});
        }
      }
    }
    WriteModel(model, arguments[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
