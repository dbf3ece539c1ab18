# Writes a C++ file that holds the presets:
#   cmake -DOUTPUT=presets.cpp "-DPRESETS=a.json;b.json" -P configs/embed.cmake

set(entries "")
foreach(file IN LISTS PRESETS)
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" text)
  string(APPEND entries "      {\"${name}\", R\"json(${text})json\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "// Made from configs/*.json by configs/embed.cmake.
#include \"passes/framework/config.h\"

namespace sparsefuse {

const std::vector<Preset>& Presets() {
  static const std::vector<Preset> presets = {
${entries}  };
  return presets;
}

}  // namespace sparsefuse
")
