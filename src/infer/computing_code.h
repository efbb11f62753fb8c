// The name of the code that computes: another one whenever it might give a row of the latent cache
// other bits. Rows outlive the program (prefix_store.h); those of a build whose kernels rounded
// otherwise would make a token's bits depend on where its prompt was found.
//
// It is a hash of all sources of a pass, of the compiler and of its flags, taken when building
// (cmake/computing_code.cmake), beside the version of the C library, whose exp and cos are in the
// reference kernels and the rope's angles. So equal sources find what an equal build stored,
// wherever it was built, and an edit of a command or of the engine costs nothing. One of a comment
// in a kernel costs what was stored: nothing can tell it from one that matters. Not taken were:
//   the linker's build id: another one with any edit, and for each program of one build;
//   the commit: knows neither edits nor compilers, and changes with the documentation;
//   a version kept by hand: forgotten just where bits changed that were not meant to.
// infer/ is not among the sources: it decides which rows are read together, and by that rule no bit
// of a row depends on it. Of a GPU neither its libraries nor its kind are: there a row's bits
// depend on the number of rows of a pass (docs/inference.md), so the promise is not given.
//
// Threads: any.
// Errors:  none.
#pragma once

#include <string>
#include <string_view>

namespace cachalot::infer {

std::string_view sources_fingerprint() noexcept;  // 32 hexadecimal digits; made by the build
std::string computing_code();                     // with the C library

}  // namespace cachalot::infer
