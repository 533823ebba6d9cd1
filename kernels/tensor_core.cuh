// What warps that multiply with tensor cores share: fragments from shared memory, fetches into it, and the products of
// 16-bit types.
#pragma once
#include "types.cuh"

inline u32 shared_address(const void *at) { return (u32)__cvta_generic_to_shared(at); }

// Four (two) matrices of 8 rows of 16 bytes; lane 8 m + r holds the address of row r of matrix m. Lane 4 i + j gets
// word j of row i; transposed, for elements of 2 bytes, elements 2 j and 2 j + 1 of column i.
inline void load_matrices(u32 (&to)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
inline void load_two_matrices(u32 (&to)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(row)
               : "memory");
}
inline void load_transposed(u32 &to, u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(to) : "r"(row) : "memory");
}
inline void load_transposed(u32 &a, u32 &b, u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(row)
               : "memory");
}
inline void load_transposed(u32 &a, u32 &b, u32 &c, u32 &d, u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(row)
               : "memory");
}

inline u32 pack_two(f16, float low, float high) {
  u32 x;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  return x;
}
inline u32 pack_two(bf16, float low, float high) {
  u32 x;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  return x;
}

// Copies 16 bytes to shared memory while the thread goes on; zeros unless `there`.
inline void fetch(u32 to, const char *from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
inline void end_fetches() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all but the newest N groups of fetches have arrived.
template <int N> inline void await_fetches() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// sum [16][8] += a [16][16] b [8][16]: lane 4 i + j has elements 2 j, 2 j + 1 and 2 j + 8, 2 j + 9 of rows i and i + 8 of
// a in a[0], a[2] and a[1], a[3], those of row i of b in b0 and b1, and columns 2 j, 2 j + 1 of rows i and i + 8 of the
// sum.
inline void multiply_16(bf16, float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
inline void multiply_16(f16, float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
