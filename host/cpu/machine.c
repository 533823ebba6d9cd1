/* Programs of cells over blocks. An output whose register is a temporary is computed straight where it is wanted. */
#include "host/cpu/machine.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 1024, SLOTS_MAX = PL_REGISTERS_MAX + 1 + PL_STATES_MAX + PL_GATES_MAX + PL_SAVES_MAX };

/* Slots: the program's registers, then one per output. A slot is where a block of values lies. */
typedef struct {
  pl_loop loop;
  uint16_t target, in[PL_OPERANDS];
} machine_step;

/* An output that no instruction computes in place: a copy of another slot, or zero (-1). */
typedef struct {
  uint16_t output;
  int16_t from;
} machine_copy;

struct pl_machine {
  size_t size;
  int inputs, constants, registers, outputs, count, copies;
  machine_step *step;
  machine_copy *copy;
  double constant[PL_REGISTERS_MAX + 1];
};

/* Lets the last instruction that writes output o's register write to the output; every later read follows it. */
static bool redirect(pl_machine *m, int o, int from) {
  int last = -1;
  for (int i = 0; i < m->count; i++)
    if (m->step[i].target == from) last = i;
  if (last < 0) return false;
  uint16_t slot = (uint16_t)(m->registers + o);
  m->step[last].target = slot;
  for (int i = last + 1; i < m->count; i++)
    for (int j = 0; j < PL_OPERANDS; j++)
      if (m->step[i].in[j] == from) m->step[i].in[j] = slot;
  return true;
}

pl_machine *pl_machine_new(const pl_program *program, pl_compute compute, const pl_kernels *kernels) {
  pl_machine *m = calloc(1, sizeof *m);
  if (!m) return NULL;
  m->step = calloc((size_t)program->count + 1, sizeof *m->step);
  m->copy = calloc((size_t)program->outputs + 1, sizeof *m->copy);
  if (!m->step || !m->copy) return pl_machine_free(m), NULL;
  m->size = compute == PL_COMPUTE_F64 ? sizeof(double) : sizeof(float);
  m->inputs = program->inputs, m->constants = program->constants;
  m->registers = program->registers, m->outputs = program->outputs, m->count = program->count;
  for (int i = 0; i < m->constants; i++) m->constant[i] = program->constant[i];
  for (int i = 0; i < m->count; i++) {
    const pl_instruction *code = &program->code[i];
    m->step[i] = (machine_step){
        kernels->pointwise[compute][code->op][PL_VALUE], code->target, {code->a, code->b, code->c, code->a, code->a}};
  }
  for (int o = 0; o < m->outputs; o++) {
    int from = program->output[o];
    bool taken = false; /* a register that two outputs share was redirected to the first of them */
    for (int p = 0; p < o && !taken; p++)
      if (program->output[p] == from) from = m->registers + p, taken = true;
    if (from < 0 || taken || !redirect(m, o, from))
      m->copy[m->copies++] = (machine_copy){(uint16_t)o, (int16_t)(program->output[o] < 0 ? -1 : from)};
  }
  return m;
}

void pl_machine_free(pl_machine *m) {
  if (!m) return;
  free(m->step);
  free(m->copy);
  free(m);
}

/* One block per register that is no input, and per output (for those that are not wanted). */
size_t pl_machine_scratch(const pl_machine *m) { return (size_t)(m->registers - m->inputs + m->outputs) * BLOCK_BYTES; }

void pl_machine_prepare(const pl_machine *m, void *scratch) {
  long block = (long)(BLOCK_BYTES / m->size);
  for (int i = 0; i < m->constants; i++) {
    char *to = (char *)scratch + (size_t)i * BLOCK_BYTES;
    for (long e = 0; e < block; e++)
      if (m->size == sizeof(float))
        ((float *)(void *)to)[e] = (float)m->constant[i];
      else
        ((double *)(void *)to)[e] = m->constant[i];
  }
}

void pl_machine_run(const pl_machine *m, void *scratch, long count, const void *const *inputs, void *const *outputs) {
  long block = (long)(BLOCK_BYTES / m->size);
  char *slot[SLOTS_MAX];
  for (int i = m->inputs; i < m->registers + m->outputs; i++)
    slot[i] = (char *)scratch + (size_t)(i - m->inputs) * BLOCK_BYTES;
  for (long first = 0; first < count; first += block) {
    long n = count - first < block ? count - first : block;
    size_t bytes = (size_t)n * m->size, at = (size_t)first * m->size;
    for (int i = 0; i < m->inputs; i++) slot[i] = inputs[i] ? (char *)inputs[i] + at : NULL;
    for (int o = 0; o < m->outputs; o++)
      if (outputs[o]) slot[m->registers + o] = (char *)outputs[o] + at;
    for (const machine_step *s = m->step, *end = s + m->count; s < end; s++) {
      const void *in[PL_OPERANDS] = {slot[s->in[0]], slot[s->in[1]], slot[s->in[2]], slot[s->in[3]], slot[s->in[4]]};
      s->loop(n, slot[s->target], in);
    }
    for (int c = 0; c < m->copies; c++) {
      char *to = slot[m->registers + m->copy[c].output];
      if (m->copy[c].from < 0)
        memset(to, 0, bytes);
      else
        memcpy(to, slot[m->copy[c].from], bytes);
    }
  }
}
