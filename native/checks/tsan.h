// What the core needs to run under ThreadSanitizer; included before all of it.
#pragma once

#include <csetjmp>

// All signals are blocked there while a handler runs, whatever the handler asked for: so a jump out of
// one has to bring the mask back, or the next SIGBUS is the end.
#undef sigsetjmp
#define sigsetjmp(place, save_mask) __sigsetjmp((place), 1)
