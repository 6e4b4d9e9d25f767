/* From the pointers in CUPTI's records to ids of names in the region: bounded tables of our own. */
#ifndef KAT_NAMES_H
#define KAT_NAMES_H

#include "region.h"

#define NAME_SLOTS 8192u /* pointers remembered */
#define TEXT_SLOTS 65536u /* texts remembered */

struct kat_names {
    struct {
        const char *pointer;
        uint64_t hash;
        uint32_t id;
        uint32_t seen; /* the pass in which the text was last compared */
    } pointers[NAME_SLOTS];
    struct {
        uint64_t hash; /* 0: empty */
        uint32_t id;
    } texts[TEXT_SLOTS];
    uint32_t texts_used;
    uint32_t pass;
};

/* Begins a pass: what a pointer points to is looked at anew, once (a module may have been
 * unloaded and its memory used again), and does not change until the next one. */
void kat_names_pass(struct kat_names *names);

/* Whose name it is: ranges, whose names an application makes up at will, leave half of the room to
 * kernels and calls. */
enum kat_whose { OF_A_KERNEL, OF_A_RANGE };

/* The id of the text at a pointer; 0 for NULL and "". */
uint32_t kat_names_id(struct kat_names *names, struct kat_region *region, const char *text,
    enum kat_whose whose);

/* The id of a text. */
uint32_t kat_names_text(struct kat_names *names, struct kat_region *region, const char *text,
    size_t length, enum kat_whose whose);

#endif
