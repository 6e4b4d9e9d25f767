/* One buffer of CUPTI's: are its records what they should be, and names written over pointers. */
#ifndef KAT_RECORDS_H
#define KAT_RECORDS_H

#include "cupti.h"
#include "names.h"

#define API_NAMES 2048u

struct kat_records {
    pthread_mutex_t lock; /* CUPTI's thread, and ours when it flushes */
    uint32_t layout;      /* row of layouts.c */
    uint64_t checked;     /* kinds whose size agreed with cuptiActivityGetNextRecord */
    bool by_next;         /* the table is wrong for this CUPTI */
    struct kat_names names;
    uint32_t api[2][API_NAMES]; /* ids by domain and callback id; 0: not asked yet */
};

#define API_UNWANTED UINT32_MAX /* written over a callback id: the reader leaves the record out */

/* As new. */
void kat_records_forget(struct kat_records *records);

/* Goes over a buffer; fills in valid, layout and records. False: it makes no sense. */
bool kat_records_walk(struct kat_records *records, const struct kat_cupti *cupti,
    struct kat_region *region, uint8_t *buffer, size_t valid, struct kat_ready *ready);

#endif
