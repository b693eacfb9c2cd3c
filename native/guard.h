// Recoverable access to mapped files, and the handler of SIGBUS.
//
// Use case: a file that somebody else cuts short, a full disk or a bad sector turns a load or store on
// its mapping into SIGBUS, which ends the process. Inside run_guarded it ends the access instead.
//
// How it works:
// 1. guard_install puts a SIGBUS handler in place when the first file is mapped, and guard_rearm does it
//    again when a window is made and somebody else has taken the signal.
// 2. run_guarded notes the address range it is about to touch and a place to come back to
//    (sigsetjmp without the signal mask, some 10 ns), and runs its body.
// 3. The handler jumps back there if the kernel raised the fault and the address lies in that range. If
//    it lies in a window instead, the window gets other pages (damage.h). Everything else goes to the
//    handler that was there before.
// 4. The handler is not ours for ever: signal.signal, faulthandler and pytest replace it, and a thread
//    can block the signal. So a caller asks guard_ready first, and if the answer is no uses
//    os_copy_quietly, which raises no signal, or an ArmedGuard where only an instruction will do.
//    What is left is the time between that answer and the copy: a thread that replaces the handler just
//    then, while another copies from a file that is cut short just then, can still end the process.
//
// Guarantees: no allocation, no lock and no thread-local that is not there yet is touched in the
// handler. SIGSEGV is never handled. A crash that is not ours stays a crash.
#pragma once

#include <atomic>
#include <csetjmp>
#include <csignal>

namespace sparsearray {

struct Guard {
    const char *start;
    const char *stop;
    sigjmp_buf back;
};

#ifdef __GLIBC__
// Part of the static TLS block, so that no access can allocate, not even the handler's on a thread
// that has never been here.
#define SA_SIGNAL_SAFE_TLS __attribute__((tls_model("initial-exec")))
#else
#define SA_SIGNAL_SAFE_TLS
#endif
extern thread_local Guard *volatile current_guard SA_SIGNAL_SAFE_TLS;

int guard_install();
// Puts the handler in place again, unless guard_protect_windows(false) was called.
void guard_rearm();
// Whether windows are protected: gives the signal back to who had it, or takes it again. 0 or an errno.
int guard_protect_windows(bool on);
bool guard_protects_windows();
// Whether the handler is in place and this thread lets the signal through: two system calls.
bool guard_ready();

// Runs body; false if it touched a page between start and stop that could not be had.
template <class Body>
__attribute__((noinline)) bool run_guarded(const char *start, const char *stop, Body body) {
    Guard guard;
    guard.start = start;
    guard.stop = stop;
    if (sigsetjmp(guard.back, 0)) {
        current_guard = nullptr;
        return false;
    }
    current_guard = &guard;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    body();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    current_guard = nullptr;
    return true;
}

// Puts the handler in place and unblocks the signal for a few instructions, whoever else has it.
class ArmedGuard {
  public:
    ArmedGuard();
    ~ArmedGuard();
    ArmedGuard(const ArmedGuard &) = delete;
    ArmedGuard &operator=(const ArmedGuard &) = delete;

  private:
    sigset_t mask_;
};

// Around fork: nobody is in the middle of an ArmedGuard when the child is made.
void guard_before_fork();
void guard_after_fork();

}  // namespace sparsearray
