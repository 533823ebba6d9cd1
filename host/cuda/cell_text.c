/* Programs of cells as CUDA text: every instruction becomes one constant, named after its place. */
#include "host/cuda/cell_text.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Decimal numbers where they are exact; what has none by its bits. */
static void print_constant(pl_text *text, double value) {
  int64_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (isfinite(value))
    pl_text_print(text, "(T)%.17g", value);
  else
    pl_text_print(text, "(T)__longlong_as_double(0x%llxLL)", (unsigned long long)bits);
}

/* The name of register r: an input, a constant, or what instruction at[r] computed. */
static void print_register(pl_text *text, const pl_program *program, const int *at, int r) {
  if (r < program->inputs)
    pl_text_print(text, "in[%d]", r);
  else if (r < program->inputs + program->constants)
    print_constant(text, program->constant[r - program->inputs]);
  else
    pl_text_print(text, "v%d", at[r]);
}

/* Operations that kernels/fast.cuh has an approximation of. */
static bool is_approximated(const pl_pointwise *op) {
  static const char *const names[] = {"tanh", "sigmoid",    "exp",  "log",   "reciprocal", "div",
                                      "sqrt", "logsigmoid", "silu", "rsqrt", "softplus"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(op->name, names[i]) == 0) return true;
  return false;
}

static void print_program(pl_text *text, const char *name, const pl_program *program, bool fast) {
  int at[PL_REGISTERS_MAX + 1] = {0};
  pl_text_print(text, "static __device__ __forceinline__ void %s(const T *in, T *out) {\n", name);
  for (int i = 0; i < program->count; i++) {
    const pl_instruction *code = &program->code[i];
    const pl_pointwise *op = &pl_pointwise_table[code->op];
    const int operands[] = {code->a, code->b, code->c};
    pl_text_print(text, "  T v%d;\n  {", i);
    for (int k = 0; k < op->arity; k++) {
      pl_text_print(text, " const T %c = ", "abc"[k]);
      print_register(text, program, at, operands[k]);
      pl_text_print(text, ";");
    }
    if (fast && is_approximated(op))
      pl_text_print(text, " v%d = approximate_%s(a%s); }\n", i, op->name, op->arity > 1 ? ", b" : "");
    else
      pl_text_print(text, " v%d = %s; }\n", i, op->text[PL_VALUE]);
    at[code->target] = i;
  }
  for (int o = 0; o < program->outputs; o++) {
    pl_text_print(text, "  out[%d] = ", o);
    if (program->output[o] < 0)
      pl_text_print(text, "0");
    else
      print_register(text, program, at, program->output[o]);
    pl_text_print(text, ";\n");
  }
  pl_text_print(text, "}\n");
}

static unsigned set_of(const bool *has, int count) {
  unsigned set = 0;
  for (int i = 0; i < count; i++) set |= (unsigned)has[i] << i;
  return set;
}

unsigned pl_cell_kept(const pl_cell *cell) {
  unsigned set = 0;
  for (int s = 0; s < cell->states; s++) {
    int before = cell->saves + s, after = before + cell->states;
    bool read = pl_program_reads(&cell->backward, before) || pl_program_reads(&cell->backward, after);
    set |= (unsigned)read << s;
  }
  return set;
}

static void print_cell(const pl_cell *cell, bool fast, pl_text *text) {
  pl_text_print(text, "enum { GATES = %d, STATES = %d, PARAMS = %d, SAVES = %d, INPUTS = %d, RECURRENTS = %d,\n",
                cell->gates, cell->states, cell->params, cell->saves, pl_cell_inputs(cell), pl_cell_recurrents(cell));
  pl_text_print(text, "       BIASES = %d, HAS_INPUT = %u, HAS_RECURRENT = %u, HAS_BIAS = %u, KEPT = %u };\n",
                pl_cell_biases(cell), set_of(cell->has_input, cell->gates), set_of(cell->has_recurrent, cell->gates),
                set_of(cell->has_bias, cell->gates), pl_cell_kept(cell));
  print_program(text, "cell_forward", &cell->forward, fast);
  print_program(text, "cell_backward", &cell->backward, fast);
}

void pl_cell_text(const pl_cell *cell, pl_text *text) { print_cell(cell, false, text); }

void pl_cell_text_approximate(const pl_cell *cell, pl_text *text) { print_cell(cell, true, text); }
