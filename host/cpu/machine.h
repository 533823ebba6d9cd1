/* The register machine that runs a cell's program over blocks of elements: each instruction is one vector loop over a
 * block whose registers stay in the nearest cache. */
#ifndef PL_CPU_MACHINE_H
#define PL_CPU_MACHINE_H

#include "host/cpu/kernels/kernels.h"
#include "host/device/recurrence.h"

/* A program made ready for one compute type; immutable, shared by threads. Each thread brings pl_machine_scratch bytes.
 */
typedef struct pl_machine pl_machine;

/* `kernels` stays borrowed, `program` is not kept. NULL when memory is exhausted. */
pl_machine *pl_machine_new(const pl_program *program, pl_compute compute, const pl_kernels *kernels);
void pl_machine_free(pl_machine *machine); /* NULL is fine */

size_t pl_machine_scratch(const pl_machine *machine);
/* Makes a thread's scratch (64-byte aligned) ready, once before its runs. */
void pl_machine_prepare(const pl_machine *machine, void *scratch);
/* Runs over `count` elements. inputs[i] is read only when the program reads input i; outputs[o] NULL: not wanted.
 * Outputs overlap neither inputs nor each other. */
void pl_machine_run(const pl_machine *machine, void *scratch, long count, const void *const *inputs,
                    void *const *outputs);

#endif
