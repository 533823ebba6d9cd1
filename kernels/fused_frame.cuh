// The frame of both fused kernels: which warps multiply and which move data, and what the latter do in every step. A
// carrier says what that is: begin, bring(s): what step s reads, carry(s): what step s has made.
#pragma once
#include "exchange.cuh"

// By the warps that move data: what steps read is on its way RING - 1 steps ahead, and is there two steps ahead.
template <class CARRIER, class ARGUMENTS>
inline void carry_all(const ARGUMENTS &p, const thread_place &at, u32 shared) {
  CARRIER c;
  c.begin(p, at, shared);
  synchronize_block();
  for (int s = 0; s < p.steps; s++) {
    c.bring(p, at, s + RING - 1);
    await_fetches<RING - 3>();
    synchronize_block();
    c.carry(p, at, s);
  }
  await_fetches<0>();
}

// A block from its start to its end. `cluster_bytes` is what the others of its cluster send it in a step, and
// compute(at, shared) is run by the warps that multiply. Registers move between warps only where each kind of warp has
// one branch of its own, and what is known before is kept in memory meanwhile: so nothing is.
template <class CARRIER, class ARGUMENTS, class COMPUTE>
inline void run_block(const ARGUMENTS &p, u32 cluster_bytes, COMPUTE compute) {
  extern __shared__ __align__(128) char shared[];
  enter_cluster(shared_address(shared), cluster_bytes);
  if (warp_of_thread() < WARPS) {
    share_registers(true);
    compute(place_thread(p.heads, p.first_group), shared);
    leave_cluster();
  } else {
    share_registers(false);
    carry_all<CARRIER>(p, place_thread(p.heads, p.first_group), shared_address(shared));
    leave_cluster();
  }
}
