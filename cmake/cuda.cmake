# The CUDA backend (src/kernels/cuda) is built where nvcc 12.3 or later is found, or refused where it was asked for
# and is not. Nothing else of the program knows of it: runtime/ alone does, through CACHALOT_HAS_CUDA.
set(CACHALOT_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc is found), ON or OFF")
set(CACHALOT_HAS_CUDA OFF)
if(NOT CACHALOT_CUDA STREQUAL "OFF" AND NOT CACHALOT_SANITIZE)
  find_program(CACHALOT_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDACXX PATHS /usr/local/cuda/bin)
  if(CACHALOT_NVCC)
    set(CMAKE_CUDA_COMPILER ${CACHALOT_NVCC})
    set(CMAKE_CUDA_ARCHITECTURES OFF)  # see the flags below: wgmma needs the "a" variant
    set(CMAKE_CUDA_HOST_COMPILER g++)
    enable_language(CUDA)
    # CMake 3.25 does not know that nvcc speaks C++20 where it met a newer one than itself.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    find_package(CUDAToolkit 12.3 REQUIRED)
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
    set(CACHALOT_HAS_CUDA ON)
    if(CACHALOT_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CACHALOT_CCACHE})
    endif()
  elseif(CACHALOT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CACHALOT_CUDA is ON, but there is no nvcc. Install the CUDA toolkit (12.3 or later), put its "
                        "bin folder on PATH, or set CACHALOT_CUDA=OFF")
  endif()
endif()

# src/kernels/cuda as the target cachalot_kernels_cuda; its tests, which skip themselves without a GPU, as cuda_test.
function(cachalot_cuda_module)
  set(dir ${CMAKE_CURRENT_SOURCE_DIR}/kernels/cuda)
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cu ${dir}/*.cc)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cu ${dir}/*_test.cc)
  if(tests)
    list(REMOVE_ITEM sources ${tests})
  endif()
  set(flags -gencode=arch=compute_90a,code=sm_90a --expt-relaxed-constexpr -lineinfo
            -diag-suppress=554  # a conversion of const views that is never called
            -Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off)
  add_library(cachalot_kernels_cuda STATIC ${sources})
  target_include_directories(cachalot_kernels_cuda PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include/cachalot>)
  set_property(GLOBAL APPEND PROPERTY CACHALOT_MODULES cachalot_kernels_cuda)
  target_link_libraries(cachalot_kernels_cuda PUBLIC cachalot_kernels CUDA::cudart_static
                                                     ${CMAKE_DL_LIBS})
  target_compile_definitions(cachalot_kernels_cuda INTERFACE CACHALOT_HAS_CUDA)
  target_compile_options(cachalot_kernels_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${flags}>)
  if(CACHALOT_TESTS AND tests)
    add_executable(cuda_test ${tests})
    target_link_libraries(cuda_test PRIVATE cachalot_kernels_cuda cachalot_kernels_cpu GTest::gtest GTest::gtest_main)
    target_compile_options(cuda_test PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${flags}>)
  endif()
endfunction()
