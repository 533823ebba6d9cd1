/* GPT-2's cut of a text into words, inside which byte pairs are merged: contractions, then a blank and letters, a blank
 * and digits, a blank and other characters, then blanks (Radford et al. 2019, the pattern of the published encoder). */
#ifndef PL_BASE_PRETOKEN_H
#define PL_BASE_PRETOKEN_H

#include <stddef.h>

/* Where the word that begins at `at` (below length) ends. */
size_t pl_pretoken_end(const char *text, size_t length, size_t at);

#endif
