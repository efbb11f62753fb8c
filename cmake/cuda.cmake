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
    find_package(CUDAToolkit 12.3 REQUIRED)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
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
