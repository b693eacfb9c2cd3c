// What is mapped where.
//
// Each checks everything it can before it changes anything, changes the pages, and then the table; the
// table's part cannot fail (RegionTable::prepare).
#include <algorithm>
#include <cerrno>
#include <memory>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <sys/mman.h>
#include <vector>

#include "extents.h"
#include "guard.h"
#include "mapping.h"
#include "os.h"

using namespace sparsearray;

namespace sparsearray {

int check_pins(sa_reservation *r, Range range, bool writable_only, sa_report *ret) {
    std::lock_guard<std::mutex> guard(r->holders);
    if (!r->pins.any_over(range.start, range.stop, writable_only))
        return SA_OK;
    PinSummary pins = r->pins.over(range.start, range.stop, writable_only);
    ret->count = pins.count;
    ret->start = pins.start;
    ret->stop = pins.stop;
    return SA_PINNED;
}

int check_change(sa_reservation *r, int64_t offset, int64_t nbytes, Pins forbidding, Range *range,
                 sa_report *ret) {
    if (int code = check_pages(r, offset, nbytes, ret))
        return code;
    range->start = static_cast<uint64_t>(offset);
    range->stop = range->start + static_cast<uint64_t>(nbytes);
    if (uint64_t size = r->table.cut_huge_page(range->start, range->stop, &ret->offset)) {
        ret->count = size;
        return SA_HUGE_PAGE;
    }
    return forbidding == Pins::None ? int{SA_OK}
                                    : check_pins(r, *range, forbidding == Pins::Writable, ret);
}

int check_mapped(sa_reservation *r, int64_t offset, int64_t nbytes, Pins forbidding, bool write,
                 Range *range, sa_report *ret) {
    if (int code = check_change(r, offset, nbytes, forbidding, range, ret))
        return code;
    uint64_t hole = r->table.first_hole(range->start, range->stop);
    if (hole < range->stop)
        return access_error(SA_UNMAPPED, write, hole, 0, "", ret);
    return SA_OK;
}

}  // namespace sparsearray

namespace {

// Before pages are put in the range: what must not fail after they are there.
int prepare_place(sa_reservation *r, Range range) {
    r->table.prepare();
    bool whole = range.nbytes() == r->nbytes;
    if (r->joinable || whole)
        return 0;
    r->joinable = true;
    return r->table.all().empty() ? os_make_joinable(r->base) : 0;
}

// Puts anonymous memory in the range; the table entry follows.
int place_anonymous(sa_reservation *r, Range range, int prot, bool reserve) {
    if (int error = prepare_place(r, range))
        return error;
    char *at = r->base + range.start;
    if (!reserve && r->table.empty(range.start, range.stop))
        return os_place_on_hole(at, range.nbytes(), prot);
    return os_place(at, range.nbytes(), prot, os_flags_private(reserve), -1, 0);
}

Region private_region(Range range, bool reserve) {
    Region region;
    region.start = range.start;
    region.stop = range.stop;
    region.kind = SA_PRIVATE;
    region.prot = PROT_READ | PROT_WRITE;
    region.reserve = reserve;
    return region;
}

// The regions of a range, cut to it.
std::vector<Region> parts_of(sa_reservation *r, Range range) {
    std::vector<Region> parts;
    each_region(r, range, [&](const Region &region, Range part) {
        parts.push_back(region);
        parts.back().file_offset += static_cast<int64_t>(part.start - region.start);
        parts.back().start = part.start;
        parts.back().stop = part.stop;
        return int{SA_OK};
    });
    return parts;
}

// How many of some holes may have mappings of their own, two each: half of those that are to spare go
// round until they are counted again.
uint64_t take_mappings(uint64_t holes) {
    static std::mutex lock;
    static uint64_t budget = 0, waiting = 0;
    std::lock_guard<std::mutex> guard(lock);
    if (budget / 2 < holes && waiting) {
        waiting--;  // to count them takes long where there are many
    } else if (budget / 2 < holes) {
        budget = os_mappings_to_spare() / 2;
        waiting = budget < 64 ? 1000 : 0;
    }
    holes = std::min(holes, budget / 2);
    budget -= 2 * holes;
    return holes;
}

int describe_window(MapRequest &request, Region *region, sa_report *ret) {
    const OsFile like = request.facts;
    OsFile *facts = &request.facts;
    request.is_alike = false;
    if (int error = os_describe_file(request.fd, facts, like.inode ? &like : nullptr))
        return system_error(error, request.name, ret);
    if (region->file_offset < 0)
        return SA_NEGATIVE;
    request.is_alike =
        like.is_regular && like.can_fault && facts->is_regular && like.device == facts->device;
    uint64_t unit = facts->huge_page ? facts->huge_page : os_page_size();
    uint64_t from = static_cast<uint64_t>(region->file_offset), n = request.range.nbytes();
    if (from % os_page_size())
        return SA_MISALIGNED;
    if (facts->huge_page && (from % unit || request.range.start % unit || n % unit)) {
        ret->count = unit;
        ret->offset = request.range.start;
        return SA_HUGE_PAGE;
    }
    if (facts->has_size) {
        uint64_t whole = (facts->size + unit - 1) / unit * unit;
        if (from > whole || n > whole - from) {
            ret->count = facts->size;
            copy_name(request.name, ret);
            return SA_FILE_END;
        }
        if (facts->is_regular && (facts->size_can_change || facts->size % unit))
            region->file_size = facts->size;
    }
    region->can_fault = facts->can_fault;
    region->huge_page = facts->huge_page;
    return SA_OK;
}

// Puts zero pages over the holes that the file has under a window of it, the largest ones, as far as
// mappings go round: the bytes stay the same with or without. In a copy-on-write window it is memory.
void lay_over_holes(sa_reservation *r, const Region &window, int fd) {
    if (window.huge_page)
        return;
    std::vector<Range> data;
    Range whole{window.in_file(window.start), window.in_file(window.stop)};
    if (file_data(fd, window.file->ask(), whole, &data))
        return;
    if (data.size() == 1 && data[0].start == whole.start && data[0].stop == whole.stop)
        return;
    uint64_t at_data = window.start, read_ahead = os_read_ahead(fd);
    auto read_alone = [&](uint64_t stop) {
        // What is read ahead, and around, would be the holes beside a few pages.
        if (stop - at_data < read_ahead && stop - at_data < window.nbytes())
            os_advise(r->base + at_data, stop - at_data, SA_ADVISE_RANDOM);
    };
    for (Range gap : largest_gaps(data, whole, take_mappings(data.size() + 1))) {
        Region zero;
        zero.start = window.start + (gap.start - whole.start);
        zero.stop = window.start + (gap.stop - whole.start);
        zero.kind = window.shared ? SA_ZERO : SA_PRIVATE;
        zero.prot = window.prot;
        if (window.shared) {
            zero.may_write = false;  // what is written there could not reach the file
            zero.hole_of = window.file;
            zero.file_offset = static_cast<int64_t>(gap.start);
        }
        read_alone(zero.start);
        at_data = zero.stop;
        r->table.prepare();
        char *at = r->base + zero.start;
        if (os_place(at, zero.nbytes(), zero.prot, os_flags_private(false), -1, 0))
            return;
        if (window.shared)
            os_prefer_huge_zero(at, zero.nbytes());
        r->table.replace(std::move(zero));
    }
    read_alone(window.stop);
}

}  // namespace

namespace sparsearray {

MapRequest file_request(Range range, int fd, const char *name, int descriptor, int64_t file_offset, int mode,
                        bool skip_holes) {
    MapRequest request{range, {}, 0, fd, name, descriptor, skip_holes, false, {}};
    request.region.kind = SA_FILE;
    request.region.prot = mode == SA_FILE_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    request.region.shared = mode != SA_FILE_COPY_ON_WRITE;
    request.region.file_offset = file_offset;
    request.flags = request.region.shared ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE;
    return request;
}

int map_as_asked(sa_reservation *r, MapRequest &request, sa_report *ret) {
    Region &region = request.region;
    region.start = request.range.start;
    region.stop = request.range.stop;
    int fd = -1;
    if (request.fd >= 0) {
        if (int code = describe_window(request, &region, ret))
            return code;
        bool write = region.shared && (region.prot & PROT_WRITE);
        if (int error = r->files.acquire(request.fd, request.name, request.descriptor, write, request.facts,
                                         &region.file))
            return system_error(error, request.name, ret);
        bool kept = region.file->is_kept();
        region.may_write = !region.shared || (kept ? region.file->writable() : write);
        if (region.can_fault && !request.is_alike)
            if (int error = guard_install())
                return system_error(error, request.name, ret);
        fd = kept ? int{region.file->fd()} : request.fd;
    }
    if (int error = prepare_place(r, request.range))
        return system_error(error, request.name, ret);
    char *at = r->base + region.start;
    Placing placing(r, request.range);
    // Where its neighbour could be mapped, a failure is next to impossible; then the buffer is given up.
    bool at_once = request.is_alike && r->table.empty(region.start, region.stop);
    auto place = at_once ? os_place_at_once : os_place;
    if (int error = place(at, region.nbytes(), region.prot, request.flags, fd, region.file_offset)) {
        if (at_once)
            r->give_up(request.range);
        return system_error(error, request.name, ret);
    }
    Region window = region;
    if (window.file)
        window.file->forget_told();
    r->forget_pages(window.start, window.stop);
    r->table.replace(std::move(region));
    if (request.skip_holes && request.facts.may_have_holes)
        lay_over_holes(r, window, fd);
    return SA_OK;
}

}  // namespace sparsearray

int sa_alloc(sa_reservation *r, int64_t offset, int64_t nbytes, int reserve, sa_report *ret) try {
    Exclusive lock(r->lock);
    Range range;
    if (int code = check_change(r, offset, nbytes, Pins::Any, &range, ret))
        return code;
    Placing placing(r, range);
    if (int error = place_anonymous(r, range, PROT_READ | PROT_WRITE, reserve))
        return system_error(error, "", ret);
    r->forget_pages(range.start, range.stop);
    r->table.replace(private_region(range, reserve));
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_map_zero(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    Exclusive lock(r->lock);
    Range range;
    if (int code = check_change(r, offset, nbytes, Pins::Any, &range, ret))
        return code;
    Placing placing(r, range);
    if (int error = place_anonymous(r, range, PROT_READ, false))
        return system_error(error, "", ret);
    os_prefer_huge_zero(r->base + range.start, range.nbytes());
    Region region = private_region(range, false);
    region.kind = SA_ZERO;
    region.prot = PROT_READ;
    r->forget_pages(range.start, range.stop);
    r->table.replace(std::move(region));
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_map_file(sa_reservation *r, int64_t offset, int64_t nbytes, int fd, const char *name,
                int descriptor, int64_t file_offset, int mode, int skip_holes,
                sa_report *ret) try {
    Exclusive lock(r->lock);
    Range range;
    if (int code = check_change(r, offset, nbytes, Pins::Any, &range, ret))
        return code;
    MapRequest request = file_request(range, fd, name, descriptor, file_offset, mode, skip_holes);
    return map_as_asked(r, request, ret);
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_map_raw(sa_reservation *r, int64_t offset, int64_t nbytes, int prot, int flags, int fd,
               const char *name, int descriptor, int64_t file_offset, sa_report *ret) try {
    Exclusive lock(r->lock);
    MapRequest request{{}, {}, flags, fd, name, descriptor, false, false, {}};
    if (fd < 0)
        flags &= ~MAP_ANONYMOUS;  // implied
    if (os_refuses_flags(prot, flags, ret->file, sizeof ret->file))
        return SA_BAD_FLAG;
    if (int code = check_change(r, offset, nbytes, Pins::Any, &request.range, ret))
        return code;
    request.region.kind = SA_RAW;
    request.region.prot = prot;
    request.region.shared = !(flags & MAP_PRIVATE);
    request.region.file_offset = file_offset;
    if (fd < 0)
        request.flags |= MAP_ANONYMOUS;
    return map_as_asked(r, request, ret);
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_refresh(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    Exclusive lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    uint64_t page = r->page_size, start = static_cast<uint64_t>(offset) / page * page;
    uint64_t stop = (static_cast<uint64_t>(offset + nbytes) + page - 1) / page * page;
    uint64_t found = 0;
    if (!nbytes)
        stop = start;
    for (const Region &hole : parts_of(r, {start, stop})) {
        if (!hole.hole_of)
            continue;
        Region window = hole;
        window.kind = SA_FILE;
        window.shared = true;
        window.file.swap(window.hole_of);
        std::vector<Range> data;
        OsFile facts;
        Borrowed fd = window.file->fd();
        int error = fd < 0 ? errno : os_describe_file(fd, &facts);
        if (!error)
            error = file_data(fd, window.file->ask(), {window.in_file(window.start), window.in_file(window.stop)},
                              &data);
        if (error)
            return system_error(error, window.file_name(), ret);
        if (data.empty())
            continue;
        for (Range run : data)
            found += run.nbytes();
        // From its first data to its last: what lies past the end of the file must stay zero pages.
        uint64_t from = window.in_file(window.start);
        window.stop = window.start + (data.back().stop - from);
        window.start += data.front().start - from;
        window.file_offset = static_cast<int64_t>(data.front().start);
        window.may_write = window.file->writable();
        window.file_size = facts.size_can_change || facts.size % page ? facts.size : UINT64_MAX;
        window.can_fault = facts.can_fault;
        r->table.prepare();
        // Windows may be alive: the pages change in one step, and still show what the file holds. The table
        // comes first, so that no fault finds pages of a file that it does not know of.
        window.shown = true;
        Region zeros = hole;
        zeros.file_offset += static_cast<int64_t>(window.start - hole.start);
        zeros.start = window.start;
        zeros.stop = window.stop;
        r->table.replace(window);
        error = os_place(r->base + window.start, window.nbytes(), window.prot, MAP_SHARED,
                         fd, window.file_offset);
        if (error) {
            int code = system_error(error, window.file_name(), ret);
            r->table.prepare();
            r->table.replace(std::move(zeros));
            return code;
        }
        lay_over_holes(r, window, fd);
    }
    ret->count = found;
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_unmap(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) try {
    Exclusive lock(r->lock);
    Range range;
    if (int code = check_change(r, offset, nbytes, Pins::Any, &range, ret))
        return code;
    if (r->table.empty(range.start, range.stop))
        return SA_OK;
    r->table.prepare();
    Placing placing(r, range);
    if (int error = os_make_hole(r->base + range.start, range.nbytes()))
        return system_error(error, "", ret);
    r->forget_pages(range.start, range.stop);
    r->table.erase(range.start, range.stop);
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

namespace {

// One region's part of set_writable, in memory and in the table.
int set_part_writable(sa_reservation *r, Region part, bool writable) {
    char *at = r->base + part.start;
    int prot = writable ? part.prot | PROT_WRITE : part.prot & ~PROT_WRITE;
    if (prot == part.prot && part.kind != SA_RAW)  // what is cut off a raw mapping stays apart
        return 0;
    Region old = part;
    part.prot = prot;
    if (part.kind == SA_ZERO)
        part.kind = SA_PRIVATE;
    // The table comes first: pages that a fault puts here meanwhile can then be written, too.
    r->table.replace(part);
    // What was all zeros is fresh memory, which shows the same.
    int error = old.kind == SA_ZERO
                    ? os_place(at, part.nbytes(), prot, os_flags_private(false), -1, 0)
                    : os_protect(at, part.nbytes(), prot);
    if (error) {
        r->table.prepare();
        r->table.replace(std::move(old));
    }
    return error;
}

}  // namespace

int sa_set_writable(sa_reservation *r, int64_t offset, int64_t nbytes, int writable,
                    sa_report *ret) try {
    Exclusive lock(r->lock);
    Range range;
    Pins forbidding = writable ? Pins::None : Pins::Writable;
    if (int code = check_mapped(r, offset, nbytes, forbidding, true, &range, ret))
        return code;
    std::vector<Region> parts = parts_of(r, range);
    for (const Region &part : parts)
        if (writable && !part.may_write)
            return system_error(EACCES, part.file_name(), ret);
    for (size_t i = 0; i < parts.size(); i++) {
        r->table.prepare();
        int error = set_part_writable(r, parts[i], writable);
        if (!error)
            continue;
        for (size_t j = 0; j < i; j++) {  // as they were; what cannot be undone stays in the table
            r->table.prepare();
            if (os_protect(r->base + parts[j].start, parts[j].nbytes(), parts[j].prot) == 0)
                r->table.replace(parts[j]);
        }
        return system_error(error, parts[i].file_name(), ret);
    }
    return SA_OK;
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}

int sa_check_unpinned(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret) {
    Shared lock(r->lock);
    if (int code = check_bounds(r, offset, nbytes, ret))
        return code;
    uint64_t start = static_cast<uint64_t>(offset);
    return check_pins(r, {start, start + static_cast<uint64_t>(nbytes)}, false, ret);
}

int sa_accept_ends(sa_reservation *r, sa_report *) {
    Exclusive lock(r->lock);
    std::lock_guard<FaultLock> held(fault_lock);
    for (auto &[start, region] : r->table.map())
        if (region.file && region.file_size != UINT64_MAX)
            region.file_size = std::min(region.file_size, region.file->size_now());
    return r->closed ? SA_CLOSED : SA_OK;
}
