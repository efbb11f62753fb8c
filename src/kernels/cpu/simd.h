// Intrinsics, and the regions in which code may use them.
//
// Every include of a kernel file comes before its region, so only its own code is compiled for the
// level: with a per-file -m flag a shared inline function of some header could be emitted with
// AVX-512 and then be the copy the whole program runs.
//
//   #include "kernels/cpu/simd.h"
//   CACHALOT_BEGIN_TARGET(CACHALOT_AVX512)
//   namespace cachalot::cpu::avx512 { ... }
//   CACHALOT_END_TARGET
//
// With CACHALOT_PORTABLE, and on other machines than x86-64, there are only the definitions.
//
// No constants of vector type at namespace scope: their initialisation would run at load, on any
// machine.
#pragma once

#if defined(__x86_64__) && !defined(CACHALOT_PORTABLE)
#define CACHALOT_X86 1

// GCC 12 warns of its own headers (GCC bug 105593: the undefined start values of some intrinsics).
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#define CACHALOT_AVX2 "avx2,fma,f16c,bmi,bmi2"
#define CACHALOT_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2"
#define CACHALOT_AVX512BF16 "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2"

#define CACHALOT_AVX512LOWBIT \
  "avx512vbmi,avx512vnni,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2"

#define CACHALOT_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CACHALOT_BEGIN_TARGET(features) \
  CACHALOT_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define CACHALOT_END_TARGET CACHALOT_PRAGMA(clang attribute pop)
#else
#define CACHALOT_BEGIN_TARGET(features) \
  CACHALOT_PRAGMA(GCC push_options)     \
  CACHALOT_PRAGMA(GCC target(features))
#define CACHALOT_END_TARGET CACHALOT_PRAGMA(GCC pop_options)
#endif

// Unrolls the loop that follows, whose count is a constant: its arrays then live in registers.
#if defined(__clang__)
#define CACHALOT_UNROLL CACHALOT_PRAGMA(unroll)
#else
#define CACHALOT_UNROLL CACHALOT_PRAGMA(GCC unroll 64)
#endif

#endif  // __x86_64__
