/* The elementwise table as data: names and formulas as text. */
#include "host/device/pointwise.h"

#include <ctype.h>
#include <string.h>

#define LINE(domain, name, arity, value, da, db, dc, low, high)                                                        \
  [PL_OP_##name] = {#name, arity, domain, {#value, #da, #db, #dc}, low, high},
#define ANY(...)  LINE(PL_DOMAIN_ANY, __VA_ARGS__)
#define TEST(...) LINE(PL_DOMAIN_TEST, __VA_ARGS__)
#define REAL(...) LINE(PL_DOMAIN_REAL, __VA_ARGS__)

const pl_pointwise pl_pointwise_table[PL_OPS] = {PL_POINTWISE_ANY(ANY) PL_POINTWISE_TEST(TEST) PL_POINTWISE_REAL(REAL)};

unsigned pl_pointwise_reads(pl_op op, pl_formula formula) {
  static const char letters[PL_OPERANDS] = {'a', 'b', 'c', 'g', 'y'};
  unsigned reads = 0;
  const char *text = pl_pointwise_table[op].text[formula];
  for (const char *at = text; *at; at++) {
    bool alone = (at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[1]);
    for (int i = 0; i < PL_OPERANDS; i++)
      if (alone && *at == letters[i]) reads |= 1u << i;
  }
  return reads;
}

pl_op pl_pointwise_named(const char *name) {
  for (int i = 0; i < PL_OPS; i++)
    if (strcmp(pl_pointwise_table[i].name, name) == 0) return (pl_op)i;
  return PL_OPS;
}
