#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>

#include "testing/fixtures.h"

namespace cachalot::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_all(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
}

// A file of this header and so many zero bytes of data.
std::string file_of(std::string_view header, std::size_t data_bytes) {
  std::string file;
  for (unsigned i = 0; i < 8; ++i) {
    file += static_cast<char>((std::uint64_t{header.size()} >> (8 * i)) & 0xFF);
  }
  return file + std::string(header) + std::string(data_bytes, '\0');
}

auto parse(std::string_view bytes, std::map<std::string, std::string>* metadata = nullptr) {
  return parse_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.safetensors",
                      metadata);
}

// The text of the Error that `run` throws; fails the test where it throws none or another code.
template <class Run>
std::string error_of(Code code, Run run) {
  try {
    run();
  } catch (const Error& e) {
    EXPECT_EQ(name(e.code()), name(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(SafetensorsHeader, ReadsTensorsAndMetadata) {
  std::map<std::string, std::string> metadata;
  const std::string file =
      file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],)"
              R"("data_offsets":[2,26]},"a":{"shape":[],"data_offsets":[0,2],"dtype":"BF16"},)"
              R"("empty":{"dtype":"F64","shape":[5,0,2],"data_offsets":[26,26]}}   )",
              26);
  const auto tensors = parse(file, &metadata);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(metadata.at("format"), "pt");
  EXPECT_EQ(tensors.at("a").size(), 1);
  EXPECT_EQ(tensors.at("b").shape, (Shape{2, 3}));
  EXPECT_EQ(tensors.at("b").bytes, 24u);
  EXPECT_EQ(static_cast<const char*>(tensors.at("b").data), file.data() + file.size() - 24);
  EXPECT_EQ(tensors.at("empty").size(), 0);
  EXPECT_TRUE(tensors.at("empty").to_floats().empty());
}

TEST(SafetensorsHeader, NoTensorsIsAFile) { EXPECT_TRUE(parse(file_of("{}", 0)).empty()); }

struct BadHeader {
  const char* name;
  std::string bytes;
  const char* says;
};

std::string one(std::string_view fields, std::size_t data_bytes = 4) {
  return file_of(cat("{\"w\":{", fields, "}}"), data_bytes);
}

std::vector<BadHeader> bad_headers() {
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  std::string endless = file_of("{}", 0);
  for (int i = 0; i < 8; ++i) endless[static_cast<std::size_t>(i)] = '\xFF';
  std::string wraps = file_of("{}", 0);  // 8 + length passes 2^64
  wraps[0] = '\xF8';
  for (int i = 1; i < 8; ++i) wraps[static_cast<std::size_t>(i)] = '\xFF';
  std::string one_more = file_of("{}", 0);
  one_more[0] = 3;
  return {
      {"empty", "", "it has 0 bytes"},
      {"seven_bytes", std::string(7, '\0'), "it has 7 bytes"},
      {"no_header", std::string(8, '\0'), "not JSON"},
      {"absurd_length", endless, "said to have 18446744073709551615 bytes"},
      {"wrapping_length", wraps, "said to have 18446744073709551608 bytes"},
      {"length_past_end", one_more, "said to have 3 bytes, but the file has 10"},
      {"not_json", file_of("{\"w\":", 0), "not JSON"},
      {"after_json", file_of("{} x", 0), "not JSON"},
      {"not_utf8", file_of("{\"\xFF\":1}", 0), "not JSON"},
      {"list", file_of("[]", 0), "not a JSON object"},
      {"deep", file_of("{\"w\":" + std::string(5000, '['), 0), "not JSON"},
      {"entry_no_object", file_of(R"({"w":3})", 0), "tensor 'w' is not an object"},
      {"no_dtype", one(R"("shape":[1],"data_offsets":[0,4])"), "lacks dtype"},
      {"no_shape", one(R"("dtype":"F32","data_offsets":[0,4])"), "lacks shape"},
      {"no_offsets", one(R"("dtype":"F32","shape":[1])"), "lacks data_offsets"},
      {"unknown_field", one(good + R"(,"sparse":true)"), "unknown field 'sparse'"},
      {"field_twice", one(good + R"(,"dtype":"F32")"), "has 'dtype' twice"},
      {"unknown_dtype", one(R"("dtype":"F4","shape":[1],"data_offsets":[0,4])"),
       "tensor 'w' has dtype \"F4\"; known are F64"},
      {"dtype_number", one(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"), "has dtype 1"},
      {"shape_number", one(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "not a list"},
      {"negative", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "impossible shape"},
      {"fraction", one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "impossible shape"},
      {"huge", one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"),
       "impossible shape"},
      {"product", one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0),
       "impossible shape"},
      {"product_zero",
       one(R"("dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0])", 0),
       "impossible shape"},
      // 2^61 elements of 8 bytes: the byte count passes 2^64 and would wrap to 0.
      {"bytes_wrap", one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])", 0),
       "data_offsets hold 0"},
      {"rank",
       one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"),
       "more than 16 dimensions"},
      {"one_offset", one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "two whole numbers"},
      {"three_offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"),
       "two whole numbers"},
      {"negative_offset", one(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"),
       "two whole numbers"},
      {"backwards", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "before its begin"},
      {"past_end", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"),
       "tensor 'w' ends at byte 8 of the data, but the file holds 4"},
      {"wrong_bytes", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       "tensor 'w' is F32 [2] = 8 bytes, but its data_offsets hold 4"},
      {"twice", file_of(cat("{\"w\":{", good, "},\"w\":{", good, "}}"), 4), "'w' is there twice"},
      // The same name, once escaped.
      {"twice_escaped", file_of(cat("{\"w\":{", good, "},\"\\u0077\":{", good, "}}"), 4),
       "'w' is there twice"},
      {"overlap",
       file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
               R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
               12),
       "tensor 'b' begins at byte 4 inside tensor 'a', which ends at 8"},
      {"same_range", file_of(cat("{\"a\":{", good, "},\"b\":{", good, "}}"), 4),
       "begins at byte 0"},
      {"hole",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
               4),
       "2 bytes before tensor 'b' belong to no tensor"},
      {"hole_at_begin", one(R"("dtype":"U8","shape":[1],"data_offsets":[3,4])"), "3 bytes before"},
      {"rest", one(good, 9), "5 bytes after the last tensor"},
      {"metadata_twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0),
       "__metadata__ twice"},
      {"metadata_key_twice", file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
       "'a' is there twice"},
      {"metadata_number", file_of(R"({"__metadata__":{"a":1}})", 0), "'a' is not a string"},
      {"metadata_list", file_of(R"({"__metadata__":[]})", 0), "not a JSON object"},
  };
}

TEST(SafetensorsHeader, RefusesWhatLies) {
  for (const BadHeader& bad : bad_headers()) {
    SCOPED_TRACE(bad.name);
    const std::string text = error_of(Code::kFormat, [&] { parse(bad.bytes); });
    EXPECT_THAT(text, HasSubstr(bad.says));
    EXPECT_THAT(text, HasSubstr("x.safetensors"));
  }
}

TEST(SafetensorsHeader, EveryPrefixOfAFileIsRefused) {
  const std::string whole = one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])");
  parse(whole);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    error_of(Code::kFormat, [&] { parse(std::string_view(whole).substr(0, n)); });
  }
}

// --- conversions

template <class T>
TensorView view_of(DType dtype, const std::vector<T>& values) {
  return {dtype,
          {static_cast<std::int64_t>(values.size())},
          values.data(),
          values.size() * sizeof(T),
          "x"};
}

TEST(TensorViewConversion, F16EveryBitPattern) {
  std::vector<std::uint16_t> codes(65536);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
  const auto floats = view_of(DType::kF16, codes).to_floats();
  const auto doubles = view_of(DType::kF16, codes).to_doubles();
  for (unsigned i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>((i >> 10) & 31), fraction = static_cast<int>(i & 1023);
    double want =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) want = fraction == 0 ? HUGE_VAL : NAN;
    if (i & 0x8000) want = -want;
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(floats[i]) && std::isnan(doubles[i])) << i;
    } else {
      ASSERT_EQ(doubles[i], want) << i;
      ASSERT_EQ(floats[i], want) << i;
      ASSERT_EQ(std::signbit(floats[i]), (i & 0x8000) != 0) << i;
    }
  }
}

TEST(TensorViewConversion, F8EveryBitPattern) {
  std::vector<std::uint8_t> codes(256);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
  const auto e4m3 = view_of(DType::kF8E4M3, codes).to_floats();
  const auto e5m2 = view_of(DType::kF8E5M2, codes).to_floats();
  for (int i = 0; i < 256; ++i) {
    const double sign = i & 0x80 ? -1 : 1;
    const int e4 = (i >> 3) & 15, f3 = i & 7, e5 = (i >> 2) & 31, f2 = i & 3;
    const auto at = static_cast<std::size_t>(i);
    if (e4 == 15 && f3 == 7) {
      EXPECT_TRUE(std::isnan(e4m3[at]));
    } else {
      EXPECT_EQ(e4m3[at], sign * (e4 == 0 ? std::ldexp(f3, -9) : std::ldexp(8 + f3, e4 - 10)));
      EXPECT_EQ(std::signbit(e4m3[at]), i >= 128);
    }
    if (e5 == 31) {
      EXPECT_TRUE(f2 == 0 ? e5m2[at] == sign * HUGE_VAL : std::isnan(e5m2[at]));
    } else {
      EXPECT_EQ(e5m2[at], sign * (e5 == 0 ? std::ldexp(f2, -16) : std::ldexp(4 + f2, e5 - 17)));
    }
  }
  EXPECT_EQ(e4m3[0x7E], 448.0f);
}

TEST(TensorViewConversion, RealsAndIntegers) {
  EXPECT_EQ(view_of(DType::kF64, std::vector<double>{0.1, -0.0}).to_doubles()[0], 0.1);
  EXPECT_EQ(view_of(DType::kF64, std::vector<double>{0.1}).to_floats()[0], 0.1f);
  EXPECT_EQ(view_of(DType::kF32, std::vector<float>{0.1f}).to_doubles()[0], double{0.1f});
  EXPECT_EQ(view_of(DType::kBF16, std::vector<std::uint16_t>{0xBF80}).to_floats()[0], -1.0f);
  using Ints = std::vector<std::int64_t>;
  EXPECT_EQ(view_of(DType::kI64, Ints{-1, 1ll << 40}).to_ints(), (Ints{-1, 1ll << 40}));
  EXPECT_EQ(view_of(DType::kI32, std::vector<std::int32_t>{-7}).to_ints(), Ints{-7});
  EXPECT_EQ(view_of(DType::kI16, std::vector<std::int16_t>{-7}).to_ints(), Ints{-7});
  EXPECT_EQ(view_of(DType::kI8, std::vector<std::int8_t>{-7}).to_ints(), Ints{-7});
  EXPECT_EQ(view_of(DType::kU8, std::vector<std::uint8_t>{200}).to_ints(), Ints{200});
  EXPECT_EQ(view_of(DType::kBool, std::vector<std::uint8_t>{1, 0}).to_ints(), (Ints{1, 0}));
  error_of(Code::kUnsupported, [] { view_of(DType::kI64, Ints{1}).to_floats(); });
  error_of(Code::kUnsupported, [] { view_of(DType::kF32, std::vector<float>{1}).to_ints(); });
}

TEST(TensorViewConversion, AsAMatrix) {
  const char byte = 0;
  const auto shaped = [&](Shape shape) {
    return TensorView{DType::kU8, std::move(shape), &byte, 0, "x"};
  };
  EXPECT_EQ(shaped({}).ref().rows, 1);
  EXPECT_EQ(shaped({}).ref().cols, 1);
  EXPECT_EQ(shaped({5}).ref().rows, 1);
  EXPECT_EQ(shaped({2, 3, 5}).ref().rows, 6);
  EXPECT_EQ(shaped({2, 3, 5}).ref().stride, 5);
  EXPECT_EQ(shaped({0, 5}).ref().rows, 0);
  error_of(Code::kShape, [&] { shaped({1ll << 16, 1ll << 15, 1}).ref(); });
  error_of(Code::kShape, [&] { shaped({1ll << 31}).ref(); });
  error_of(Code::kShape, [&] { shaped({1ll << 62, 1ll << 62, 0}).ref(); });
}

// --- files and folders

class SafetensorsFile : public ::testing::Test {
 protected:
  ::cachalot::testing::TempDir temp_;
  fs::path dir_ = temp_.path();
  std::vector<float> a_{1, 2, 3, 4, 5, 6};
  std::vector<std::uint16_t> b_{0x3F80, 0x4000};
  std::vector<std::int64_t> c_{7, 8, 9};
  std::vector<TensorToWrite> tensors_{{"b", DType::kBF16, {2}, b_.data()},
                                      {"a", DType::kF32, {2, 3}, a_.data()},
                                      {"c", DType::kI64, {3}, c_.data()},
                                      {"none", DType::kF32, {0, 4}, nullptr},
                                      {"gr\xC3\xBC\xC3\x9F\"e\n", DType::kI64, {}, c_.data()}};

  void expect_tensors(const Safetensors& file) const {
    ASSERT_EQ(file.tensors().size(), tensors_.size());
    for (const TensorToWrite& t : tensors_) {
      const TensorView& view = file.at(t.name);
      EXPECT_EQ(view.dtype, t.dtype);
      EXPECT_EQ(view.shape, t.shape);
      EXPECT_EQ(view.bytes, static_cast<std::size_t>(count(t.shape)) * size_of(t.dtype));
      EXPECT_EQ(std::memcmp(view.data, t.data == nullptr ? "" : t.data, view.bytes), 0) << t.name;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data) % size_of(t.dtype), 0u) << t.name;
    }
  }
};

TEST_F(SafetensorsFile, RoundTrip) {
  write_safetensors(dir_ / "x.safetensors", tensors_, {{"format", "pt"}, {"q\"", "\\"}});
  Safetensors file = Safetensors::open(dir_ / "x.safetensors");
  expect_tensors(file);
  EXPECT_EQ(file.metadata().at("q\""), "\\");
  EXPECT_EQ(file.file_bytes(), fs::file_size(dir_ / "x.safetensors"));
  // The first tensor of the file begins at a multiple of 64; the largest elements come first.
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("c").data) % 64, 0u);
  const Safetensors moved = std::move(file);
  expect_tensors(moved);
}

TEST_F(SafetensorsFile, DataBeginsAt64ForEveryHeaderLength) {
  for (std::size_t n = 0; n < 70; ++n) {
    const TensorToWrite t{std::string(n, 'n'), DType::kI64, {3}, c_.data()};
    write_safetensors(dir_ / "x.safetensors", {&t, 1});
    const std::string bytes = read_all(dir_ / "x.safetensors");
    EXPECT_EQ((bytes.size() - 24) % 64, 0u);
    EXPECT_EQ(parse(bytes).at(t.name).to_ints(), c_);
  }
}

TEST_F(SafetensorsFile, WritesOverAWholeFileOnly) {
  write_safetensors(dir_ / "x.safetensors", tensors_);
  const Safetensors old = Safetensors::open(dir_ / "x.safetensors");
  const float other = 5;
  const TensorToWrite t{"other", DType::kF32, {}, &other};
  write_safetensors(dir_ / "x.safetensors", {&t, 1});
  expect_tensors(old);  // the mapping keeps the old file
  EXPECT_EQ(Safetensors::open(dir_ / "x.safetensors").at("other").to_floats()[0], 5.0f);
}

TEST_F(SafetensorsFile, RefusesToWriteNonsense) {
  const fs::path path = dir_ / "x.safetensors";
  std::vector<TensorToWrite> twice{tensors_[0], tensors_[0]};
  error_of(Code::kInternal, [&] { write_safetensors(path, twice); });
  twice[1].name = "__metadata__";
  error_of(Code::kInternal, [&] { write_safetensors(path, twice); });
  twice[1].name = "\xFF";
  error_of(Code::kFormat, [&] { write_safetensors(path, twice); });
  error_of(Code::kIo, [&] { write_safetensors(dir_ / "no" / "x.safetensors", tensors_); });
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(SafetensorsFile, MisalignedDataIsCopied) {
  std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  while ((8 + header.size()) % 4 != 1) header += ' ';
  std::string bytes = file_of(header, 8);
  const float values[2] = {1.5f, -2.25f};
  std::memcpy(bytes.data() + bytes.size() - 8, values, 8);
  write_all(dir_ / "x.safetensors", bytes);
  const Safetensors file = Safetensors::open(dir_ / "x.safetensors");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("w").data) % 4, 0u);
  EXPECT_EQ(file.at("w").to_floats(), (std::vector<float>{1.5f, -2.25f}));
  EXPECT_EQ(file.at("w").ref().as<float>().at(0, 1), -2.25f);
}

TEST_F(SafetensorsFile, MissingThings) {
  EXPECT_THAT(error_of(Code::kIo, [&] { Safetensors::open(dir_ / "no.safetensors"); }),
              HasSubstr("no.safetensors"));
  EXPECT_THAT(error_of(Code::kIo, [&] { Safetensors::open(dir_); }), HasSubstr("has no weights"));
  write_all(dir_ / "x.safetensors", "");
  error_of(Code::kFormat, [&] { Safetensors::open(dir_ / "x.safetensors"); });
  write_safetensors(dir_ / "x.safetensors", tensors_);
  const Safetensors file = Safetensors::open(dir_ / "x.safetensors");
  EXPECT_EQ(file.find("nome"), nullptr);
  EXPECT_THAT(error_of(Code::kFormat, [&] { file.at("nome"); }),
              HasSubstr("nearest name is 'none'"));
}

TEST_F(SafetensorsFile, FolderWithOneFile) {
  write_model_safetensors(dir_ / "m", tensors_);
  EXPECT_FALSE(fs::exists(dir_ / "m/model.safetensors.index.json"));
  const Safetensors file = Safetensors::open(dir_ / "m");
  expect_tensors(file);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_THAT(error_of(Code::kIo, [&] { write_model_safetensors(dir_ / "m", tensors_); }),
              HasSubstr("not written over"));
}

TEST_F(SafetensorsFile, FolderOfShards) {
  write_model_safetensors(dir_, tensors_, 24);
  EXPECT_TRUE(fs::exists(dir_ / "model-00001-of-00004.safetensors"));
  const Safetensors folder = Safetensors::open(dir_);
  expect_tensors(folder);
  EXPECT_EQ(folder.file_bytes(), fs::file_size(dir_ / "model-00001-of-00004.safetensors") +
                                     fs::file_size(dir_ / "model-00002-of-00004.safetensors") +
                                     fs::file_size(dir_ / "model-00003-of-00004.safetensors") +
                                     fs::file_size(dir_ / "model-00004-of-00004.safetensors"));
  EXPECT_THAT(error_of(Code::kIo, [&] { write_model_safetensors(dir_, tensors_); }),
              HasSubstr("not written over"));
}

TEST_F(SafetensorsFile, NoTensorsIsAFolderToo) {
  write_model_safetensors(dir_, {});
  EXPECT_TRUE(Safetensors::open(dir_).tensors().empty());
}

class SafetensorsIndex : public SafetensorsFile {
 protected:
  void SetUp() override {
    write_safetensors(dir_ / "1.safetensors", std::span(tensors_).subspan(0, 1));
    write_safetensors(dir_ / "2.safetensors", std::span(tensors_).subspan(1, 1));
  }
  std::string error_with(Code code, std::string_view index) {
    write_all(dir_ / "model.safetensors.index.json", index);
    return error_of(code, [&] { Safetensors::open(dir_); });
  }
};

TEST_F(SafetensorsIndex, RefusesWhatLies) {
  write_all(dir_ / "model.safetensors.index.json",
            R"({"metadata":{},"weight_map":{"a":"2.safetensors","b":"1.safetensors"}})");
  EXPECT_EQ(Safetensors::open(dir_).tensors().size(), 2u);

  const auto format = [&](std::string_view index) { return error_with(Code::kFormat, index); };
  EXPECT_THAT(format("{"), HasSubstr("model.safetensors.index.json is not JSON"));
  EXPECT_THAT(format("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(format("{}"), HasSubstr("no weight_map"));
  EXPECT_THAT(format(R"({"weight_map":{},"weight_map":{}})"),
              HasSubstr("weight_map is there twice"));
  EXPECT_THAT(format(R"({"weight_map":{"a":1}})"), HasSubstr("'a' is not a string"));
  EXPECT_THAT(format(R"({"weight_map":{"a":"2.safetensors","a":"2.safetensors"}})"),
              HasSubstr("'a' is there twice"));
  EXPECT_THAT(format(R"({"weight_map":{"a":"1.safetensors"}})"),
              HasSubstr("1.safetensors lacks tensor 'a'"));
  EXPECT_THAT(format(R"({"weight_map":{"a":"2.safetensors","b":"2.safetensors"}})"),
              HasSubstr("2.safetensors lacks tensor 'b'"));
  for (const char* path : {"../2.safetensors", "/2.safetensors", "", ".", "..", "2\\u0000"}) {
    EXPECT_THAT(format(cat(R"({"weight_map":{"a":")", path, R"("}})")),
                HasSubstr("a file name in the same folder is needed"));
  }
  EXPECT_THAT(error_with(Code::kIo, R"({"weight_map":{"a":"3.safetensors"}})"),
              HasSubstr("3.safetensors is missing"));
  // A name that no file system can hold is no defect of ours.
  EXPECT_THAT(
      error_with(Code::kIo, cat(R"({"weight_map":{"a":")", std::string(300, 'x'), R"("}})")),
      HasSubstr("is missing"));
}

TEST_F(SafetensorsIndex, OneTensorInTwoShards) {
  write_safetensors(dir_ / "2.safetensors", tensors_);
  EXPECT_THAT(
      error_with(Code::kFormat, R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors"}})"),
      HasSubstr("tensor 'b' is also in"));
}

TEST_F(SafetensorsIndex, TwoModelsInOneFolder) {
  write_safetensors(dir_ / "model.safetensors", tensors_);
  EXPECT_THAT(error_with(Code::kFormat, R"({"weight_map":{"a":"2.safetensors"}})"),
              HasSubstr("two models in one folder"));
  write_all(dir_ / "model.safetensors.index.json", R"({"weight_map":{"a":"model.safetensors"}})");
  expect_tensors(Safetensors::open(dir_));
}

// --- what other tools wrote

TEST(SafetensorsFixture, EveryFolderOpens) {
  using ::cachalot::testing::fixture_folders;
  using ::cachalot::testing::FixtureKind;
  const auto models = fixture_folders(FixtureKind::kModel);
  ASSERT_FALSE(models.empty());
  for (const fs::path& folder : models) {
    SCOPED_TRACE(folder.string());
    const Safetensors model = Safetensors::open(folder);
    const TensorView& embedding = model.at("model.embed_tokens.weight");
    ASSERT_EQ(embedding.shape.size(), 2u);
    double sum = 0;  // random weights: neither all zero nor wild
    for (const float x : embedding.to_floats()) {
      ASSERT_TRUE(std::isfinite(x));
      sum += std::abs(x);
    }
    EXPECT_GT(sum, 0);
    const Safetensors expected = Safetensors::open(folder / "expected.safetensors");
    const auto tokens = expected.at("s0.tokens").to_ints();
    ASSERT_FALSE(tokens.empty());
    for (const std::int64_t t : tokens) {
      EXPECT_GE(t, 0);
      EXPECT_LT(t, embedding.shape[0]);
    }
    const MatRef logits = expected.at("s0.logits").ref();
    EXPECT_EQ(logits.rows, static_cast<int>(tokens.size()));
    EXPECT_EQ(logits.cols, embedding.shape[0]);
  }
}

TEST(SafetensorsFixture, RewrittenFoldersHaveTheSameBytes) {
  for (const fs::path& folder :
       ::cachalot::testing::fixture_folders(::cachalot::testing::FixtureKind::kModel)) {
    SCOPED_TRACE(folder.string());
    const ::cachalot::testing::TempDir temp;
    const Safetensors model = Safetensors::open(folder);
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, view] : model.tensors()) {
      tensors.push_back({name, view.dtype, view.shape, view.data});
    }
    write_model_safetensors(temp.path(), tensors, 500'000);
    const Safetensors copy = Safetensors::open(temp.path());
    ASSERT_EQ(copy.tensors().size(), model.tensors().size());
    for (const auto& [name, view] : model.tensors()) {
      const TensorView& other = copy.at(name);
      ASSERT_EQ(other.dtype, view.dtype);
      ASSERT_EQ(other.shape, view.shape);
      EXPECT_EQ(std::memcmp(other.data, view.data, view.bytes), 0) << name;
    }
  }
}

TEST(SafetensorsFixture, E4m3DecodeTable) {
  const auto folders = ::cachalot::testing::fixture_folders(::cachalot::testing::FixtureKind::kFp8);
  ASSERT_FALSE(folders.empty());
  for (const fs::path& folder : folders) {
    const Safetensors file = Safetensors::open(folder / "expected.safetensors");
    const auto want = file.at("decode_table").to_floats();
    ASSERT_EQ(want.size(), 256u);
    std::vector<std::uint8_t> codes(256);
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
    const auto got = view_of(DType::kF8E4M3, codes).to_floats();
    for (std::size_t i = 0; i < codes.size(); ++i) {
      if (std::isnan(want[i])) {
        EXPECT_TRUE(std::isnan(got[i])) << i;
      } else {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(want[i])) << i;
      }
    }
  }
}

}  // namespace
}  // namespace cachalot::io
