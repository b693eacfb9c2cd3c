// Boxes of arrays that lie tile by tile, moved to and from arrays of the caller's.
//
// Use case: a small box of a huge array. In row-major order each of its rows lies on pages of its own;
// tile by tile it lies on few, and only those that hold something are read.
//
// How it works:
// 1. Along each axis the selection is cut into segments that stay inside one tile. A segment of every axis
//    together make a piece: what is selected of one tile.
// 2. The whole selection is checked against the region table before anything moves.
// 3. A piece is a strided copy with rows as long as both sides have them. In files it runs under the guard,
//    tile by tile; where that is of no use (the handler is not ours, something is damaged, the file became
//    shorter) it moves row by row through the calls that find the first bad byte.
// 4. To read, the system is asked which pages hold something, a row of tiles at a time, and the rest of the
//    caller's array is set to zero.
#include <algorithm>
#include <cerrno>
#include <mutex>
#include <new>
#include <vector>

#include "extents.h"
#include "moves.h"
#include "pool.h"
#include "rows.h"

using namespace sparsearray;

namespace {

// Of one axis, in bytes: as many of them as there can be do not overflow.
constexpr int64_t kMostPlace = INT64_MAX / 128;
// Pages are asked for this far ahead: neighbouring rows of a small array come with one question.
constexpr uint64_t kAhead = uint64_t{2} << 20;
// A piece of a file that is read at once where the guard is of no use.
constexpr uint64_t kMostBounced = uint64_t{1} << 20;

// Items of one axis that lie in one tile, upwards.
struct Segment {
    int64_t first;    // which of the selection is the lowest
    int64_t count;
    uint64_t at;      // of that, in bytes from the first tile of the axis
    int64_t our_step;   // bytes from each to the next, here
    int64_t their_step; // and in the caller's array
};

struct Axis {
    const Segment *begin;
    const Segment *end;
    uint64_t low, high;  // first byte of any segment, and first of its last items
};

class Box {
  public:
    Box(sa_reservation *r, uint64_t offset, const sa_axis *axes, uint64_t ndim, uint64_t itemsize,
        char *data, int how, const TilePool *pool, sa_report *ret)
        : r_(r), pool_(pool), offset_(offset), axes_(axes), ndim_(ndim), itemsize_(itemsize), data_(data), how_(how),
          ret_(ret) {}

    // What is moved; false if it is nothing, or lies beyond any address: `code` says which.
    bool prepare(int *code) {
        bool any = cut();
        *code = is_outside_ ? SA_BOUNDS : SA_OK;
        return any && !is_outside_;
    }

    // That there are such tiles; and all that is stored, against the table.
    int check_tiles() {
        uint64_t last = 0;
        for (uint64_t k = 0; k < ndim_; k++)
            last += parts_[k].high;
        if (!pool_->has(last, itemsize_)) {
            ret_->offset = pool_->tiles() * pool_->tile_nbytes();
            return SA_BOUNDS;
        }
        group_ = UINT64_MAX;
        low_ = pool_->start();
        high_ = pool_->stop();
        return check_pool(r_, how_ != SA_BOX_READ, ret_);
    }

    // The tiles of the pool that are written to, and not stored.
    std::vector<uint64_t> missing() {
        std::vector<uint64_t> found;
        auto look = [&](const Segment *const *at, Piece &piece) {
            if (piece.is_there)
                return;
            if (how_ == SA_BOX_WRITE_FILLED) {
                fill_in(at, &piece);
                if (is_zero_piece(piece))
                    return;
            }
            found.push_back(piece.number);
        };
        Piece piece;
        if (!ndim_) {
            fill_in(nullptr, &piece);
            look(nullptr, piece);
            return found;
        }
        // Along a row of tiles only their places differ.
        each_place(ndim_ - 1, [&](const Segment **at) {
            fill_in(at, &piece);
            const Segment *begin = at[ndim_ - 1];
            for (uint64_t place = piece.place; at[ndim_ - 1] < parts_[ndim_ - 1].end; at[ndim_ - 1]++) {
                piece.place = place + (at[ndim_ - 1]->at - begin->at);
                find(&piece);
                look(at, piece);
            }
            at[ndim_ - 1] = begin;
            return int{SA_OK};
        });
        return found;
    }

    int move() {
        if (int code = pool_ ? check_tiles() : check())
            return code;
        if (how_ == SA_BOX_READ) {
            if (int code = run(false))
                return code;
            return pool_ || is_whole() ? int{SA_OK} : run(true);
        }
        return run(!pool_ && r_->damage.any());
    }

  private:
    // Cuts each axis into segments; false if nothing is selected.
    bool cut() {
        size_t ends[kMostAxes];
        for (uint64_t k = 0; k < ndim_; k++) {
            const sa_axis &axis = axes_[k];
            if (axis.count <= 0)
                return false;
            size_t first = segments_.size();
            for (int64_t i = 0; i < axis.count;)
                i = axis.places ? cut_places(axis, i) : cut_steps(axis, i);
            // Upwards in memory, as far as their order does not matter: places to write to can be the same.
            auto begin = segments_.begin() + static_cast<ptrdiff_t>(first);
            if (!axis.places && axis.step < 0)
                std::reverse(begin, segments_.end());
            else if (axis.places && how_ == SA_BOX_READ)
                std::sort(begin, segments_.end(),
                          [](const Segment &a, const Segment &b) { return a.at < b.at; });
            ends[k] = segments_.size();
        }
        for (uint64_t k = 0; k < ndim_; k++) {
            const Segment *begin = segments_.data() + (k ? ends[k - 1] : 0);
            parts_[k] = {begin, segments_.data() + ends[k], UINT64_MAX, 0};
            for (const Segment *s = begin; s < parts_[k].end; s++) {
                parts_[k].low = std::min(parts_[k].low, s->at);
                parts_[k].high = std::max(parts_[k].high, last_of(*s));
            }
        }
        return true;
    }

    static uint64_t last_of(const Segment &s) {
        return s.at + static_cast<uint64_t>((s.count - 1) * s.our_step);
    }

    // Notes what lies beyond any address.
    uint64_t place(const sa_axis &axis, int64_t number) {
        int64_t outer = 0, inner = 0, sum = 0;
        if (number < 0 || __builtin_mul_overflow(number / axis.tile, axis.tile_step, &outer) ||
            __builtin_mul_overflow(number % axis.tile, axis.item_step, &inner) ||
            __builtin_add_overflow(outer, inner, &sum) || sum > kMostPlace)
            is_outside_ = true;
        return static_cast<uint64_t>(sum);
    }

    int64_t cut_steps(const sa_axis &axis, int64_t i) {
        int64_t number = axis.start + i * axis.step, inside = number % axis.tile;
        int64_t room = axis.step > 0 ? axis.tile - 1 - inside : inside;
        int64_t pace = axis.step > 0 ? axis.step : -axis.step;
        int64_t n = std::min(axis.count - i, room / pace + 1);
        int64_t ours = n > 1 ? pace * axis.item_step : 0;  // fits() keeps it within a tile
        if (axis.step > 0)
            segments_.push_back({i, n, place(axis, number), ours, axis.stride});
        else  // from its other end, upwards
            segments_.push_back({i + n - 1, n, place(axis, number + (n - 1) * axis.step), ours,
                                 -axis.stride});
        return i + n;
    }

    int64_t cut_places(const sa_axis &axis, int64_t i) {
        // Once for each use: what was checked must be what is used.
        int64_t number = __atomic_load_n(axis.places + i, __ATOMIC_RELAXED), n = 1;
        while (i + n < axis.count && number < INT64_MAX - n && (number + n) % axis.tile &&
               __atomic_load_n(axis.places + i + n, __ATOMIC_RELAXED) == number + n)
            n++;
        segments_.push_back({i, n, place(axis, number), n > 1 ? axis.item_step : 0, axis.stride});
        return i + n;
    }

    // All of it, against the table.
    int check() {
        bool write = how_ != SA_BOX_READ;
        low_ = high_ = offset_;
        for (uint64_t k = 0; k < ndim_; k++) {
            low_ += parts_[k].low;
            high_ += parts_[k].high;
        }
        high_ += itemsize_;
        Region *region = nullptr;
        int64_t low = static_cast<int64_t>(low_), nbytes = static_cast<int64_t>(high_ - low_);
        int code = check_range(r_, low, nbytes, write, &region, ret_);
        if (code != SA_ACCESS)
            return code;
        // Something in between, which need not be selected.
        return each_piece([&](const Piece &piece) {
            Region *first = nullptr;
            return check_range(r_, static_cast<int64_t>(piece.at),
                               static_cast<int64_t>(piece.stop - piece.at), write, &first, ret_);
        });
    }

    // Calls `work` for the segments of the first axes one after the other, in the order of the selection,
    // until it returns a code. Those of the other axes are their first ones.
    template <class Work> int each_place(uint64_t axes, Work &&work) {
        const Segment *at[kMostAxes];
        for (uint64_t k = 0; k < ndim_; k++)
            at[k] = parts_[k].begin;
        for (;;) {
            if (int code = work(at))
                return code;
            uint64_t k = axes;
            while (k > 0 && ++at[k - 1] == parts_[k - 1].end) {
                at[k - 1] = parts_[k - 1].begin;
                k--;
            }
            if (k == 0)
                return SA_OK;
        }
    }

    template <class Work> int each_piece(Work &&work) {
        return each_place(ndim_, [&](const Segment **at) {
            Piece piece;
            fill_in(at, &piece);
            return work(piece);
        });
    }

    void fill_in(const Segment *const *at, Piece *piece) {
        uint64_t ours = pool_ ? 0 : offset_, last = 0;
        int64_t theirs = 0;
        uint64_t items = itemsize_;
        piece->run = itemsize_;
        piece->ndim = 0;
        bool joins = true;
        // From the innermost axis outwards; rows grow while both sides go on without a gap.
        Side found[kMostAxes];
        for (uint64_t k = ndim_; k-- > 0;) {
            const Segment &s = *at[k];
            ours += s.at;
            last += static_cast<uint64_t>((s.count - 1) * s.our_step);
            theirs += s.first * axes_[k].stride;
            items *= static_cast<uint64_t>(s.count);
            if (s.count == 1)
                continue;
            int64_t run = static_cast<int64_t>(piece->run);
            if (joins && s.our_step == run && (s.their_step == run || how_ == SA_BOX_CLEAR)) {
                piece->run *= static_cast<uint64_t>(s.count);
                continue;
            }
            joins = false;
            found[piece->ndim++] = {s.count, s.our_step, s.their_step};
        }
        std::reverse_copy(found, found + piece->ndim, piece->sides);
        piece->place = ours;
        piece->at = pool_ ? find(piece) : ours;
        piece->stop = piece->at + last + itemsize_;
        piece->data = data_ + theirs;
        piece->items = items;
    }

    // Where a piece lies in the pool, by its place; 0 and no tile where it is not stored.
    uint64_t find(Piece *piece) {
        uint64_t inside = 0;
        piece->number = pool_->number_of(piece->place, &inside);
        if (piece->number / TilePool::kGroup != group_) {
            group_ = piece->number / TilePool::kGroup;
            slots_ = pool_->group_of(piece->number);
        }
        uint64_t at = pool_->at(slots_[piece->number % TilePool::kGroup]);
        piece->is_there = at != TilePool::kNone;
        return piece->is_there ? at + inside : 0;
    }

    // Moves all pieces; `slowly`: each row by itself, until the first bad byte.
    int run(bool slowly) {
        done_ = 0;
        known_ = 0;
        region_ = nullptr;
        slowly_ = slowly;
        auto move = [&](const Piece &piece) {
            int code = how_ == SA_BOX_READ    ? read(piece)
                       : how_ == SA_BOX_CLEAR ? clear(piece)
                                              : write(piece);
            done_ += piece.items;
            return code;
        };
        if (slowly || how_ > SA_BOX_WRITE || !lies_in_rows())
            return each_piece(move);
        return each_place(ndim_ - 1, [&](const Segment **at) {
            const Axis &last = parts_[ndim_ - 1];
            for (at[ndim_ - 1] = last.begin; at[ndim_ - 1] < last.end;) {
                const Segment *stop = std::min(last.end, at[ndim_ - 1] + kPartsAtOnce);
                int code = SA_OK;
                if (int error = move_side_by_side(at, stop, &code))
                    return system_error(error, "", ret_);
                for (; code == SA_MORE && at[ndim_ - 1] < stop; at[ndim_ - 1]++) {
                    Piece piece;
                    fill_in(at, &piece);
                    if (int failed = move(piece))
                        return failed;
                }
                at[ndim_ - 1] = stop;
            }
            at[ndim_ - 1] = last.begin;
            return int{SA_OK};
        });
    }

    // Whether all along the last axis lies without a gap, here and in the caller's array.
    bool lies_in_rows() const {
        if (!ndim_)
            return false;
        int64_t size = static_cast<int64_t>(itemsize_);
        const Axis &last = parts_[ndim_ - 1];
        return axes_[ndim_ - 1].stride == size && std::all_of(last.begin, last.end, [&](const Segment &s) {
                   return s.count == 1 || (s.our_step == size && s.their_step == size);
               });
    }

    // Moves pieces of one row of tiles together. SA_MORE in `code`: they go one by one. 0 or an errno.
    int move_side_by_side(const Segment **at, const Segment *stop, int *code) {
        const Segment *begin = at[ndim_ - 1];
        Piece first, piece;
        fill_in(at, &first);
        // Rows of the caller's that lap over each other: one tile's part of them may be one run.
        if (stop - begin > 1 && first.run != static_cast<uint64_t>(begin->count) * itemsize_) {
            *code = SA_MORE;
            return 0;
        }
        side_by_side_.clear();
        bool read = how_ == SA_BOX_READ, any = false;
        uint64_t inside = first.stop - first.at - static_cast<uint64_t>(begin->count) * itemsize_;
        uint64_t low = UINT64_MAX, high = 0;
        for (const Segment *s = begin; s < stop; s++) {
            uint64_t run = static_cast<uint64_t>(s->count) * itemsize_;
            piece.place = first.place + (s->at - begin->at);
            piece.at = pool_ ? find(&piece) : piece.place;
            piece.stop = piece.at + inside + run;
            if (stop - begin == 1)
                run = first.run;  // may hold several rows
            bool stored = true;
            if (read) {
                note_read(piece);
                if (int error = is_stored(piece, &stored))
                    return error;
            }
            CopyRows rows = !stored ? zero_rows : read ? copy_of<false>(run) : copy_of<true>(run);
            side_by_side_.push_back({piece.at, (s->first - begin->first) * axes_[ndim_ - 1].stride, rows, run});
            if (!stored)
                continue;
            any = true;
            low = std::min(low, piece.at);
            high = std::max(high, piece.stop);
        }
        if (!any) {  // one row of zeros after the other, and no tile
            uint64_t run = 0;
            bool joins = true;  // in the order in which they lie there
            for (const Part &part : side_by_side_) {
                joins &= part.theirs == static_cast<int64_t>(run);
                run += part.run;
            }
            if (joins)
                side_by_side_.assign(1, {0, 0, zero_rows, run});
        } else {
            piece.at = low;
            piece.stop = high;
            if (!enter(piece) || (region_->can_fault && !ready_)) {
                *code = SA_MORE;
                return 0;
            }
        }
        // SAFETY: check() found every byte of the pieces in a region that allows the access; of holes nothing
        // is touched.
        if (!any || !region_->can_fault)
            move_parts(side_by_side_, first, r_->base);
        else if (!run_guarded(r_->base + region_->start, r_->base + region_->stop,
                              [&] { move_parts(side_by_side_, first, r_->base); }))
            *code = SA_MORE;
        if (*code == SA_OK)
            for (const Segment *s = begin; s < stop; s++) {
                uint64_t from = first.at + (s->at - begin->at), count = static_cast<uint64_t>(s->count);
                if (!read && !pool_)
                    r_->hints.note(from / r_->page_size, (from + inside + count * itemsize_ - 1) / r_->page_size);
                done_ += first.items / static_cast<uint64_t>(begin->count) * count;
            }
        return 0;
    }

    int read(const Piece &piece) {
        if (!slowly_) {
            note_read(piece);
            bool stored = true;
            if (int error = is_stored(piece, &stored))
                return system_error(error, "", ret_);
            if (!stored) {
                zero_piece(piece);
                return SA_OK;
            }
            if (enter(piece) && copy<false>(piece))
                return SA_OK;
        }
        return read_slowly(piece);
    }

    int write(const Piece &piece) {
        // What was all zeros when tiles were made is left out, whatever it has become.
        if (how_ == SA_BOX_WRITE_FILLED && (!piece.is_there || is_zero_piece(piece)))
            return SA_OK;
        if (!slowly_ && enter(piece) && copy<true>(piece))
            return SA_OK;
        return move_rows<CopyIn>(piece);
    }

    // Of its pages only those that hold something.
    int clear(const Piece &piece) {
        bool any = false;
        if (int error = is_stored(piece, &any))
            return system_error(error, "", ret_);
        if (!any)
            return SA_OK;
        int code = SA_OK;
        uint64_t cleared = 0;
        each_row(piece, r_->base + piece.at, [&](char *ours, char *) {
            uint64_t at = static_cast<uint64_t>(ours - r_->base), stop = at + piece.run;
            if (pool_ && !code)
                code = move_range(at, piece.run, Fill{0});
            for (size_t i = next_; i < stored_.size() && stored_[i].start < stop && !code; i++) {
                uint64_t start = std::max(at, stored_[i].start), end = std::min(stop, stored_[i].stop);
                if (start < end && (code = move_range(start, end - start, Fill{0})))
                    ret_->transferred += done_ + cleared;
            }
            cleared += piece.run;
        });
        return code;
    }

    // Whether the piece lies in one region, which becomes that of this and the next ones; and may be written at once.
    bool enter(const Piece &piece) {
        if (!enter_region(piece))
            return false;
        // Where that fails, the error comes of moving row by row.
        return how_ == SA_BOX_READ || !keep_old(r_, *region_, piece.at, piece.stop);
    }

    bool enter_region(const Piece &piece) {
        if (region_ && piece.at >= region_->start && piece.stop <= region_->stop)
            return true;
        region_ = r_->table.find(piece.at);
        if (!region_ || piece.stop > region_->stop) {
            region_ = nullptr;
            return false;
        }
        // One look at the file is enough if it holds for all that may come.
        bool write = how_ != SA_BOX_READ;
        uint64_t low = std::max(low_, region_->start), n = std::min(high_, region_->stop) - low;
        if (write && region_->file && still_in_file(r_, *region_, low, n, true) < n) {
            region_ = nullptr;
            return false;
        }
        ready_ = region_->can_fault && !r_->damage.any() && guard_ready();
        return true;
    }

    template <bool Write> bool copy(const Piece &piece) {
        // SAFETY: check() found every byte of the piece in a region that allows the access.
        char *ours = r_->base + piece.at;
        if (!region_->can_fault) {
            copy_piece<Write>(piece, ours);
            return true;
        }
        return ready_ && run_guarded(r_->base + region_->start, r_->base + region_->stop,
                                     [&] { copy_piece<Write>(piece, ours); });
    }

    // Whether any page of a piece may hold something.
    int is_stored(const Piece &piece, bool *ret) {
        if (pool_) {
            *ret = piece.is_there;
            return 0;
        }
        uint64_t page = r_->page_size;
        if (how_ == SA_BOX_READ && r_->hints.has(piece.at / page, (piece.stop - 1) / page)) {
            *ret = true;
            return 0;
        }
        if (piece.stop > known_ || piece.at < known_from_) {
            stored_.clear();
            next_ = 0;
            known_from_ = piece.at / page * page;
            // To the end of a row of tiles, at least; they come in this order.
            uint64_t row = piece.stop;
            if (ndim_ && parts_[ndim_ - 1].end[-1].at >= parts_[ndim_ - 1].begin->at)
                row += parts_[ndim_ - 1].end[-1].at - parts_[ndim_ - 1].begin->at;
            known_ = std::max(std::min(high_, known_from_ + kAhead), std::min(row, high_));
            known_ = std::max(known_, piece.stop);
            known_ = (known_ + page - 1) / page * page;
            if (int error = find_stored(r_, {known_from_, known_}, &stored_))
                return error;
            for (const Range &run : stored_)
                r_->hints.note(run.start / page, run.stop / page - 1);
        }
        // Mostly the one after the last; else it is looked for.
        if (next_ >= stored_.size() || stored_[next_].start >= piece.stop || stored_[next_].stop <= piece.at)
            next_ = static_cast<size_t>(
                std::upper_bound(stored_.begin(), stored_.end(), piece.at,
                                 [](uint64_t at, const Range &run) { return at < run.stop; }) -
                stored_.begin());
        *ret = next_ < stored_.size() && stored_[next_].start < piece.stop;
        return 0;
    }

    // Reads what may not be there: the tile as a whole, or else row by row up to the first bad byte.
    int read_slowly(const Piece &piece) {
        uint64_t nbytes = piece.stop - piece.at;
        if (piece.ndim && nbytes <= kMostBounced) {
            bounce_.resize(nbytes);
            if (!move_range(piece.at, nbytes, CopyOut{bounce_.data()})) {
                copy_piece<false>(piece, bounce_.data());
                return SA_OK;
            }
        }
        return move_rows<CopyOut>(piece);
    }

    template <class Move> int move_rows(const Piece &piece) {
        int code = SA_OK;
        uint64_t moved = 0;
        each_row(piece, r_->base + piece.at, [&](char *ours, char *theirs) {
            if (code)
                return;
            code = move_range(static_cast<uint64_t>(ours - r_->base), piece.run, Move{theirs});
            if (code)
                ret_->transferred += done_ + moved;
            moved += piece.run;
        });
        return code;
    }

    template <class Move> int move_range(uint64_t at, uint64_t nbytes, const Move &move) {
        for (uint64_t done = 0; done < nbytes;) {
            // SAFETY: as in copy(); what lies between the items of a piece may be in no region.
            Region *region = r_->table.find(at + done);
            if (!region || !(Move::write ? region->writable() : region->readable()))
                return access_error(SA_UNMAPPED, Move::write, at + done, done, "", ret_);
            uint64_t step = std::min(nbytes - done, region->stop - (at + done));
            if (int code = move_in_region(r_, *region, at + done, done, step, move, ret_))
                return code;
            done += step;
        }
        return SA_OK;
    }

    // Before reading a piece: where files are to be looked at afterwards. Of one region, at all of it that may come.
    void note_read(const Piece &piece) {
        if (pool_ || (piece.at >= seen_.start && piece.stop <= seen_.stop))
            return;
        for (uint64_t at = piece.at; at < piece.stop; at = seen_.stop) {
            const Region *region = r_->table.at_or_after(at);
            if (!region)
                return;
            seen_ = {std::max(low_, region->start), std::min(high_, region->stop)};
            if (region->file && (read_.empty() || read_.back().start != seen_.start))
                read_.push_back(seen_);
        }
    }

    // After reading: whether the files behind it still reach as far as the selection.
    bool is_whole() {
        if (r_->damage.any())
            return false;
        // Rows of tiles may have gone to and fro between files.
        std::sort(read_.begin(), read_.end(), [](Range a, Range b) { return a.start < b.start; });
        auto last = std::unique(read_.begin(), read_.end(), [](Range a, Range b) { return a.start == b.start; });
        return std::all_of(read_.begin(), last, [&](Range part) {
            const Region *region = r_->table.find(part.start);
            return !region || still_in_file(r_, *region, part.start, part.nbytes(), false) == part.nbytes();
        });
    }

    sa_reservation *r_;
    const TilePool *pool_;  // null where tiles lie as their numbers say
    uint64_t offset_;
    const sa_axis *axes_;
    uint64_t ndim_;
    uint64_t itemsize_;
    char *data_;
    int how_;
    sa_report *ret_;

    std::vector<Segment> segments_;
    bool is_outside_ = false;
    Axis parts_[kMostAxes];
    uint64_t low_ = 0, high_ = 0;  // between which the selection lies

    const Region *region_ = nullptr;  // that pieces are in
    bool ready_ = false;              // the guard serves
    bool slowly_ = false;
    uint64_t done_ = 0;
    Range seen_{0, 0};         // the part of a region that was noted last
    std::vector<Range> read_;  // those that lie in files
    std::vector<Range> stored_;  // between known_from_ and known_
    uint64_t known_from_ = 0, known_ = 0;
    size_t next_ = 0;
    uint64_t group_ = UINT64_MAX;  // of tiles, whose slots these are while the lock is held
    const uint32_t *slots_ = nullptr;
    std::vector<char> bounce_;
    std::vector<Part> side_by_side_;
};

// Whether no place along an axis overflows, so that what is checked of it is all of it.
bool fits(const sa_axis &axis, int64_t nbytes) {
    int64_t most = axis.tile - 1, inside = 0, last = 0;
    if (!axis.places) {
        // As many items as there are bytes, at most, for they are apart.
        if (axis.step == 0 || axis.step == INT64_MIN || axis.start < 0 || axis.count > nbytes ||
            __builtin_mul_overflow(axis.count - 1, axis.step, &last) ||
            __builtin_add_overflow(axis.start, last, &last) || last < 0)
            return false;
        most = std::min(most, std::max(axis.start, last));
    }
    return !__builtin_mul_overflow(most, axis.item_step, &inside) && inside <= kMostPlace;
}

// Whether axes, which fit, are those of an array that has one tile of the pool for each of its own.
bool are_of_pool(const TilePool &pool, const sa_axis *axes, uint64_t ndim, uint64_t itemsize) {
    uint64_t inside = itemsize;
    for (uint64_t k = 0; k < ndim; k++) {
        uint64_t most = static_cast<uint64_t>(axes[k].tile) - 1, step = static_cast<uint64_t>(axes[k].item_step);
        if (static_cast<uint64_t>(axes[k].tile_step) % pool.tile_nbytes() || inside > pool.tile_nbytes() ||
            (step && most > pool.tile_nbytes() / step))
            return false;
        inside += most * step;
    }
    return inside <= pool.tile_nbytes();
}

}  // namespace

int sa_move_box(sa_reservation *r, int64_t offset, const sa_axis *axes, uint64_t ndim, int64_t itemsize,
                char *data, int how, sa_report *ret) try {
    SharedLock lock(r->lock);
    if (r->closed)
        return SA_CLOSED;
    bool pooled = offset == SA_POOL;
    if ((offset < 0 && !pooled) || itemsize < 0 || ndim > kMostAxes)
        return SA_NEGATIVE;
    if (pooled && !r->pool)
        return SA_UNSUPPORTED;
    for (uint64_t k = 0; k < ndim; k++)
        if (axes[k].tile < 1 || axes[k].tile_step < 0 || axes[k].item_step < 0)
            return SA_NEGATIVE;
    ret->transferred = 0;
    ret->offset = r->nbytes;
    if (how < SA_BOX_READ || how > SA_BOX_CLEAR)
        return SA_NEGATIVE;
    if (!itemsize)
        return SA_OK;
    for (uint64_t k = 0; k < ndim; k++)
        if (axes[k].count <= 0)
            return SA_OK;
    for (uint64_t k = 0; k < ndim; k++)
        if (!fits(axes[k], static_cast<int64_t>(r->nbytes)))
            return SA_BOUNDS;
    if (pooled && !are_of_pool(*r->pool, axes, ndim, static_cast<uint64_t>(itemsize)))
        return SA_MISALIGNED;
    Box box(r, static_cast<uint64_t>(offset), axes, ndim, static_cast<uint64_t>(itemsize), data, how,
            pooled ? r->pool.get() : nullptr, ret);
    int code = SA_OK;
    if (!box.prepare(&code))
        return code;
    if (pooled && (how == SA_BOX_WRITE || how == SA_BOX_WRITE_FILLED)) {
        // Another thread can drop tiles that were just made before the lock is shared again: then once more.
        for (;;) {
            // First, or tiles are made for a box that reaches past the end: what is zero there is not missing.
            if (int failed = box.check_tiles())
                return failed;
            std::vector<uint64_t> missing = box.missing();
            if (missing.empty())
                break;
            lock.unlock();
            if (int failed = make_tiles(r, &missing, ret))
                return failed;
            lock.lock();
        }
    }
    return box.move();
} catch (const std::bad_alloc &) {
    return system_error(ENOMEM, "", ret);
}
