# Warnings are errors. -ffp-contract=off: a product and a sum are fused only where the code says so,
# so that a result does not depend on what an optimiser felt like. No -m flags: see kernels/cpu.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-ffp-contract=off>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False positives of GCC 12 on std::string and std::vector at -O2 (GCC bugs 105329, 105651).
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-stringop-overflow;-Wno-array-bounds>")
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")
if(CACHALOT_SANITIZE)
  # -O1 -g1: builds in half the time of -O2 -g, and a report still names files and lines.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
  add_compile_options(-fsanitize=${CACHALOT_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${CACHALOT_SANITIZE})
endif()
find_program(CACHALOT_CCACHE ccache)
if(CACHALOT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CACHALOT_CCACHE})
endif()
