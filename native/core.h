// api.h for C++ sources.
#pragma once

#include <csignal>
#include <cstdint>
#undef SA_UNSUPPORTED // musl's signal.h has one, a flag of Linux that nobody here uses

extern "C" {
#include "api.h"
}
