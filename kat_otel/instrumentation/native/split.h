/* A buffer of records to columns: packed rows of records.py's dtypes. */
#ifndef KAT_SPLIT_H
#define KAT_SPLIT_H

#include "reader.h"

struct kat_split {
    void *columns[COLUMNS];
    uint64_t most[COLUMNS]; /* places in each */
    uint64_t rows[COLUMNS]; /* written so far */
    uint64_t lost;          /* records without times, or without a place */
    uint32_t names;         /* ids below this are known */
};

/* Adds the records of a buffer to rows; stops where one makes no sense. */
void kat_split_count(
    const uint8_t *buffer, uint32_t valid, const uint16_t *sizes, uint64_t rows[COLUMNS]);

/* Writes them; false where one makes no sense. Reads nothing outside buffer[0..valid]. */
bool kat_split(struct kat_split *split, const uint8_t *buffer, uint32_t valid,
    const uint16_t *sizes, int64_t offset_ns);

#endif
