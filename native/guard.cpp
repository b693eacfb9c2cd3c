#include "guard.h"

#include <cerrno>
#include <mutex>

namespace sparsearray {

thread_local Guard *volatile current_guard SA_SIGNAL_SAFE_TLS = nullptr;

namespace {

// Written before the handler that reads it is installed.
struct sigaction previous;
std::mutex arm_lock;
std::once_flag installed;
int install_errno = 0;

void set_default(int signo) {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signo, &action, nullptr);
}

// What would have happened without us. `info->si_code` > 0: the kernel raised the signal for an
// instruction, which runs again when we return.
void chain(int signo, siginfo_t *info, void *context) {
    bool from_kernel = info->si_code > 0;
    struct sigaction to = previous;
    if (to.sa_handler == SIG_IGN && !from_kernel)
        return;
    // The kernel does not let anybody ignore a fault.
    if (to.sa_handler == SIG_DFL || to.sa_handler == SIG_IGN) {
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
        previous.sa_handler = SIG_DFL;
        previous.sa_flags = 0;
    }
    if (to.sa_flags & SA_SIGINFO)
        to.sa_sigaction(signo, info, context);
    else
        to.sa_handler(signo);
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

void on_sigbus(int signo, siginfo_t *info, void *context) {
    int saved = errno;
    Guard *guard = current_guard;
    const char *at = static_cast<const char *>(info->si_addr);
    if (guard && info->si_code > 0 && at >= guard->start && at < guard->stop)
        siglongjmp(guard->back, 1);
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

int guard_install() {
    std::call_once(installed, [] {
        struct sigaction action = our_action();
        if (sigaction(SIGBUS, nullptr, &previous) < 0 || sigaction(SIGBUS, &action, nullptr) < 0)
            install_errno = errno;
    });
    return install_errno;
}

namespace {
struct sigaction displaced;
bool displacing = false;
// Odd while an ArmedGuard has put our handler in somebody else's place: it will not stay.
std::atomic<unsigned> displacements{0};
}  // namespace

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
        displaced = previous;
        previous = now;
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
        if (is_ours(now))  // else somebody has set another since: theirs stays
            sigaction(SIGBUS, &previous, nullptr);
        previous = displaced;
        displacements++;
    }
    arm_lock.unlock();
}

void guard_before_fork() { arm_lock.lock(); }
void guard_after_fork() { arm_lock.unlock(); }

}  // namespace sparsearray
