/* What cffi puts before the code it generates. */
#include <signal.h>
#include <stdint.h>
#undef SA_UNSUPPORTED /* musl has one: core.h */

#include "api.h"
