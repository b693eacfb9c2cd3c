// api.h for C++ sources.
#pragma once

#include <cstdint>

extern "C" {
#include "api.h"
}
