/* Records of a batch become records that wait: texts and sizes become numbers by what is known. */
#ifndef KAT_FORMS_H
#define KAT_FORMS_H

#include "columns.h"

struct kat_numbers { /* names.Numbers: what a key's place holds, if the key is the one */
    const int64_t *keys;
    const int32_t *values;
};

struct kat_known {
    const int32_t *name_of;  /* by a batch's text; below 0: not known */
    int64_t names;           /* of the batch's texts */
    const int64_t *meaning;  /* by name: above 0 a collective, INT64_MIN: not known */
    const int64_t *kind;     /* of calls, by name; the same */
    int64_t texts;           /* with a meaning and a kind, or room for them */
    struct kat_numbers sizes, lanes;
    int64_t slots; /* of each, a power of two */
};

enum kat_missed { MISSED_NAME = 1, MISSED_GRID = 2, MISSED_BLOCK = 4, MISSED_LANE = 8 };

/* Rows of records.KERNEL, and of API, to `to`; `missed` has a byte a row: what was not known and
 * is left to Python. How many rows missed something. */
KAT_EXPORT int64_t kat_form_kernels(const void *kernels, int64_t count,
    const struct kat_known *known, struct kat_work *to, uint8_t *missed);
KAT_EXPORT int64_t kat_form_calls(const void *calls, int64_t count,
    const struct kat_known *known, struct kat_call *to, uint8_t *missed);

#endif
