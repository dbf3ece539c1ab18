// Catch2, whichever major version the system has.

#ifndef SPARSEFUSE_TESTS_SUPPORT_CATCH_H_
#define SPARSEFUSE_TESTS_SUPPORT_CATCH_H_

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

#endif  // SPARSEFUSE_TESTS_SUPPORT_CATCH_H_
