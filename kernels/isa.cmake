# Instruction set of a kernel file, by its name → flags. Only these files are compiled with more than the
# baseline (x86-64, or armv8), and they include only headers whose functions are static or
# templates on an ISA tag, so that no shared inline function carries their instructions elsewhere.

function(sparsefuse_set_isa_flags)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  # These checks more than double the time that vector code takes to compile. What is read or written
  # beyond an array, AddressSanitizer and the forbidden pages of tests/kernels still find.
  set(unchecked "")
  if(SPARSEFUSE_SANITIZE)
    set(unchecked -fno-sanitize=null,alignment,object-size,pointer-overflow)
  endif()
  set(flags_avx2 -mavx2 -mfma -mf16c ${unchecked})
  set(flags_avx512vnni -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma ${unchecked})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # gcc 12 takes the undefined vectors in its own AVX-512 header for mistakes.
    list(APPEND flags_avx512vnni -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  # Nothing throws there; the flag keeps Clang's shared handler for what does out of the object.
  set(flags_amx ${flags_avx512vnni} -mamx-tile -mamx-int8 -fno-exceptions)
  foreach(isa avx2 avx512vnni amx)
    file(GLOB sources "${CMAKE_SOURCE_DIR}/kernels/linear/*${isa}.cpp")
    if(sources)
      set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "${flags_${isa}}")
    endif()
  endforeach()
endfunction()
