#include "damage.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

#include "guard.h"
#include "reservation.h"

namespace sparsearray {

FaultLock fault_lock;

// ---------------------------------------------------------------------------------- the list

// Never given back to the system; what is taken from it goes back to it. Some are there from the start:
// at the limit of mappings there are no new ones.
struct NodePool {
    using Node = DamageList::Node;

    static Node *take() {
        static Node first[64];
        static bool begun = false;
        if (!begun)
            for (Node &node : first)
                put(&node);
        begun = true;
        if (!free_ && !grow())
            return nullptr;
        Node *node = free_;
        free_ = node->next;
        return node;
    }

    static void put(Node *node) {
        node->next = free_;
        free_ = node;
    }

  private:
    // mmap is a plain system call, and so may be made in a signal handler.
    static bool grow() {
        constexpr size_t kBlock = 1 << 16;
        void *block = mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            return false;
        Node *nodes = static_cast<Node *>(block);
        for (size_t i = 0; i < kBlock / sizeof(Node); i++)
            put(new (nodes + i) Node{});
        return true;
    }

    static Node *free_;
};

NodePool::Node *NodePool::free_ = nullptr;

namespace {

// The file in memory that keeps what has no room elsewhere. Made when it is first needed; without one,
// the pages are memory of the process.
struct Spare {
    int fd = -1;
    uint64_t end = 0;
};
Spare spare;

// Gives the memory behind kept pages back, unless a process that was forked since shows it too.
void drop_kept(const Damage &damage) {
    if (damage.spare >= 0 && damage.spare == spare.fd)
        os_punch_file(damage.spare, static_cast<int64_t>(damage.spare_offset), damage.nbytes());
}

bool continues(const Damage &a, const Damage &b) {
    return a.stop == b.start && a.reason == b.reason && a.told == b.told && a.kept == b.kept &&
           a.of_hole == b.of_hole && a.spare == b.spare &&
           (a.spare < 0 || a.spare_offset + a.nbytes() == b.spare_offset);
}

}  // namespace

bool DamageList::add(const Damage &damage) {
    Node **place = &first_;
    while (*place && (*place)->damage.stop <= damage.start) {
        if (continues((*place)->damage, damage)) {
            (*place)->damage.stop = damage.stop;
            return true;
        }
        place = &(*place)->next;
    }
    Node *node = NodePool::take();
    if (!node)
        return false;
    node->damage = damage;
    node->next = *place;
    *place = node;
    any_.store(true, std::memory_order_release);
    return true;
}

Damage *DamageList::at_or_after(uint64_t at) {
    Node *node = first_;
    while (node && node->damage.stop <= at)
        node = node->next;
    return node ? &node->damage : nullptr;
}

void DamageList::forget(uint64_t start, uint64_t stop) {
    if (!any())
        return;
    FaultHeld held(fault_lock);
    cut(start, stop);
}

void DamageList::lose(uint64_t start, uint64_t stop) {
    FaultHeld held(fault_lock);
    Damage *found = at_or_after(start);
    if (!found || found->start >= stop)
        return;
    Damage lost = from(until(*found, std::min(found->stop, stop)), std::max(found->start, start));
    cut(lost.start, lost.stop, false);
    lost.reason = SA_FILE_TRUNCATED;
    lost.kept = lost.told = false;
    add(lost);
}

void DamageList::cut(uint64_t start, uint64_t stop, bool drop) {
    for (Node **place = &first_; *place && (*place)->damage.start < stop;) {
        Damage &damage = (*place)->damage;
        if (damage.stop <= start) {
            place = &(*place)->next;
            continue;
        }
        if (drop)
            drop_kept(from(until(damage, std::min(damage.stop, stop)), std::max(damage.start, start)));
        if (damage.start < start && stop < damage.stop) {
            Damage rest = from(damage, stop);
            damage.stop = start;
            add(rest);  // without memory for it, this is not told any more
            return;
        }
        if (damage.start < start) {
            damage.stop = start;
            place = &(*place)->next;
        } else if (stop < damage.stop) {
            damage = from(damage, stop);
            break;
        } else {
            Node *node = *place;
            *place = node->next;
            NodePool::put(node);
        }
    }
    any_.store(first_ != nullptr, std::memory_order_release);
}

std::vector<Damage> DamageList::copy(uint64_t start, uint64_t stop) {
    std::vector<Damage> found;
    for (bool fits = !any(); !fits;) {
        size_t count = 0;
        {
            FaultHeld held(fault_lock);
            for (Node *node = first_; node; node = node->next)
                count += node->damage.start < stop && node->damage.stop > start;
            fits = count <= found.capacity();
            for (Node *node = first_; fits && node; node = node->next)
                if (node->damage.start < stop && node->damage.stop > start)
                    found.push_back(node->damage);
        }
        if (!fits)
            found.reserve(count + 8);  // not with the lock held: a fault must not wait for memory
    }
    return found;
}

void DamageList::tell(uint64_t start, uint64_t stop) {
    FaultHeld held(fault_lock);
    for (Node *node = first_; node && node->damage.start < stop; node = node->next)
        node->damage.told |= node->damage.stop > start;
}

// ---------------------------------------------------------------------------------- in the signal handler

namespace {

uint64_t take_spare(uint64_t nbytes) {
    if (spare.fd < 0) {
        spare.fd = os_make_spare();
        spare.end = 0;
    }
    uint64_t start = spare.end;
    spare.end += nbytes;
    return start;
}

// A page that another process cuts off meanwhile stays zero.
void copy_page_to_spare(int fd, uint64_t position, uint64_t nbytes, int to, uint64_t place) {
    char piece[512];  // the stack may be small
    for (uint64_t done = 0; done < nbytes; done += sizeof piece) {
        ssize_t got = pread(fd, piece, sizeof piece, static_cast<off_t>(position + done));
        if (got <= 0)
            return;
        ssize_t put = pwrite(to, piece, static_cast<size_t>(got), static_cast<off_t>(place + done));
        if (put < got)
            return;
    }
}

// Holes stay holes.
void copy_to_spare(const Region &region, const Damage &damage) {
    uint64_t page = os_page_size(), first = region.in_file(damage.start), end = first + damage.nbytes();
    for (uint64_t at = first; at < end;) {
        if (uint64_t hole = os_hole_after(region.file->fd(), at, end) / page * page) {
            at += hole;
            continue;
        }
        copy_page_to_spare(region.file->fd(), at, page, damage.spare, damage.spare_offset + (at - first));
        at += page;
    }
}

// Puts other pages over those of a range that have none yet. False if `fault` is not among them.
bool substitute(sa_reservation *r, const Region &region, Range range, const Damage &how,
                uint64_t fault) {
    bool done = false;
    if (fault < r->placing.start)
        range.stop = std::min(range.stop, r->placing.start);
    else if (r->placing.nbytes())
        range.start = std::max(range.start, r->placing.stop);
    for (uint64_t at = range.start; at < range.stop;) {
        Damage *known = r->damage.at_or_after(at);
        if (known && known->start <= at) {
            at = known->stop;
            continue;
        }
        Damage damage = how;
        damage.start = at;
        damage.stop = known ? std::min(known->start, range.stop) : range.stop;
        if (damage.kept) {
            damage.spare_offset = take_spare(damage.nbytes());
            damage.spare = spare.fd;
            // Without a spare the zeros there must not go over what the file has.
            damage.of_hole |= damage.spare < 0;
            if (!damage.of_hole)
                copy_to_spare(region, damage);
        }
        // SAFETY: the pages are part of a region, and so of the reservation.
        if (!r->damage.add(damage) ||
            os_substitute(r->base + at, damage.nbytes(), region.prot, damage.spare,
                          damage.spare_offset)) {
            r->damage.cut(damage.start, damage.stop);
            return done;
        }
        done |= damage.start <= fault && fault < damage.stop;
        at = damage.stop;
    }
    return done;
}

// How far a page that the disk cannot read has neighbours like it, as far as the damage beside it goes:
// so a lost gigabyte costs a score of faults, and no page that is fine is lost.
Range unreadable_around(sa_reservation *r, const Region &region, Range page) {
    uint64_t step = page.nbytes();
    Borrowed fd = region.file->fd();
    auto readable = [&](uint64_t at) {
        char byte;
        if (fd < 0)  // nobody but the kernel knows the file any more
            return os_populate(r->base + at, step, false) == 0;
        return pread(fd, &byte, 1, static_cast<off_t>(region.in_file(at))) > 0;
    };
    if (!region.shared)
        return page;  // pages around it may be the process's own by now, which pread does not know
    Damage *before = page.start > region.start ? r->damage.at_or_after(page.start - 1) : nullptr;
    if (before && before->start < page.start && before->reason == SA_IO_ERROR) {
        uint64_t limit = std::min(region.stop, page.stop + before->nbytes());
        while (page.stop < limit && !readable(page.stop))
            page.stop += step;
    }
    Damage *after = r->damage.at_or_after(page.stop);
    if (after && after->start == page.stop && after->reason == SA_IO_ERROR) {
        uint64_t most = std::min(after->nbytes(), page.start - region.start);
        uint64_t limit = page.start - most / step * step;
        while (page.start > limit && !readable(page.start - step))
            page.start -= step;
    }
    return page;
}

// A fault that nothing explains is tried again, but not for ever.
bool try_again(const char *page) {
    struct Tried {
        const char *page;
        int times;
    };
    static Tried tried[64];
    Tried &slot = tried[reinterpret_cast<uintptr_t>(page) / os_page_size() % 64];
    if (slot.page != page)
        slot = {page, 0};
    if (++slot.times <= 3)
        return true;
    slot = {nullptr, 0};
    return false;
}

}  // namespace

bool divert_fault(const char *address) {
    std::unique_lock<FaultLock> held(fault_lock);
    sa_reservation *r = reservation_at(address);
    if (!r)
        return false;
    uint64_t at = static_cast<uint64_t>(address - r->base);
    const Region *region = r->table.find(at);
    if (!region || !region->file || !region->can_fault)
        return false;
    uint64_t unit = region->huge_page ? region->huge_page : r->page_size;
    uint64_t start = region->start + (at - region->start) / unit * unit;
    Range page{start, start + unit};
    Damage *known = r->damage.at_or_after(at);
    bool is_known = known && known->start <= at;
    int reason = 0;
    if (!is_known) {
        // The disk may be slow, and nobody else is to wait for it. The window keeps the reservation.
        Region asked;  // not all of it: some fields change under another lock
        asked.start = region->start;
        asked.stop = region->stop;
        asked.prot = region->prot;
        asked.shared = region->shared;
        asked.file = region->file;
        asked.file_offset = region->file_offset;
        asked.file_size = region->file_size;
        asked.huge_page = region->huge_page;
        held.unlock();
        reason = reason_of_fault(asked, at, asked.writable());
        held.lock();
        region = r->table.find(at);
        if (!region || region->file != asked.file || region->in_file(at) != asked.in_file(at))
            return true;  // it is mapped anew
        known = r->damage.at_or_after(at);
        if (known && known->start <= at)
            return true;  // another thread has seen to it
    }
    if (!reason) {
        // It can be had by now, or another thread has seen to it; what the system cannot tell is tried.
        bool write = region->shared && region->writable();
        if (os_populate(r->base + start, unit, write) == 0 || try_again(r->base + start))
            return true;
        if (is_known)
            return false;
        reason = unknown_reason(*region, region->writable());
    }
    Damage how{};
    how.reason = reason;
    how.spare = -1;
    Range range = page;
    if (reason == SA_FILE_TRUNCATED) {
        uint64_t size = region->file->size_now();
        if (size == kUnknownSize)
            return true;  // its name leads elsewhere since a moment ago, which is another reason
        uint64_t end = (size + unit - 1) / unit * unit;
        uint64_t first = region->in_file(region->start);
        range = {end > first ? region->start + (end - first) : region->start, region->stop};
        if (page.start < range.start)
            return true;  // it ends there since a moment ago
    } else if (reason == SA_NO_SPACE) {
        how.kept = region->shared;
        uint64_t position = region->in_file(page.start);
        uint64_t hole = os_hole_after(region->file->fd(), position, position + (region->stop - page.start));
        how.of_hole = hole >= unit || !how.kept;
        if (hole > unit)
            range.stop = page.start + hole / unit * unit;
    } else if (reason == SA_IO_ERROR) {
        range = unreadable_around(r, *region, page);
    }
    if (substitute(r, *region, range, how, at))
        return true;
    // At the limit of mappings a part of a region may be one too many, where the whole is not. There the
    // file can have something.
    how.of_hole = how.of_hole && !how.kept;
    return substitute(r, *region, {region->start, region->stop}, how, at);
}

void damage_after_fork() {
    spare.fd = -1;  // what is mapped from it stays, in both processes; what comes now is each one's own
}

}  // namespace sparsearray
