# MPI (Open MPI) behind src/comm: found, or refused where it was asked for and is not. Nothing else knows of it; without
# it a process is alone. Not under sanitizers: what the library leaves behind is not ours.
set(CACHALOT_MPI AUTO CACHE STRING "Build with MPI: AUTO (where Open MPI is found), ON or OFF")
set(CACHALOT_HAS_MPI OFF)
if(NOT CACHALOT_MPI STREQUAL "OFF" AND NOT CACHALOT_SANITIZE)
  pkg_check_modules(ompi IMPORTED_TARGET ompi-c)
  if(ompi_FOUND)
    set(CACHALOT_HAS_MPI ON)
  elseif(CACHALOT_MPI STREQUAL "ON")
    message(FATAL_ERROR "CACHALOT_MPI is ON, but Open MPI is not found. On Debian: apt-get install libopenmpi-dev "
                        "openmpi-bin, or set CACHALOT_MPI=OFF")
  endif()
endif()

# src/comm: the world of ranks by MPI, or none.
function(cachalot_comm_module)
  cachalot_module(NAME comm DEPS base tensor LIBS ${CMAKE_DL_LIBS} TEST_DEPS runtime testing)
  if(CACHALOT_TESTS)
    add_library(fake_nccl MODULE comm/fake/fake_nccl.cc)
    target_compile_definitions(comm_test PRIVATE CACHALOT_FAKE_NCCL="$<TARGET_FILE:fake_nccl>")
    add_dependencies(comm_test fake_nccl)
  endif()
  if(CACHALOT_HAS_MPI)
    target_sources(cachalot_comm PRIVATE comm/mpi/world_mpi.cc comm/mpi/collectives_mpi.cc)
    target_compile_definitions(cachalot_comm PRIVATE OMPI_SKIP_MPICXX)  # C++ bindings that MPI 3 has dropped
    target_link_libraries(cachalot_comm PUBLIC PkgConfig::ompi)
  else()
    target_sources(cachalot_comm PRIVATE comm/none/world_none.cc)
  endif()
endfunction()
