// Positions in strided arrays: the layout that host/cuda/layout.h prepares, and where kernels leave complaints.
#pragma once
#include "types.cuh"

enum { RANK_MAX = 8 };

// Axes shared by several arrays, outermost first. Division by a size below 2^31 is a multiplication and a shift.
struct axes {
  i64 size[RANK_MAX];
  u32 magic[RANK_MAX], shift[RANK_MAX];
};

// Splits a position in row-major order into offsets of `arrays` arrays. INDEX: int where every offset fits, else i64.
template <int rank, int arrays, class INDEX>
inline void locate(const axes &shape, const i64 (*stride)[RANK_MAX], INDEX position, INDEX (&offset)[arrays]) {
#pragma unroll
  for (int i = 0; i < arrays; i++) offset[i] = 0;
#pragma unroll
  for (int axis = rank - 1; axis >= 0; axis--) {
    INDEX at = position;
    if (axis > 0) {
      if constexpr (sizeof(INDEX) == 4)
        position = (INDEX)((__umulhi((u32)at, shape.magic[axis]) + (u32)at) >> shape.shift[axis]);
      else
        position = at / shape.size[axis];
      at -= position * (INDEX)shape.size[axis];
    }
#pragma unroll
    for (int i = 0; i < arrays; i++) offset[i] += at * (INDEX)stride[i][axis];
  }
}

// What a kernel found wrong; the host reads it after the next synchronisation.
struct complaint {
  i32 code, unused;
  i64 value, position, limit;
};
enum { COMPLAINT_INDEX = 1, COMPLAINT_DIVISION = 2, COMPLAINT_LENGTH = 3 };
struct complaints {
  complaint *place; // in host memory
  int *lock;        // the first one to take it writes
};

inline void complain(const complaints &to, int code, i64 value, i64 position, i64 limit) {
  if (atomicCAS(to.lock, 0, 1) != 0) return;
  to.place->value = value;
  to.place->position = position;
  to.place->limit = limit;
  __threadfence_system();
  to.place->code = code;
}
