# Writes a C++ file that holds the kernels' headers:
#   cmake -DOUTPUT=headers.cpp -DROOT=. "-DHEADERS=kernels/cuda/job.h;…" -P kernels/cuda/embed.cmake

set(entries "")
set(all "")
foreach(header IN LISTS HEADERS)
  file(READ "${ROOT}/${header}" text)
  string(APPEND all "${text}")
  string(APPEND entries "      {\"${header}\", R\"cuda(${text})cuda\"},\n")
endforeach()
string(SHA256 digest "${all}")
string(SUBSTRING "${digest}" 0 16 digest)
file(WRITE "${OUTPUT}" "// Made from the kernels' headers by kernels/cuda/embed.cmake.
#include \"kernels/cuda/headers.h\"

namespace sparsefuse::cuda {

std::span<const Header> Headers() {
  static constexpr Header headers[] = {
${entries}  };
  return headers;
}

std::string_view HeadersDigest() { return \"${digest}\"; }

}  // namespace sparsefuse::cuda
")
