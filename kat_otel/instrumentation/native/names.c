#define _GNU_SOURCE
#include "names.h"

#include <string.h>

#define PROBES 8u

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_of(const char *text, size_t length) {
    uint64_t hash = 0x9e3779b97f4a7c15ULL ^ length;
    uint64_t word = 0;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        hash = fold(hash ^ word, 0xa0761d6478bd642fULL);
    }
    word = 0;
    memcpy(&word, text, length);
    hash = fold(hash ^ word, 0xe7037ed1a0b428dbULL);
    return hash ? hash : 1;
}

void kat_names_pass(struct kat_names *names) { names->pass++; }

static uint32_t id_of(struct kat_names *n, struct kat_region *region, uint64_t hash,
    const char *text, size_t length, enum kat_whose whose) {
    uint32_t slot = (uint32_t)(hash >> 32);
    for (;; slot++) { /* ends: a quarter stays empty */
        slot &= TEXT_SLOTS - 1;
        if (n->texts[slot].hash == hash) return n->texts[slot].id;
        if (!n->texts[slot].hash) break;
    }
    bool room = whose == OF_A_KERNEL || (region->names_count < region->geometry.names_most / 2 &&
                                            region->names_used < region->geometry.names_bytes / 2);
    if (!room) {
        kat_count(&region->shared->counters.names_lost, 1);
        return KAT_NAMES_FULL;
    }
    uint32_t id = kat_region_name(region, text, length);
    if (id != KAT_NAMES_FULL && n->texts_used < TEXT_SLOTS / 4 * 3) {
        n->texts[slot].hash = hash;
        n->texts[slot].id = id;
        n->texts_used++;
    }
    return id;
}

uint32_t kat_names_text(struct kat_names *n, struct kat_region *region, const char *text,
    size_t length, enum kat_whose whose) {
    if (!length) return 0;
    return id_of(n, region, hash_of(text, length), text, length, whose);
}

uint32_t kat_names_id(struct kat_names *n, struct kat_region *region, const char *text,
    enum kat_whose whose) {
    if (!text) return 0;
    uint32_t first = (uint32_t)(fold((uintptr_t)text, 0xa0761d6478bd642fULL) >> 20);
    uint32_t slot = first & (NAME_SLOTS - 1);
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint32_t next = (first + probe) & (NAME_SLOTS - 1);
        if (n->pointers[next].pointer == text) {
            if (n->pointers[next].seen == n->pass) return n->pointers[next].id;
            slot = next;
            break;
        }
        if (!n->pointers[next].pointer) {
            slot = next;
            break;
        }
    } /* all taken: the first is given up */
    size_t length = strnlen(text, KAT_LONGEST_NAME);
    if (!length) return 0;
    uint64_t hash = hash_of(text, length);
    if (n->pointers[slot].pointer != text || n->pointers[slot].hash != hash) {
        n->pointers[slot].pointer = text;
        n->pointers[slot].hash = hash;
        n->pointers[slot].id = id_of(n, region, hash, text, length, whose);
    }
    n->pointers[slot].seen = n->pass;
    return n->pointers[slot].id;
}
