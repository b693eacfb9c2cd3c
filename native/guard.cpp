#include "guard.h"

#include <cerrno>
#include <mutex>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include "damage.h"

namespace sparsearray {

thread_local Guard *volatile current_guard SA_SIGNAL_SAFE_TLS = nullptr;

namespace {

// Who had the signal before us. Written under arm_lock, into the place that is not in use, so that the
// handler always reads a whole one.
struct sigaction previous_actions[2];
std::atomic<unsigned> previous_index{0};
std::mutex arm_lock;
std::atomic<bool> protects{true};  // windows, too

struct sigaction previous() { return previous_actions[previous_index.load(std::memory_order_acquire)]; }

void set_previous(const struct sigaction &action) {
    unsigned other = 1 - previous_index.load(std::memory_order_relaxed);
    previous_actions[other] = action;
    previous_index.store(other, std::memory_order_release);
}

// Who had it before the first time.
struct sigaction original;

// What a thread is doing in a handler that ours called. A handler may jump out of it: what is noted counts
// for frames just below only.
struct Chaining {
    const char *volatile frame;
    const siginfo_t *volatile info;
    volatile sig_atomic_t raised_again;
};
thread_local Chaining chaining SA_SIGNAL_SAFE_TLS = {nullptr, nullptr, 0};

bool is_chaining(const void *frame) {
    constexpr ptrdiff_t kNear = 256 << 10;
    const char *above = chaining.frame, *here = static_cast<const char *>(frame);
    return above && here < above && above - here < kNear;
}

// A fault that a handler is called for again and again, and does nothing about.
struct Repeated {
    const void *volatile address;
    volatile unsigned times;
};
thread_local Repeated repeated SA_SIGNAL_SAFE_TLS = {nullptr, 0};
constexpr unsigned kMostRepeated = 1000;

void set_default(int signo) {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signo, &action, nullptr);
}

// What would have happened without us. `info->si_code` > 0: the kernel raised the signal for an
// instruction, which runs again when we return.
void chain(int signo, siginfo_t *info, void *context) {
    bool from_kernel = info->si_code > 0;
    struct sigaction to = previous();
    // It hands on what it got, to us: there is one before it.
    if (is_chaining(&from_kernel) && chaining.info == info)
        to = original;
    if (to.sa_handler == SIG_IGN && !from_kernel)
        return;
    if (from_kernel) {
        repeated.times = repeated.address == info->si_addr ? repeated.times + 1 : 0;
        repeated.address = info->si_addr;
    }
    // The kernel does not let anybody ignore a fault.
    if (to.sa_handler == SIG_DFL || to.sa_handler == SIG_IGN ||
        (from_kernel && repeated.times > kMostRepeated)) {
        set_default(signo);
        if (!from_kernel)
            raise(signo);
        return;
    }
    sigset_t mask;
    if (!(to.sa_flags & SA_NODEFER))
        sigaddset(&to.sa_mask, signo);
    pthread_sigmask(SIG_BLOCK, &to.sa_mask, &mask);
    if (to.sa_flags & static_cast<int>(SA_RESETHAND)) {
        struct sigaction reset = {};
        reset.sa_handler = SIG_DFL;
        set_previous(reset);
    }
    const char *outer_frame = chaining.frame;
    const siginfo_t *outer_info = chaining.info;
    char here;
    chaining.frame = &here;
    chaining.info = info;
    chaining.raised_again = 0;
    if (to.sa_flags & SA_SIGINFO)
        to.sa_sigaction(signo, info, context);
    else
        to.sa_handler(signo);
    bool raised_again = chaining.raised_again;
    chaining.frame = outer_frame;
    chaining.info = outer_info;
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    if (raised_again) {  // as faulthandler does
        set_default(signo);
        if (!from_kernel)
            raise(signo);
    }
}

// The frames of signals on the stack of this handler, ours first.
struct SignalFrames {
    const void *ours;  // the context that our frame holds
    const char *below = nullptr;  // the frame before the one that is looked at
    const char *first = nullptr;
    const ucontext_t *outer = nullptr;
};

_Unwind_Reason_Code note_frame(_Unwind_Context *context, void *to) {
    auto *frames = static_cast<SignalFrames *>(to);
    int interrupted = 0;
    _Unwind_GetIPInfo(context, &interrupted);
    const char *at = frames->below;
    frames->below = reinterpret_cast<const char *>(_Unwind_GetCFA(context));
    if (!interrupted)
        return _URC_NO_REASON;
    if (!frames->first) {
        frames->first = at;
        return _URC_NO_REASON;
    }
    // All frames of signals are laid out alike.
    frames->outer = reinterpret_cast<const ucontext_t *>(
        at + (static_cast<const char *>(frames->ours) - frames->first));
    return _URC_END_OF_STACK;
}

// For a signal that the thread sent to itself: the frame of the handler of somebody else that it was sent in,
// or null. Nothing was interrupted in the middle of a call, so looking at the stack is safe.
const ucontext_t *outer_handler(const void *context) {
    SignalFrames frames{context};
    _Unwind_Backtrace(note_frame, &frames);
    return frames.outer;
}

// The address that such a handler was called for, as the processor has it, or null. That is faulthandler,
// put in our place: it prints, puts ours back and raises the signal again. The processor's words may be
// those of an older fault: a thread that waits in a system call, or sends itself a signal by one, has none.
const char *fault_being_handled(const ucontext_t *outer) {
#if defined(__x86_64__) && defined(__linux__)
    constexpr long kPageFault = 14;
    const auto &registers = outer->uc_mcontext.gregs;
    const unsigned char *next = reinterpret_cast<const unsigned char *>(registers[REG_RIP]);
    bool in_system_call = next[-2] == 0x0f && next[-1] == 0x05;
    return registers[REG_TRAPNO] == kPageFault && !in_system_call
               ? reinterpret_cast<const char *>(registers[REG_CR2])
               : nullptr;
#elif defined(__aarch64__) && defined(__linux__)
    bool in_system_call = *reinterpret_cast<const uint32_t *>(outer->uc_mcontext.pc - 4) == 0xd4000001;
    return in_system_call ? nullptr : reinterpret_cast<const char *>(outer->uc_mcontext.fault_address);
#else
    (void)outer;
    return nullptr;
#endif
}

void on_sigbus(int signo, siginfo_t *info, void *context) {
    int saved = errno;
    Guard *guard = current_guard;
    const char *at = static_cast<const char *>(info->si_addr);
    bool fault = info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR || info->si_code > BUS_OBJERR;
    if (guard && info->si_code > 0 && at >= guard->start && at < guard->stop)
        siglongjmp(guard->back, 1);
    if (fault && protects.load(std::memory_order_relaxed) && divert_fault(at)) {
        errno = saved;
        return;
    }
    if (info->si_code == SI_TKILL && info->si_pid == getpid()) {
        const ucontext_t *outer = outer_handler(context);
        if (outer && is_chaining(&saved)) {  // by the handler that ours called: it has said its piece
            chaining.raised_again = 1;
            errno = saved;
            return;
        }
        const char *handled = outer && protects ? fault_being_handled(outer) : nullptr;
        if (handled && divert_fault(handled)) {
            errno = saved;
            return;
        }
    }
    chain(signo, info, context);
    errno = saved;
}

struct sigaction our_action() {
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    // NODEFER: the jump out of the handler must not leave the signal blocked. ONSTACK: Go and others
    // run threads on small stacks.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return action;
}

bool is_ours(const struct sigaction &action) {
    return (action.sa_flags & SA_SIGINFO) && action.sa_sigaction == on_sigbus;
}

}  // namespace

namespace {

struct sigaction displaced;
bool displacing = false;
// Odd while an ArmedGuard has put our handler in somebody else's place: it will not stay.
std::atomic<unsigned> displacements{0};

// With arm_lock held. 0 or an errno.
int arm() {
    struct sigaction now, action = our_action();
    if (sigaction(SIGBUS, nullptr, &now) < 0)
        return errno;
    if (is_ours(now))
        return 0;
    static bool is_first = true;
    if (is_first)
        original = now;
    is_first = false;
    set_previous(now);
    return sigaction(SIGBUS, &action, nullptr) < 0 ? errno : 0;
}

}  // namespace

int guard_install() {
    std::lock_guard<std::mutex> lock(arm_lock);
    return protects ? arm() : 0;
}

void guard_rearm() {
    struct sigaction now;
    if (!protects || (sigaction(SIGBUS, nullptr, &now) == 0 && is_ours(now)))
        return;
    std::lock_guard<std::mutex> lock(arm_lock);
    if (protects)
        arm();
}

int guard_protect_windows(bool on) {
    std::lock_guard<std::mutex> lock(arm_lock);
    protects = on;
    struct sigaction now, back = previous();
    if (sigaction(SIGBUS, nullptr, &now) < 0)
        return errno;
    if (on || !is_ours(now))
        return 0;  // the next window brings it back
    return sigaction(SIGBUS, &back, nullptr) < 0 ? errno : 0;
}

bool guard_protects_windows() { return protects; }

bool guard_ready() {
    struct sigaction now;
    sigset_t mask;
    unsigned before = displacements;
    return before % 2 == 0 && sigaction(SIGBUS, nullptr, &now) == 0 && is_ours(now) &&
           displacements == before && pthread_sigmask(SIG_BLOCK, nullptr, &mask) == 0 &&
           !sigismember(&mask, SIGBUS);
}

ArmedGuard::ArmedGuard() {
    arm_lock.lock();
    struct sigaction now, action = our_action();
    sigaction(SIGBUS, nullptr, &now);
    displacing = !is_ours(now);
    if (displacing) {
        displacements++;
        // A foreign fault in these few instructions goes to the handler that we displace.
        displaced = previous();
        set_previous(now);
        sigaction(SIGBUS, &action, nullptr);
    }
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, &mask_);
}

ArmedGuard::~ArmedGuard() {
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    if (displacing) {
        struct sigaction now;
        sigaction(SIGBUS, nullptr, &now);
        struct sigaction back = previous();
        if (is_ours(now))  // else somebody has set another since: theirs stays
            sigaction(SIGBUS, &back, nullptr);
        set_previous(displaced);
        displacements++;
    }
    arm_lock.unlock();
}

void guard_before_fork() { arm_lock.lock(); }
void guard_after_fork() { arm_lock.unlock(); }

}  // namespace sparsearray
