/* What cffi puts before the code it generates. */
#include <stdint.h>

#include "api.h"
