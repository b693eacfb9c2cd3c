// Which pages hold something, and which are in memory: given back, fetched, and told about.
#include <algorithm>
#include <cerrno>
#include <new>
#include <sys/mman.h>

#include "extents.h"
#include "guard.h"
#include "mapping.h"
#include "os.h"

using namespace sparsearray;

namespace {

// Pages that lost their file are not what the file has.
int check_undamaged(sa_reservation *r, const Region &region, Range part, bool write, sa_report *ret) {
    Damage damage;
    if (!region.file || !r->damage.any() || !find_damage(r, part, write, &damage))
        return SA_OK;
    return access_error(damage.reason, write, damage.start, 0, region.file_name(), ret);
}

int discard_part(sa_reservation *r, const Region &region, Range part) {
    char *at = r->base + part.start;
    int error = os_discard(at, part.nbytes());
    if (error != ENOTSUP || region.shared || region.kind == SA_ZERO)
        return error == ENOTSUP ? 0 : error;
    // Mapping anew gives the old pages back too.
    int flags = os_flags_private(region.reserve);
    if (!region.file)
        return os_place(at, part.nbytes(), region.prot, flags, -1, 0);
    return os_place(at, part.nbytes(), region.prot, flags & ~MAP_ANONYMOUS, region.file->fd(),
                    static_cast<int64_t>(region.in_file(part.start)));
}

// A private copy of a page of a file shows the file again when it is given back: zeros, where that has a hole.
int is_over_data(const Region &region, Range part, bool *found, sa_report *ret) {
    if (part.start >= part.stop)
        return SA_OK;
    std::vector<Range> data;
    uint64_t end;
    Range whole{region.in_file(part.start), region.in_file(part.stop)};
    int error = find_file_data(*region.file, region.file->ask(), whole, 1, &data, &end);
    *found = !data.empty();
    return error ? system_error(error, region.file_name(), ret) : int{SA_OK};
}

}  // namespace

int sa_decommit(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Exclusive lock(r->lock);
    Range range;
    if (int code = check_mapped(r, offset, nbytes, Pins::None, true, &range, ret))
        return code;
    // What it throws away, a write could have changed.
    if (int code = each_region(r, range, [&](const Region &region, Range part) {
            bool keeps_bytes = region.shared || region.kind == SA_ZERO;
            return keeps_bytes || region.writable()
                       ? check_undamaged(r, region, part, true, ret)
                       : access_error(SA_READ_ONLY, true, part.start, 0, region.file_name(), ret);
        }))
        return code;
    if (range.nbytes())
        r->hints.forget(range.start / r->page_size, (range.stop - 1) / r->page_size);
    return each_region(r, range, [&](const Region &region, Range part) {
        int error = discard_part(r, region, part);
        return error ? system_error(error, region.file_name(), ret) : int{SA_OK};
    });
}

int sa_punch(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    Exclusive lock(r->lock);
    int code = check_bounds(r, offset, nbytes, ret);
    if (code || !nbytes)
        return code;
    uint64_t page = r->page_size, first = static_cast<uint64_t>(offset);
    uint64_t last = first + static_cast<uint64_t>(nbytes);
    Range touched{first / page * page, (last + page - 1) / page * page};
    Range whole{(first + page - 1) / page * page, last / page * page};
    uint64_t at, hole = r->table.first_hole(touched.start, touched.stop);
    if (hole < touched.stop)
        return access_error(SA_UNMAPPED, true, std::max(first, hole), 0, "", ret);
    bool filled_only = false;
    r->hints.forget(touched.start / page, touched.stop / page - 1);
    code = each_region(r, touched, [&](const Region &region, Range part) {
        if (region.kind != SA_ZERO && !region.writable())
            return access_error(SA_READ_ONLY, true, std::max(first, part.start), 0,
                                region.file_name(), ret);
        filled_only |= region.shared && !region.file;
        uint64_t from = std::max(first, part.start), n = std::min(last, part.stop) - from;
        uint64_t good = region.file ? still_in_file(r, region, from, n, region.shared) : n;
        if (good < n) {
            region.file->tell_size();
            return access_error(SA_FILE_TRUNCATED, true, from + good, 0, region.file_name(), ret);
        }
        if (int damaged = check_undamaged(r, region, part, true, ret))
            return damaged;
        if (!region.file || region.shared || filled_only)
            return int{SA_OK};
        return is_over_data(region, {std::max(part.start, whole.start), std::min(part.stop, whole.stop)},
                            &filled_only, ret);
    });
    if (code || whole.start >= whole.stop)
        return code;
    if (filled_only || r->table.cut_huge_page(whole.start, whole.stop, &at))
        return SA_UNSUPPORTED;
    return each_region(r, whole, [&](const Region &region, Range part) {
        if (int error = keep_old(r, region, part.start, part.stop))
            return system_error(error, region.file_name(), ret);
        if (region.file)
            region.file->note_holes();
        int error = region.file && region.shared
                        ? os_punch_file(region.file->fd(), static_cast<int64_t>(region.in_file(part.start)),
                                        part.nbytes())
                        : discard_part(r, region, part);
        return error ? system_error(error, region.file_name(), ret) : int{SA_OK};
    });
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

namespace {

// Touches page by page, where the system has no call that does it.
int touch(sa_reservation *r, const Region &region, Range part, bool write, uint64_t *bad) {
    for (*bad = part.start; *bad < part.stop; *bad += r->page_size) {
        char *at = r->base + *bad;
        auto work = [&] {
            if (write)
                __atomic_fetch_or(at, 0, __ATOMIC_RELAXED);
            else
                (void)*static_cast<volatile char *>(at);
        };
        if (!region.can_fault) {
            work();
            continue;
        }
        ArmedGuard armed;
        if (!run_guarded(r->base + region.start, r->base + region.stop, work))
            return EFAULT;
    }
    return 0;
}

}  // namespace

namespace sparsearray {

int populate(sa_reservation *r, const Region &region, Range part, bool write, uint64_t *bad) {
    int error = os_populate(r->base + part.start, part.nbytes(), write);
    if (error == ENOTSUP)
        return touch(r, region, part, write, bad);
    *bad = part.start;
    if (error != EFAULT || part.nbytes() == r->page_size)
        return error;
    // Which page it was, the call does not say.
    for (; *bad < part.stop; *bad += r->page_size)
        if ((error = os_populate(r->base + *bad, r->page_size, write)))
            return error;
    return 0;
}

}  // namespace sparsearray

namespace {

constexpr uint64_t kCommitPiece = uint64_t{64} << 20;

int fetch_part(sa_reservation *r, const Region &region, Range part, bool write, sa_report *ret) {
    int damaged = check_undamaged(r, region, part, write, ret);
    if (damaged)
        part.stop = ret->offset;
    uint64_t bad;
    int reason = 0;
    for (int tries = 0; !reason && tries < 4; tries++) {  // it may be had by now, as in move_undamaged
        int error = part.nbytes() ? populate(r, region, part, write, &bad) : 0;
        if (!error)
            return damaged;
        reason = error == ENOMEM || region.huge_page ? SA_NO_MEMORY : reason_of_fault(region, bad, write);
    }
    if (!reason)
        reason = unknown_reason(region, write);
    if (reason == SA_FILE_TRUNCATED)
        region.file->tell_size();
    return access_error(reason, write, bad, 0, region.file_name(), ret);
}

Range pages_around(const sa_reservation *r, int64_t offset, int64_t nbytes) {
    uint64_t page = r->page_size, start = static_cast<uint64_t>(offset);
    uint64_t stop = start + static_cast<uint64_t>(nbytes);
    start = start / page * page;
    return {start, nbytes ? (stop + page - 1) / page * page : start};
}

// Calls visit(range) for the runs of regions that `which` takes: where those are many, a call to the system for each
// takes as long as its work.
template <class Which, class Visit> int each_run(sa_reservation *r, Range range, Which which, Visit visit) {
    Range run{range.start, range.start};
    int code = each_region(r, range, [&](const Region &region, Range part) {
        if (!which(region))
            return int{SA_OK};
        int done = SA_OK;
        if (part.start != run.stop) {
            done = run.nbytes() ? visit(run) : int{SA_OK};
            run.start = part.start;
        }
        run.stop = part.stop;
        return done;
    });
    return code || !run.nbytes() ? code : visit(run);
}

// Calls visit(region, range) for the parts of regions around `count` ranges, given by start and stop.
template <class Visit>
int each_pair(sa_reservation *r, const int64_t *pairs, uint64_t count, sa_report *ret, Visit visit) {
    Shared lock(r->lock);
    for (uint64_t i = 0; i < count; i++) {
        int64_t offset = pairs[2 * i], nbytes = pairs[2 * i + 1] - offset;
        int code = check_bounds(r, offset, nbytes, ret);
        if (!code)
            code = each_region(r, pages_around(r, offset, nbytes), visit);
        if (code)
            return code;
    }
    return SA_OK;
}

}  // namespace

int sa_commit(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Shared lock(r->lock);
    Range range;
    if (int code = check_mapped(r, offset, nbytes, Pins::None, true, &range, ret))
        return code;
    if (int code = each_region(r, range, [&](const Region &region, Range part) {
            return region.readable() ? int{SA_OK}
                                     : access_error(SA_UNMAPPED, false, part.start, 0,
                                                    region.file_name(), ret);
        }))
        return code;
    Range piece{range.start, std::min(range.stop, range.start + kCommitPiece)};
    if (int code = each_region(r, piece, [&](const Region &region, Range part) {
            return fetch_part(r, region, part, region.writable(), ret);
        })) {
        ret->transferred = ret->offset - range.start;
        return code;
    }
    ret->transferred = piece.nbytes();
    return piece.stop < range.stop ? SA_MORE : SA_OK;
}

int sa_prefetch(sa_reservation *r, const int64_t *pairs, uint64_t count, sa_report *ret) {
    return each_pair(r, pairs, count, ret, [&](const Region &region, Range part) {
        if (!region.file || !region.readable())
            return int{SA_OK};
        // By a descriptor that is there it takes a third of the time.
        if (!region.file->is_kept() ||
            os_will_need(region.file->fd(), region.in_file(part.start), part.nbytes()))
            os_advise(r->base + part.start, part.nbytes(), SA_ADVISE_WILLNEED);
        return int{SA_OK};
    });
}

int sa_make_room(sa_reservation *r, const int64_t *pairs, uint64_t count, sa_report *ret) {
    return each_pair(r, pairs, count, ret, [&](const Region &region, Range part) {
        return region.file && region.shared && region.writable()
                   ? fetch_part(r, region, part, true, ret)
                   : int{SA_OK};
    });
}

int sa_fetch(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Shared lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    auto is_read = [](const Region &region) { return region.file && region.readable(); };
    return each_run(r, pages_around(r, offset, nbytes), is_read, [&](Range run) {
        if (!r->damage.any() && os_populate(r->base + run.start, run.nbytes(), false) == 0)
            return int{SA_OK};
        return each_region(r, run, [&](const Region &region, Range part) {
            return fetch_part(r, region, part, false, ret);
        });
    });
}

int sa_forget(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Shared lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    auto can_forget = [](const Region &region) { return region.file && region.shared && !region.huge_page; };
    return each_run(r, pages_around(r, offset, nbytes), can_forget, [&](Range run) {
        if (!r->damage.any())
            os_discard(r->base + run.start, run.nbytes());  // it can be fetched again
        return int{SA_OK};
    });
}

int sa_advise(sa_reservation *r, int64_t offset, int64_t nbytes, int advice, sa_report *ret) {
    Shared lock(r->lock);
    Range range;
    if (int code = check_mapped(r, offset, nbytes, Pins::None, false, &range, ret))
        return code;
    if (int error = os_advise(r->base + range.start, range.nbytes(), advice))
        return system_error(error, "", ret);
    return SA_OK;
}

int sa_bind_numa(sa_reservation *r, int64_t offset, int64_t nbytes, int node, sa_report *ret) try {
    Shared lock(r->lock);
    Range range;
    if (int code = check_mapped(r, offset, nbytes, Pins::None, true, &range, ret))
        return code;
    if (int error = os_bind_numa(r->base + range.start, range.nbytes(), node))
        return system_error(error, "", ret);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_set_name(sa_reservation *r, int64_t offset, int64_t nbytes, const char *name,
                sa_report *ret) {
    Shared lock(r->lock);
    Range range;
    if (int code = check_mapped(r, offset, nbytes, Pins::None, true, &range, ret))
        return code;
    if (int code = each_region(r, range, [&](const Region &region, Range part) {
            if (!region.file)
                return int{SA_OK};
            ret->offset = part.start;
            copy_name(region.file_name(), ret);
            return int{SA_FILE_NAMED};
        }))
        return code;
    if (int error = os_set_name(r->base + range.start, range.nbytes(), name))
        return system_error(error, "", ret);
    return SA_OK;
}
