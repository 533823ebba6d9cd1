/* Counting of cells, and what can be asked of their description. */
#include "host/device/recurrence.h"

#include <stdlib.h>

void pl_cell_retain(pl_cell *cell) { cell->count++; }

static void program_free(pl_program *program) {
  free(program->constant);
  free(program->code);
  free(program->output);
}

void pl_cell_release(pl_cell *cell) {
  if (!cell || --cell->count > 0) return;
  program_free(&cell->forward);
  program_free(&cell->backward);
  free(cell->key);
  free(cell);
}

static int count_true(const bool *has, int count) {
  int total = 0;
  for (int i = 0; i < count; i++) total += has[i];
  return total;
}

int pl_cell_inputs(const pl_cell *cell) { return count_true(cell->has_input, cell->gates); }
int pl_cell_recurrents(const pl_cell *cell) { return count_true(cell->has_recurrent, cell->gates); }
int pl_cell_biases(const pl_cell *cell) { return count_true(cell->has_bias, cell->gates); }

bool pl_program_reads(const pl_program *program, int input) {
  for (int i = 0; i < program->outputs; i++)
    if (program->output[i] == input) return true;
  for (int i = 0; i < program->count; i++) {
    const pl_instruction *at = &program->code[i];
    if (at->a == input || at->b == input || at->c == input) return true;
  }
  return false;
}
