# What src/serve stands on: Boost's Asio and Beast (headers alone), OpenSSL, prometheus-cpp's core.
find_package(Boost 1.74)
find_package(OpenSSL 3)
pkg_check_modules(prometheus IMPORTED_TARGET prometheus-cpp-core)
if(NOT Boost_FOUND OR NOT OPENSSL_FOUND OR NOT prometheus_FOUND)
  message(FATAL_ERROR "Boost 1.74, OpenSSL 3 and prometheus-cpp are needed (the server). On Debian: apt-get install "
                      "libboost-dev libssl-dev prometheus-cpp-dev, or tools/install_debian.sh build")
endif()
