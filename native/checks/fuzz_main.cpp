// fuzz where there is no libFuzzer: inputs at random, for some seconds: fuzz [seconds [seed]].
#include <ctime>
#include <string>
#include <unistd.h>
#include <vector>

#include "common.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
    time_t seconds = argc > 1 ? atoi(argv[1]) : 10, stop = time(nullptr) + seconds;
    uint64_t seed = argc > 2 ? strtoull(argv[2], nullptr, 0) : static_cast<uint64_t>(getpid());
    setvbuf(stdout, nullptr, _IOLBF, 0);
    printf("fuzz for %ld s, from seed %llu\n", static_cast<long>(seconds),
           static_cast<unsigned long long>(seed));
    uint64_t count = 0;
    std::vector<uint8_t> input;
    for (; time(nullptr) < stop; count++) {
        Random random(seed + count);
        input.resize(random.below(4000));
        for (uint8_t &byte : input)
            byte = static_cast<uint8_t>(random.next() >> 32);
        setenv("FUZZ_SEED", std::to_string(seed + count).c_str(), 1);  // `fuzz 1 <seed>` runs it again
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    printf("  %llu inputs\n", static_cast<unsigned long long>(count));
    return 0;
}
