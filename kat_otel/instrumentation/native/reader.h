/* The reader's side of the region. What stands there is untrusted: it is copied, checked, used. */
#ifndef KAT_READER_H
#define KAT_READER_H

#include "capture.h"

enum kat_column { /* order of records.KINDS; rows are packed, as NumPy packs them */
    KERNELS, COPIES, SETS, GRAPHS, APIS, SYNCS, RANGES, EXTERNALS, OVERHEADS,
    MARKERS, /* halves of ranges, as CUPTI has them: region.py pairs them */
    COLUMNS,
};

struct kat_reader;

#define KAT_ABI 2 /* of these functions; library.py expects the same */
KAT_EXPORT uint32_t kat_abi(void);

/* Maps a region; NULL if it is none, and problem (256 bytes) says why. */
KAT_EXPORT struct kat_reader *kat_attach(int fd, char *problem);
KAT_EXPORT void kat_detach(struct kat_reader *reader);

KAT_EXPORT int32_t kat_reader_pid(const struct kat_reader *reader);
KAT_EXPORT uint32_t kat_reader_version(const struct kat_reader *reader);

/* Waits until there is something to read, at most so long. */
KAT_EXPORT void kat_wait(struct kat_reader *reader, int64_t timeout_ns);

/* Waits until the worker has flushed, or a quarter of its buffers is ready; at most so long. */
KAT_EXPORT void kat_rest(struct kat_reader *reader, int64_t timeout_ns);

/* Looks at what is ready, at most `most` buffers: rows by column, at most. */
KAT_EXPORT void kat_count_rows(struct kat_reader *reader, uint32_t most, uint64_t rows[COLUMNS]);

/* Writes those rows to arrays of `rows` places, gives the buffers back; rows written. */
KAT_EXPORT void kat_take_rows(
    struct kat_reader *reader, void *const columns[COLUMNS], uint64_t rows[COLUMNS]);

/* Names that are there; then one of them, into `most` bytes: its length. */
KAT_EXPORT uint32_t kat_names_known(struct kat_reader *reader);
KAT_EXPORT uint32_t kat_name(struct kat_reader *reader, uint32_t id, char *text, uint32_t most);

/* The next message, into KAT_LONGEST_MESSAGE bytes: its type (0: none) and length. */
KAT_EXPORT uint32_t kat_message(struct kat_reader *reader, void *data, uint32_t *length);

/* Whether buffers are ready that were not taken. */
KAT_EXPORT int kat_reader_more(struct kat_reader *reader);

/* Counters of the worker, then rows and buffers that this reader gave up. */
KAT_EXPORT void kat_reader_counters(struct kat_reader *reader, uint64_t counters[14]);

KAT_EXPORT int kat_reader_closed(struct kat_reader *reader);
KAT_EXPORT void kat_reader_order(struct kat_reader *reader, uint32_t mode);

#endif
