// Rows of bytes copied between two strided arrays: what is selected of a tile here, and the caller's there.
//
// A row is what goes on without a gap on both sides. Most arrays have short ones, a row of a tile, so their
// length is a constant for the usual lengths, and rows of tiles that lie side by side go together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "copy.h"

namespace sparsearray {

constexpr uint64_t kMostAxes = 64;

struct Side {
    int64_t count;
    int64_t ours;    // bytes from one to the next
    int64_t theirs;
};

// What is selected of one tile: rows of `run` bytes along some axes, outermost first.
struct Piece {
    uint64_t place;  // as if all tiles were there
    uint64_t at;     // in the reservation
    uint64_t stop;
    char *data;
    uint64_t run;
    uint64_t items;  // bytes of them all
    uint64_t number = 0;  // of its tile, in a pool
    bool is_there = true;
    int ndim;
    Side sides[kMostAxes];
};

// A row of the selection after another: `move(ours, theirs)` with places of rows.
template <class Move> void each_row(const Side *side, const Side *last, char *ours, char *theirs, Move &&move) {
    if (side == last) {
        for (int64_t i = 0; i < side->count; i++, ours += side->ours, theirs += side->theirs)
            move(ours, theirs);
        return;
    }
    for (int64_t i = 0; i < side->count; i++, ours += side->ours, theirs += side->theirs)
        each_row(side + 1, last, ours, theirs, move);
}

template <class Move> void each_row(const Piece &piece, char *ours, Move &&move) {
    if (piece.ndim == 0)
        move(ours, piece.data);
    else
        each_row(piece.sides, piece.sides + piece.ndim - 1, ours, piece.data, move);
}

// Copies rows that are as long, and lie as far apart, as each other.
struct Rows {
    int64_t count;
    int64_t ours, theirs;  // bytes from one to the next
    uint64_t run;          // bytes of one
};
using CopyRows = void (*)(char *ours, char *theirs, const Rows &rows);

template <uint64_t Size, bool Write> void copy_sized(char *ours, char *theirs, const Rows &rows) {
    for (int64_t i = 0; i < rows.count; i++, ours += rows.ours, theirs += rows.theirs)
        memcpy(Write ? ours : theirs, Write ? theirs : ours, Size);
}

// Rows of Size to 2 * Size bytes: what both ends have in common is copied twice.
template <uint64_t Size, bool Write> void copy_ends(char *ours, char *theirs, const Rows &rows) {
    uint64_t last = rows.run - Size;
    for (int64_t i = 0; i < rows.count; i++, ours += rows.ours, theirs += rows.theirs) {
        char *to = Write ? ours : theirs, *from = Write ? theirs : ours, ends[2][Size];
        memcpy(ends[0], from, Size);
        memcpy(ends[1], from + last, Size);
        memcpy(to, ends[0], Size);
        memcpy(to + last, ends[1], Size);
    }
}

template <bool Write> void copy_any(char *ours, char *theirs, const Rows &rows) {
    for (int64_t i = 0; i < rows.count; i++, ours += rows.ours, theirs += rows.theirs) {
        if (Write)
            copy_in_order(ours, theirs, rows.run);
        else
            copy_bytes(theirs, ours, rows.run);
    }
}

#ifdef __x86_64__
// With the registers of newer processors, for the rows of tiles that most arrays have.
template <uint64_t Size>
__attribute__((target("avx2"), always_inline)) inline void copy_row_wide(char *to, const char *from) {
    __m256i row[Size / 32];
    for (uint64_t i = 0; i < Size / 32; i++)
        row[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from) + i);
    for (uint64_t i = 0; i < Size / 32; i++)
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to) + i, row[i]);
}

template <uint64_t Size, bool Write>
__attribute__((target("avx2"))) void copy_wide(char *ours, char *theirs, const Rows &rows) {
    int64_t count = rows.count, our_step = rows.ours, their_step = rows.theirs;
    for (; count > 0; count--, ours += our_step, theirs += their_step)
        copy_row_wide<Size>(Write ? ours : theirs, Write ? theirs : ours);
}

template <uint64_t Size, bool Write>
__attribute__((target("avx2"))) void copy_wide_ends(char *ours, char *theirs, const Rows &rows) {
    int64_t count = rows.count, our_step = rows.ours, their_step = rows.theirs;
    uint64_t last = rows.run - Size;
    for (; count > 0; count--, ours += our_step, theirs += their_step) {
        char *to = Write ? ours : theirs, *from = Write ? theirs : ours;
        __m256i ends[2][Size / 32];
        for (uint64_t i = 0; i < Size / 32; i++) {
            ends[0][i] = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from) + i);
            ends[1][i] = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from + last) + i);
        }
        for (uint64_t i = 0; i < Size / 32; i++) {
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to) + i, ends[0][i]);
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + last) + i, ends[1][i]);
        }
    }
}

inline const bool is_wide = __builtin_cpu_supports("avx2");
inline bool has_wide() { return is_wide; }
#else
template <uint64_t Size, bool Write> constexpr CopyRows copy_wide = copy_sized<Size, Write>;
template <uint64_t Size, bool Write> constexpr CopyRows copy_wide_ends = copy_ends<Size, Write>;
constexpr bool has_wide() { return false; }
#endif

template <bool Write> CopyRows copy_of(uint64_t run) {
    switch (run) {
    case 1: return copy_sized<1, Write>;
    case 2: return copy_sized<2, Write>;
    case 4: return copy_sized<4, Write>;
    case 8: return copy_sized<8, Write>;
    case 16: return copy_sized<16, Write>;
    case 32: return has_wide() ? copy_wide<32, Write> : copy_sized<32, Write>;
    case 64: return has_wide() ? copy_wide<64, Write> : copy_sized<64, Write>;
    case 128: return has_wide() ? copy_wide<128, Write> : copy_sized<128, Write>;
    case 256: return has_wide() ? copy_wide<256, Write> : copy_sized<256, Write>;
    default: break;
    }
    if (run < 4 || run > 128)
        return copy_any<Write>;
    if (run > 64)
        return has_wide() ? copy_wide_ends<64, Write> : copy_ends<64, Write>;
    if (run > 32)
        return has_wide() ? copy_wide_ends<32, Write> : copy_ends<32, Write>;
    return run > 16 ? copy_ends<16, Write> : run > 8 ? copy_ends<8, Write> : copy_ends<4, Write>;
}

inline void zero_rows(char *, char *theirs, const Rows &rows) {
    for (int64_t i = 0; i < rows.count; i++, theirs += rows.theirs)
        memset(theirs, 0, rows.run);
}

template <bool Write> void copy_piece(const Piece &piece, char *ours) {
    CopyRows copy = copy_of<Write>(piece.run);
    Side one{1, 0, 0};
    const Side &last = piece.ndim ? piece.sides[piece.ndim - 1] : one;
    Rows rows{last.count, last.ours, last.theirs, piece.run};
    if (piece.ndim < 2)
        copy(ours, piece.data, rows);
    else
        each_row(piece.sides, piece.sides + piece.ndim - 2, ours, piece.data,
                 [&](char *here, char *there) { copy(here, there, rows); });
}

inline void zero_piece(const Piece &piece) {
    uint64_t run = piece.run;
    each_row(piece, piece.data, [run](char *, char *there) { memset(there, 0, run); });
}

inline bool is_zero_piece(const Piece &piece) {
    bool zero = true;
    uint64_t run = piece.run;
    each_row(piece, piece.data, [&](char *, char *there) {
        if (zero)
            zero = there[0] == 0 && memcmp(there, there + 1, run - 1) == 0;
    });
    return zero;
}

// Pieces side by side along the last axis, whose rows are moved a few at a time through all of them: so many
// pages of tiles stay near at hand, while the caller's rows are gone through one after the other.
struct Part {
    uint64_t ours;   // where it begins, from the first piece on
    int64_t theirs;
    CopyRows move;
    uint64_t run;
};
constexpr int64_t kRowsAtOnce = 8;
constexpr ptrdiff_t kPartsAtOnce = 32;

using MoveParts = void (*)(const std::vector<Part> &parts, const Side &side, char *ours, char *theirs);

inline void move_any(const std::vector<Part> &parts, const Side &side, char *ours, char *theirs) {
    for (int64_t i = 0; i < side.count; i += kRowsAtOnce)
        for (const Part &part : parts)
            part.move(ours + i * side.ours + part.ours, theirs + i * side.theirs + part.theirs,
                      {std::min(kRowsAtOnce, side.count - i), side.ours, side.theirs, part.run});
}

#ifdef __x86_64__
// The same, with the usual part in the loop itself: a call for every few rows costs a third of the time.
template <uint64_t Size, bool Write>
__attribute__((target("avx2"))) void move_wide(const std::vector<Part> &parts, const Side &side, char *ours,
                                               char *theirs) {
    int64_t our_step = side.ours, their_step = side.theirs;
    for (int64_t i = 0; i < side.count; i += kRowsAtOnce) {
        int64_t count = std::min(kRowsAtOnce, side.count - i);
        for (const Part &part : parts) {
            char *here = ours + i * our_step + part.ours, *there = theirs + i * their_step + part.theirs;
            if (part.move != copy_wide<Size, Write>) {
                part.move(here, there, {count, our_step, their_step, part.run});
                continue;
            }
            for (int64_t k = 0; k < count; k++, here += our_step, there += their_step)
                copy_row_wide<Size>(Write ? here : there, Write ? there : here);
        }
    }
}
#endif

inline MoveParts move_of(CopyRows usual) {
#ifdef __x86_64__
    if (usual == copy_wide<64, true>)
        return move_wide<64, true>;
    if (usual == copy_wide<64, false>)
        return move_wide<64, false>;
    if (usual == copy_wide<128, true>)
        return move_wide<128, true>;
    if (usual == copy_wide<128, false>)
        return move_wide<128, false>;
#endif
    (void)usual;
    return move_any;
}

inline void move_parts(const std::vector<Part> &parts, const Piece &first, char *ours) {
    Side one{1, 0, 0};
    const Side &last = first.ndim ? first.sides[first.ndim - 1] : one;
    MoveParts move = move_of(parts[parts.size() / 2].move);  // which is no edge
    if (first.ndim < 2) {
        move(parts, last, ours, first.data);
        return;
    }
    // Of more than two axes a few rows are too little of a page.
    for (const Part &part : parts)
        each_row(first.sides, first.sides + first.ndim - 2, ours + part.ours, first.data + part.theirs,
                 [&](char *here, char *there) {
                     part.move(here, there, {last.count, last.ours, last.theirs, part.run});
                 });
}

}  // namespace sparsearray
