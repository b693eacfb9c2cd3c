/* The native functions, types and constants of sparsearray, all of them.
 *
 * This file is read twice: by the C++ core and by cffi, which has no preprocessor; so it holds plain
 * declarations only. Offsets and lengths are in bytes, in the order (offset, nbytes, ...), and
 * relative to the start of the reservation. A function that can fail returns SA_OK or a negative
 * sa_code and describes the failure in its last parameter; a failed call leaves everything as it
 * was, or says in `transferred` how far it came. Any function may be called from any thread.
 */

enum sa_code {
    SA_MORE = 1, /* a piece is done, `transferred` bytes; call again for the rest */
    SA_OK = 0,
    SA_CLOSED = -1,      /* the reservation is closed */
    SA_NEGATIVE = -2,    /* an offset or length below zero */
    SA_MISALIGNED = -3,  /* not in whole pages, or a length of zero where there must be something */
    SA_BOUNDS = -4,      /* reaches past the end; `offset` */
    SA_ACCESS = -5,      /* `reason`, `write`, `offset`, `transferred`, `file` */
    SA_PINNED = -6,      /* `count` live windows over `start` to `stop` are in the way */
    SA_SYSTEM = -7,      /* a system call failed: `sys_errno`, `file` */
    SA_UNSUPPORTED = -8, /* this system cannot do it */
    SA_FILE_END = -9,    /* a file window past the end of the file, which has `count` bytes */
    SA_HUGE_PAGE = -10,  /* would cut a huge page of `count` bytes at `offset` */
    SA_FILE_NAMED = -11, /* file windows carry their file's name; `offset` */
    SA_BAD_FLAG = -12    /* of a raw mapping; `file` holds its name */
};

enum sa_reason {
    SA_UNMAPPED = 1,
    SA_READ_ONLY = 2,
    SA_FILE_TRUNCATED = 3,
    SA_NO_SPACE = 4,
    SA_IO_ERROR = 5,
    SA_NO_MEMORY = 6
};

enum sa_kind { SA_PRIVATE = 1, SA_ZERO = 2, SA_FILE = 3, SA_RAW = 4 };

enum sa_file_mode { SA_FILE_READ = 0, SA_FILE_WRITE = 1, SA_FILE_COPY_ON_WRITE = 2 };

/* What becomes of a descriptor that is mapped: one like it is kept, whose position others may use, or nobody
 * else; or none is, and the file is opened by its name, an absolute path, when something must be asked of it. */
enum sa_descriptor { SA_DESCRIPTOR_SHARED, SA_DESCRIPTOR_OWN, SA_DESCRIPTOR_BY_NAME };

/* HELD: all that memory may hold, even where files have lost it. OWN: what was written to private and copy-on-write
 * pages alone, and not what is in files. */
enum sa_extent_method {
    SA_EXTENTS_BEST,
    SA_EXTENTS_SCAN,
    SA_EXTENTS_PAGEMAP,
    SA_EXTENTS_HELD,
    SA_EXTENTS_OWN
};

enum sa_advice {
    SA_ADVISE_NORMAL,
    SA_ADVISE_SEQUENTIAL,
    SA_ADVISE_RANDOM,
    SA_ADVISE_WILLNEED,
    SA_ADVISE_HUGEPAGE,
    SA_ADVISE_NOHUGEPAGE,
    SA_ADVISE_COLD,
    SA_ADVISE_PAGEOUT
};

enum sa_atomic_op {
    SA_ATOMIC_LOAD,
    SA_ATOMIC_STORE,
    SA_ATOMIC_EXCHANGE,
    SA_ATOMIC_COMPARE_EXCHANGE,
    SA_ATOMIC_ADD,
    SA_ATOMIC_SUB,
    SA_ATOMIC_AND,
    SA_ATOMIC_OR,
    SA_ATOMIC_XOR
};

/* For an offset: the tiles of the reservation's pool. */
enum { SA_POOL = -1 };

/* FILLED: what is all zeros in a tile is left out, and the tile as it is. CLEAR: sets to zero what is stored;
 * there is no array of the caller's. */
enum sa_box_move { SA_BOX_READ, SA_BOX_WRITE, SA_BOX_WRITE_FILLED, SA_BOX_CLEAR };

typedef struct sa_reservation sa_reservation;
typedef struct sa_pin sa_pin;

typedef struct {
    uint64_t address; /* of the first byte */
    uint64_t nbytes;  /* what was asked for, in whole pages */
    uint64_t reserved; /* what was taken */
    uint64_t page_size;
} sa_geometry;

typedef struct {
    uint64_t offset;
    uint64_t nbytes;
    int64_t file_offset;
    uint64_t file; /* for sa_file_name; 0 where there is none */
    int32_t kind;
    int32_t writable;
} sa_region;

/* A file that was opened by its name. */
typedef struct {
    uint64_t device;
    uint64_t inode;
    uint64_t nbytes;
    char start[8]; /* its first bytes */
} sa_found_file;

/* Part of windows that lost its file. */
typedef struct {
    uint64_t offset;
    uint64_t nbytes;
    uint64_t file; /* for sa_file_name */
    int32_t reason;
    int32_t kept; /* memory keeps what is written there, until there is room */
    int32_t told;
} sa_damage;

/* One axis of an array that lies tile by tile, and what is selected along it. */
typedef struct {
    int64_t tile;      /* items along a tile */
    int64_t tile_step; /* bytes from one tile to the next */
    int64_t item_step; /* bytes from one item to the next inside a tile */
    int64_t stride;    /* bytes from one item to the next in the caller's array */
    int64_t count;     /* of the items selected */
    int64_t start;     /* number of the first of them */
    int64_t step;      /* from each to the next */
    const int64_t *places; /* or the number of each; null for start and step */
} sa_axis;

/* The newest `count` of items in a row without end, mapped twice side by side. The counters, of items since the beginning,
 * may be those of other processes too. */
typedef struct {
    uint64_t *claimed;   /* that behind the last item that a writer has begun to write */
    uint64_t *published; /* that behind the last item that is there */
    char *items;
    uint64_t itemsize; /* in bytes */
    uint64_t count;
} sa_ring;

/* A run of bytes of an address space of somebody else's, and where in the reservation it lies. */
typedef struct {
    uint64_t address;
    uint64_t nbytes;
    uint64_t offset;
} sa_span;

/* What happened. Fields that sa_code does not name are left alone. */
typedef struct {
    int32_t reason;
    int32_t write;
    int32_t sys_errno;
    int32_t writable;     /* of the window just made */
    uint64_t offset;      /* the first bad byte */
    uint64_t transferred; /* bytes done before it */
    uint64_t count;
    uint64_t start;
    uint64_t stop;
    uint64_t value;      /* what an atomic operation found */
    char file[4096];     /* name of the file (or flag), "" where none is concerned */
    char record[64];     /* what sa_read_record read */
} sa_report;

/* Life. The owner calls sa_release once, after its last other call; the memory goes with the last
 * pin, the structure with both. */
uint64_t sa_page_size(void);
int sa_reserve(uint64_t nbytes, uint64_t alignment, sa_reservation **reservation, sa_report *ret);
void sa_describe(const sa_reservation *r, sa_geometry *ret);
int sa_close(sa_reservation *r, sa_report *ret);
/* What the cell holds, if anything; the cell is then empty. */
void sa_release(sa_reservation **reservation);

/* Mapping, in whole pages. */
int sa_alloc(sa_reservation *r, int64_t offset, int64_t nbytes, int reserve, sa_report *ret);
int sa_map_zero(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* `descriptor`: one of sa_descriptor. */
int sa_map_file(sa_reservation *r, int64_t offset, int64_t nbytes, int fd, const char *name,
                int descriptor, int64_t file_offset, int mode, int skip_holes, sa_report *ret);
/* The same for `count` files that are opened by their names, which follow each other, each with its closing zero:
 * `places` has offset, nbytes and file_offset of each, and `found` gets what each is; how it begins only with `look`. Of
 * a failure `value` is the number of the file; those before it are mapped. */
int sa_map_files(sa_reservation *r, const char *names, const int64_t *places, uint64_t count, int mode,
                 int skip_holes, int look, sa_found_file *found, sa_report *ret);
/* What there is at `count` such names: sizes, or errors, -1 and smaller; -EINVAL for what is no regular file. */
void sa_look_at_files(const char *names, uint64_t count, int64_t *sizes);
/* Maps what has become data in the holes that sa_map_file skipped; `count` bytes of them. */
int sa_refresh(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Checks that all bytes may be written, and sets the whole pages among them to zero, which then take no
 * room, in memory or in a writable file. SA_UNSUPPORTED where some of these can only be filled. */
int sa_punch(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Says whether a live window shows any of these bytes. */
int sa_check_unpinned(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* The caller has made its files shorter itself: that their ends are gone is no loss. */
int sa_accept_ends(sa_reservation *r, sa_report *ret);
/* `fd` -1: anonymous. Flags that could not be unmapped, or that reach outside, are SA_BAD_FLAG. */
int sa_map_raw(sa_reservation *r, int64_t offset, int64_t nbytes, int prot, int flags, int fd,
               const char *name, int descriptor, int64_t file_offset, sa_report *ret);
int sa_unmap(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
int sa_set_writable(sa_reservation *r, int64_t offset, int64_t nbytes, int writable,
                    sa_report *ret);
int sa_decommit(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* One piece; SA_MORE while there is more. */
int sa_commit(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Before much is read through windows: starts to read what lies in files, in `count` ranges given by
 * start and stop; fetches it, and says what cannot be. After it: takes those pages out of the process
 * again, and leaves them to the system's cache. */
int sa_prefetch(sa_reservation *r, const int64_t *pairs, uint64_t count, sa_report *ret);
int sa_fetch(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
int sa_forget(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Before ranges are written through windows: has the disk give room for them, or says what it cannot. */
int sa_make_room(sa_reservation *r, const int64_t *pairs, uint64_t count, sa_report *ret);
int sa_advise(sa_reservation *r, int64_t offset, int64_t nbytes, int advice, sa_report *ret);
int sa_bind_numa(sa_reservation *r, int64_t offset, int64_t nbytes, int node, sa_report *ret);
int sa_set_name(sa_reservation *r, int64_t offset, int64_t nbytes, const char *name,
                sa_report *ret);

/* What reaches files, and what is lost of them. sa_flush moves what windows kept for want of room into
 * its file first; where there is still none, or a file lost what a window shows, that is SA_ACCESS. */
int sa_flush(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Everything that is damaged, sorted; `count` is the number there are, and if that is no more than
 * `capacity` and with `tell` all of it counts as told. */
int sa_list_damage(sa_reservation *r, int tell, sa_damage *damage, uint64_t capacity, uint64_t *count,
                   sa_report *ret);
/* Moves what is kept in a range into its files, as sa_flush. SA_ACCESS for damage there that nobody was told of, `count` bytes
 * of it, and with `tell` all of it then counts as told. That which is kept comes first, and is a write;
 * `lost_only` leaves it out. `value` says whether any was noted, anywhere, told or not. */
int sa_check_damage(sa_reservation *r, int64_t offset, int64_t nbytes, int tell, int lost_only, sa_report *ret);
/* What memory holds was saved elsewhere: errors of flush are no matter any more. */
int sa_forgive(sa_reservation *r, sa_report *ret);
/* Whether windows survive faults: the handler of SIGBUS, which is one for the process. 1 by default. */
int sa_protect_windows(int on, sa_report *ret);
int sa_windows_are_protected(void);

/* What the reservation holds now: in the snapshot, windows of files are copied on write, by either side. Memory of the
 * original's own, and what it copied on write itself, is zero there, and for the caller to copy. */
int sa_snapshot(sa_reservation *r, sa_reservation **snapshot, sa_report *ret);
int sa_has_snapshots(sa_reservation *r);
/* Has snapshots keep what is in a range, before much of it is written: in pieces, which an interrupt can come between. */
int sa_keep_pages(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);
/* Before the caller makes a file shorter: snapshots keep what lies in a range. */
int sa_keep_old(sa_reservation *r, int64_t offset, int64_t nbytes, sa_report *ret);

/* Files by path. A pipe is not waited for. sa_close_file leaves -1 in the cell, and takes it. */
int sa_open_file(const char *path, int writable, int *fd, sa_report *ret);
void sa_close_file(int *fd);
/* What a file holds from `start` up to `stop`, through `capacity` bytes of `scratch`, whole pages of 4 KiB; nobody else
 * seeks in it. One piece, `transferred` bytes of data; SA_MORE while there is more, from `start` in the report on.
 * `stop` there is where reading came to the end of the file, if it did. Of a failure `write` says whether it was one of
 * writing. Copying leaves out holes and pages of zeros: the other file has none but zeros there. `write_soon`: its disk
 * begins to write. */
int sa_copy_file(int from, int to, uint64_t start, uint64_t stop, int write_soon, char *scratch, uint64_t capacity,
                 sa_report *ret);
/* Makes holes of pages of zeros, `count` bytes of them; `look_only` counts them. `stop` is where the file ends: the page
 * that it ends in is one. */
int sa_trim_file(int fd, uint64_t start, uint64_t stop, int look_only, char *scratch, uint64_t capacity,
                 sa_report *ret);

/* Looking. `count` is the number there are; at most `capacity` are written. */
int sa_regions(sa_reservation *r, sa_region *regions, uint64_t capacity, uint64_t *count);
/* Runs of pages that may hold something other than zero, as (start, stop) pairs, sorted. At most
 * `capacity` of them (2 or more), `count`; SA_MORE where they end early, after `transferred` bytes of the range.
 * The first may touch the last of the call before. */
int sa_extents(sa_reservation *r, int64_t offset, int64_t nbytes, int method, int64_t *pairs,
               uint64_t capacity, sa_report *ret);
/* The name of a file that has a region, "" when it has none any more. */
void sa_file_name(sa_reservation *r, uint64_t file, sa_report *ret);

/* Guarded access, at any byte. Copies check the whole range, then move one piece from its start;
 * SA_MORE while there is more. */
int sa_read(sa_reservation *r, int64_t offset, int64_t nbytes, char *out, sa_report *ret);
/* The same, also of damaged pages, which read as what memory holds. What cannot be had is SA_ACCESS, and
 * damage from then on. */
int sa_salvage(sa_reservation *r, int64_t offset, int64_t nbytes, char *out, sa_report *ret);
int sa_write(sa_reservation *r, int64_t offset, int64_t nbytes, const char *data, sa_report *ret);
int sa_fill(sa_reservation *r, int64_t offset, int64_t nbytes, int value, sa_report *ret);
/* One record; of 1, 2, 4 or 8 bytes by a single load or store. Reading puts it into the report. */
int sa_read_record(sa_reservation *r, int64_t offset, uint64_t nbytes, sa_report *ret);
int sa_write_record(sa_reservation *r, int64_t offset, uint64_t nbytes, const char *data,
                    sa_report *ret);
/* `count` records of `nbytes` each; of a failure `value` is the record's index. What is scattered is
 * checked as a whole first; `transferred` are the bytes of `values` before the first bad one. */
int sa_gather(sa_reservation *r, const int64_t *offsets, uint64_t count, uint64_t nbytes, char *out,
              sa_report *ret);
int sa_scatter(sa_reservation *r, const int64_t *offsets, uint64_t count, uint64_t nbytes,
               const char *values, sa_report *ret);
/* The same for records at addresses, of which `spans` are there: sorted, none touches another. SA_ACCESS with no
 * `reason` where a byte of a record is in none: `offset` is the address of the first such byte. */
int sa_gather_spans(sa_reservation *r, const sa_span *spans, uint64_t span_count, const uint64_t *addresses,
                    uint64_t count, uint64_t nbytes, char *out, sa_report *ret);
/* Finds where `pattern` begins, in sorted ranges of offsets at which it may, given by start and stop. `period` is the
 * smallest distance at which it can lie over itself. One piece, `count` places; SA_MORE while there is more: from
 * range number `value` on, of which `start` is the offset to go on at. */
int sa_search(sa_reservation *r, const int64_t *ranges, uint64_t range_count, const char *pattern, uint64_t nbytes,
              uint64_t period, int64_t *found, uint64_t capacity, sa_report *ret);
/* Moves a selection of an array that lies tile by tile, from `offset` on, to or from the caller's: all of it is
 * checked first. Holes are not touched to read them. `transferred` are bytes of items, in the order of tiles. */
int sa_move_box(sa_reservation *r, int64_t offset, const sa_axis *axes, uint64_t ndim, int64_t itemsize,
                char *data, int how, sa_report *ret);

/* Tiles of whole pages, packed in the order in which they are first written: in `slots` from `offset` on, all mapped.
 * There is one pool; boxes of its array are moved with SA_POOL for their offset. A place is in bytes from tile 0 on,
 * as if all were stored. Writing makes room for tiles that are not; those read as zero. */
int sa_make_pool(sa_reservation *r, int64_t offset, int64_t tile_nbytes, int64_t slots, sa_report *ret);
/* How many tiles there may be, none at first. SA_PINNED where one of those that go is shown: by a live window that may
 * write. Others show slots, whatever tile these hold. */
int sa_resize_pool(sa_reservation *r, int64_t tiles, sa_report *ret);
/* Where a tile lies; -1 if it is not stored. `make`: it is, then. */
int sa_find_tile(sa_reservation *r, int64_t number, int make, int64_t *offset, sa_report *ret);
/* All that are stored of `first` up to `last`, by number. `count` is how many there are, if that is no more than
 * `capacity`; and else how many there may be. */
int sa_list_tiles(sa_reservation *r, int64_t first, int64_t last, int64_t *numbers, int64_t *offsets,
                  uint64_t capacity, sa_report *ret);
/* Where they lie, as sorted pairs of start and stop: `count` of those, as above. */
int sa_list_slots(sa_reservation *r, int64_t *pairs, uint64_t capacity, sa_report *ret);
/* Sets tiles to zero, and gives back those that are not shown; `count` of them. */
int sa_drop_tiles(sa_reservation *r, const int64_t *numbers, uint64_t count, sa_report *ret);
/* Items, each within one tile; that with a bad place is number `value`. One is read into the report. */
int sa_read_item(sa_reservation *r, int64_t place, uint64_t nbytes, sa_report *ret);
int sa_write_item(sa_reservation *r, int64_t place, uint64_t nbytes, const char *data, sa_report *ret);
int sa_gather_items(sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes, char *out,
                    sa_report *ret);
int sa_scatter_items(sa_reservation *r, const int64_t *places, uint64_t count, uint64_t nbytes,
                     const char *values, sa_report *ret);
/* The sum of integers of 1, 2 or 4 bytes, modulo 2^64; wherever they are. */
uint64_t sa_sum(const char *data, uint64_t count, int itemsize, int is_signed);

/* Rings. The caller pins all of it, and items have been there that it names: nothing is checked, and the first that can fail
 * does so for want of memory alone. One process pushes; the threads of the reservation take turns. */
int sa_push_to_ring(sa_reservation *r, const sa_ring *ring, const char *data, uint64_t count);
/* Copies items. The result is the number of the oldest that nobody had begun to write over by then: from there on, what
 * was copied is good. */
uint64_t sa_read_ring(const sa_ring *ring, uint64_t start, uint64_t count, char *out);
/* Where the last items begin, counted from the first place; -1 if so many are not there. */
int64_t sa_find_last(const sa_ring *ring, int64_t count);
uint64_t sa_count_pushed(const sa_ring *ring);
uint64_t sa_find_oldest(const sa_ring *ring);

/* Sequentially consistent. `offset` is aligned to `nbytes`, which is 1, 2, 4 or 8; `value` in the
 * report is what was there before. */
int sa_atomic(sa_reservation *r, int64_t offset, uint64_t nbytes, int op, uint64_t operand,
              uint64_t expected, sa_report *ret);

/* Windows. `writable`: 1 or 0 as asked for, -1 for what the pages allow. No bytes need no pin. */
int sa_pin_range(sa_reservation *r, int64_t offset, int64_t nbytes, int writable, sa_pin **pin,
                 sa_report *ret);
/* As sa_release. From any thread, at any time. */
void sa_unpin(sa_pin **pin);
