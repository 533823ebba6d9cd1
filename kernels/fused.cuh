// What the fused kernels of the recurrence share: how a block's units, rows and warps are laid out, products on tensor
// cores, and moves between the memories. Before it come kernels/fused_base.cuh and generated text: the types T (float),
// S (Wx and the states given out) and P (products), the cell, and the sizes of the plan (host/cuda/fused_plan.c):
//   DIM units of a head, PADDED to whole tiles; BLOCKS that share a head, UNITS of each; ROWS of the batch
//   WARPS that multiply, in teams of SPLITS that share what a sum runs over; GROUPS of 8 units per team
//   WRITERS warps that bring Wx and carry results out; RING steps of Wx on their way
#pragma once

enum {
  STORED = sizeof(S), // bytes
  MULTIPLIED = sizeof(P),
  LANES = 32,
  TILE_BYTES = 32, // of a row that one instruction multiplies along
  TILE_UNITS = TILE_BYTES / MULTIPLIED,
  PER_WORD = 4 / MULTIPLIED,
  PADDING = 16,                           // bytes behind a row in shared memory, against bank conflicts
  COLUMNS = ROWS / 4,                     // batch rows of a thread, of ROWS: see column_row
  COLUMN_TILES = ROWS > 8 ? ROWS / 8 : 1, // of 8 batch rows
  ITEMS = GROUPS * COLUMNS,               // (group, column) pairs of a team
  SLOTS = SPLITS == 1 ? GROUPS : (ITEMS + SPLITS - 1) / SPLITS, // of a thread; with SPLITS > 1 each has one column
  WIDTH = SPLITS == 1 ? COLUMNS : 1,                            // columns of a slot
  ELEMENTS = SLOTS * WIDTH,                                     // (unit, batch row) pairs of a thread
  OWNERS = SPLITS == 1 || ITEMS > SPLITS ? SPLITS : ITEMS,      // warps of a team that have slots
  MULTIPLYING = WARPS * LANES,
  WRITING = WRITERS > 0 ? WRITERS *LANES : MULTIPLYING, // threads that move data
  EIGHT = 8 * STORED,                                   // bytes of 8 units
  SAVED = SAVES + KEPT_COUNT,                           // values that a record of a step holds for each element
  RECORD_WORDS = (SAVED * ELEMENTS * STORED + 3) / 4,   // of a thread
  RECORD_BYTES = RECORD_WORDS * LANES * 4,              // of a warp
  RECORDS = WARPS / SPLITS * OWNERS,                    // warps that have one
};

template <class A, class B> struct same { static constexpr bool value = false; };
template <class A> struct same<A, A> { static constexpr bool value = true; };

// ---- threads -------------------------------------------------------------------------------------------------------

struct thread_place {
  int warp, lane, group, quarter; // group = lane / 4: unit of 8; quarter = lane % 4: batch rows
  int team, part;
  int rank, head, tile; // of the block: among those of its head; batch tile
  long long block;      // of the blocks of all tiles
};

inline int warp_of_thread() { return __shfl_sync(~0u, threadIdx.x / LANES, 0); }

inline thread_place place_thread(int heads, int first_group) {
  thread_place at;
  at.warp = warp_of_thread();
  at.lane = threadIdx.x % LANES;
  at.group = at.lane / 4, at.quarter = at.lane % 4;
  at.team = at.warp / SPLITS, at.part = at.warp % SPLITS;
  at.rank = blockIdx.x % BLOCKS;
  const int group = first_group + blockIdx.x / BLOCKS;
  at.head = group % heads, at.tile = group / heads;
  at.block = (long long)group * BLOCKS + at.rank;
  return at;
}

// Whether slot i is there at all.
inline bool owns(const thread_place &at, int i) { return ITEMS % SPLITS == 0 || at.part + i * SPLITS < ITEMS; }

// Of slot i: its group of 8 units in the block, and its first column.
inline int slot_group(const thread_place &at, int i) {
  int within = SPLITS == 1 ? i : (at.part + i * SPLITS) / COLUMNS;
  return at.team * GROUPS + (owns(at, i) ? within : 0);
}
inline int slot_column(const thread_place &at, int i) { return SPLITS == 1 ? 0 : (at.part + i * SPLITS) % COLUMNS; }
// Batch row, within the block, of a thread's column: 4 rows stand at every other column of a tile of 8.
inline int column_row(const thread_place &at, int column) {
  return COLUMNS == 1 ? at.quarter : column / 2 * 8 + 2 * at.quarter + column % 2;
}
inline int slot_row(const thread_place &at, int i, int c) { return column_row(at, slot_column(at, i) + c); }

struct element_place {
  int b, d; // batch row of all, unit of the head
  bool inside;
};
inline element_place place_element_of(int batch, const thread_place &at, int slot, int c) {
  element_place e;
  e.b = at.tile * ROWS + slot_row(at, slot, c);
  e.d = at.rank * UNITS + slot_group(at, slot) * 8 + at.group;
  e.inside = owns(at, slot) && e.b < batch && e.d < DIM;
  return e;
}

// The length of a batch row, within 0..T: a complaint about others stops whoever reads the results.
inline int length_of(const pl_view &lengths, int b, int steps, const complaints &complaint) {
  if (!LENGTHS) return steps;
  const long long length = *((const long long *)lengths.data + b * lengths.stride[0]);
  if (length >= 0 && length <= steps) return (int)length;
  complain(complaint, COMPLAINT_LENGTH, length, b + 1, steps);
  return length < 0 ? 0 : steps;
}

inline void synchronize_block() { asm volatile("barrier.sync 0;" ::: "memory"); }
inline void synchronize_team(int team) {
  asm volatile("barrier.sync %0, %1;" ::"r"(team + 1), "n"(SPLITS * LANES) : "memory");
}

inline long long offset(const pl_view &v, long long i, long long j, long long k = 0, long long l = 0, long long m = 0) {
  return i * v.stride[0] + j * v.stride[1] + k * v.stride[2] + l * v.stride[3] + m * v.stride[4];
}

// Gates below g that belong to the set: a gate's place on the axis of that part.
inline int place_in(unsigned set, int g) { return __popc(set & ((1u << g) - 1)); }

// Warps that move data leave registers to those that multiply.
inline void share_registers(bool multiplies) {
#if MORE_REGISTERS
  if (multiplies)
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MORE_REGISTERS));
  else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(WRITER_REGISTERS));
#endif
}

// One of two buffers in turn, by addresses that are there before a step begins.
struct turns {
  u32 now, next;
  inline void turn() {
    const u32 before = now;
    now = next, next = before;
  }
};

// ---- shared memory -------------------------------------------------------------------------------------------------

inline void load_shared(u32 (&to)[4], u32 at) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}
inline u32 load_shared_word(u32 at) {
  u32 x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
  return x;
}
inline void store_shared(u32 at, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
inline void store_two(u32 at, u32 a, u32 b) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(at), "r"(a), "r"(b) : "memory");
}
inline void store_one(u32 at, f16 x) { asm volatile("st.shared.b16 [%0], %1;" ::"r"(at), "h"(x.bits) : "memory"); }
inline void store_one(u32 at, bf16 x) { asm volatile("st.shared.b16 [%0], %1;" ::"r"(at), "h"(x.bits) : "memory"); }
inline void store_one(u32 at, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(x) : "memory"); }

inline u32 pack_two(float, float low, float) { return __float_as_uint(low); }
inline float unpack(f16, u32 word, int half) {
  f16 x = {(u16)(half ? word >> 16 : word)};
  return widen(x);
}
inline float unpack(bf16, u32 word, int half) { return __uint_as_float(half ? word & 0xFFFF0000u : word << 16); }
inline float unpack(float, u32 word, int) { return __uint_as_float(word); }

// N words of each lane, as few instructions as go: the lanes' 16 bytes side by side, then 8 and 4.
template <int N> inline void store_words(char *to, int lane, const u32 (&word)[N]) {
#pragma unroll
  for (int i = 0; i + 4 <= N; i += 4)
    *(uint4 *)(to + i * LANES * 4 + lane * 16) = make_uint4(word[i], word[i + 1], word[i + 2], word[i + 3]);
  constexpr int rest = N / 4 * 4;
  if constexpr (N % 4 >= 2) *(uint2 *)(to + rest * LANES * 4 + lane * 8) = make_uint2(word[rest], word[rest + 1]);
  if constexpr (N % 2 == 1) *(u32 *)(to + (N - 1) * LANES * 4 + lane * 4) = word[N - 1];
}
template <int N> inline void load_words(u32 (&word)[N], const char *from, int lane) {
#pragma unroll
  for (int i = 0; i + 4 <= N; i += 4) {
    uint4 four = *(const uint4 *)(from + i * LANES * 4 + lane * 16);
    word[i] = four.x, word[i + 1] = four.y, word[i + 2] = four.z, word[i + 3] = four.w;
  }
  constexpr int rest = N / 4 * 4;
  if constexpr (N % 4 >= 2) {
    uint2 two = *(const uint2 *)(from + rest * LANES * 4 + lane * 8);
    word[rest] = two.x, word[rest + 1] = two.y;
  }
  if constexpr (N % 2 == 1) word[N - 1] = *(const u32 *)(from + (N - 1) * LANES * 4 + lane * 4);
}

// Value i of a record: two to a word where they are of 16 bits.
template <int N> inline float record_value(const u32 (&word)[N], int i) {
  return STORED == 2 ? unpack(S(), word[i / 2], i % 2) : unpack(S(), word[i], 0);
}

// ---- tiles in shared memory: 8 units of every row, behind each other ------------------------------------------------

// The row of a tile of 8 that a lane addresses: 4 rows stand for 8, each twice.
inline int line_row(int lane) { return COLUMNS == 1 ? lane % 8 / 2 : lane % 8; }

// What a slot of a thread reads of N tiles of S: as words, so that they take few registers until they are needed.
template <int N> struct tile_words {
  u32 word[N > 0 ? N : 1][STORED == 2 ? 1 : WIDTH];

  // From N tiles behind each other.
  inline void load(u32 tiles, const thread_place &at, int slot) {
    constexpr int tile = ROWS * EIGHT;
    if constexpr (STORED == 2) {
      const u32 row = tiles + line_row(at.lane) * 16 + slot_column(at, slot) / 2 * (8 * 16) + at.lane / 8 * tile;
#pragma unroll
      for (int i = 0; i + 4 <= N; i += 4)
        load_transposed(word[i][0], word[i + 1][0], word[i + 2][0], word[i + 3][0], row + i * tile);
      constexpr int rest = N / 4 * 4;
      if constexpr (N % 4 >= 2) load_transposed(word[rest][0], word[rest + 1][0], row + rest * tile);
      if constexpr (N % 2 == 1) load_transposed(word[N - 1][0], row + (N - 1) * tile);
    } else {
#pragma unroll
      for (int i = 0; i < N; i++)
#pragma unroll
        for (int c = 0; c < WIDTH; c++)
          word[i][c] = load_shared_word(tiles + i * tile + slot_row(at, slot, c) * EIGHT + at.group * 4);
    }
  }
  inline float value(const thread_place &at, int slot, int i, int c) const {
    if (STORED == 4) return unpack(S(), word[i][c % (STORED == 2 ? 1 : WIDTH)], 0);
    if (COLUMNS > 1 && WIDTH == 1)
      return slot_column(at, slot) % 2 ? unpack(S(), word[i][0], 1) : unpack(S(), word[i][0], 0);
    return unpack(S(), word[i][0], c);
  }
};

// Stores a slot's values at rows of X: `to` is unit 0 of the slot's group in row 0.
template <class X>
inline void store_slot(u32 to, u32 row_bytes, const thread_place &at, int slot, const float (&value)[WIDTH]) {
#if __CUDA_ARCH__ >= 900
  constexpr bool whole = WIDTH == 2 && sizeof(X) == 2;
#else
  constexpr bool whole = false;
#endif
  if constexpr (whole) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(to + at.lane % 8 * row_bytes),
                 "r"(pack_two(X(), value[0], value[1]))
                 : "memory");
  } else {
#pragma unroll
    for (int c = 0; c < WIDTH; c++)
      store_one(to + slot_row(at, slot, c) * row_bytes + at.group * sizeof(X), store_as<X>(value[c]));
  }
}

// Carries 8 units from shared memory, of type X, to memory, of type Y.
template <class X, class Y> inline void carry_out(char *to, u32 from) {
  u32 word[sizeof(X) / 2][4];
#pragma unroll
  for (int i = 0; i < (int)sizeof(X) / 2; i++) load_shared(word[i], from + i * 16);
  if constexpr (same<X, Y>::value) {
#pragma unroll
    for (int i = 0; i < (int)sizeof(X) / 2; i++)
      *(uint4 *)(to + i * 16) = make_uint4(word[i][0], word[i][1], word[i][2], word[i][3]);
  } else {
    float value[8];
#pragma unroll
    for (int k = 0; k < 8; k++) value[k] = unpack(X(), word[k * sizeof(X) / 16][k * sizeof(X) / 4 % 4], k % 2);
#pragma unroll
    for (int i = 0; i < (int)sizeof(Y) / 2; i++) {
      u32 out[4];
#pragma unroll
      for (int k = 0; k < 4; k++)
        out[k] =
            sizeof(Y) == 2 ? pack_two(Y(), value[2 * k], value[2 * k + 1]) : pack_two(Y(), value[4 * i % 8 + k], 0);
      *(uint4 *)(to + i * 16) = make_uint4(out[0], out[1], out[2], out[3]);
    }
  }
}

// ---- products ------------------------------------------------------------------------------------------------------

inline void multiply_tf32(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

inline u32 round_tf32(u32 x) {
  u32 y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__uint_as_float(x)));
  return y;
}
inline u32 rest_tf32(u32 x, u32 rounded) { return __float_as_uint(__uint_as_float(x) - __uint_as_float(rounded)); }

// sum [16][8] += a [16][32 bytes] b [8][32 bytes]: lane 4 i + j has words j and j + 4 of rows i and i + 8 of a in a[0],
// a[2] and a[1], a[3], those of row i of b in b0 and b1, and columns 2 j, 2 j + 1 of rows i and i + 8 of the sum.
inline void multiply(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if PRODUCT == PRODUCT_BF16
  multiply_16(bf16(), sum, a, b0, b1);
#elif PRODUCT == PRODUCT_F16
  multiply_16(f16(), sum, a, b0, b1);
#elif PRODUCT == PRODUCT_TF32
  const u32 rounded[4] = {round_tf32(a[0]), round_tf32(a[1]), round_tf32(a[2]), round_tf32(a[3])};
  multiply_tf32(sum, rounded, round_tf32(b0), round_tf32(b1));
#else // the products of the rounded parts and the rests, but for rest times rest, which float32 does not hold
  const u32 big[4] = {round_tf32(a[0]), round_tf32(a[1]), round_tf32(a[2]), round_tf32(a[3])};
  const u32 rest[4] = {rest_tf32(a[0], big[0]), rest_tf32(a[1], big[1]), rest_tf32(a[2], big[2]),
                       rest_tf32(a[3], big[3])};
  const u32 big0 = round_tf32(b0), big1 = round_tf32(b1);
  multiply_tf32(sum, rest, big0, big1);
  multiply_tf32(sum, big, rest_tf32(b0, big0), rest_tf32(b1, big1));
  multiply_tf32(sum, big, big0, big1);
#endif
}

// The part of a matrix that a warp multiplies from the left, TILES_ tiles of 16 rows by DEPTH_ of 32 bytes:
// IN_REGISTERS of these fragments in registers, the others in shared memory, spread evenly over the chain.
template <int TILES_, int DEPTH_, int IN_REGISTERS_> struct matrix {
  static constexpr int ALONG = DEPTH_, FRAGMENTS = TILES_ * DEPTH_;
  static constexpr int KEPT_HERE = IN_REGISTERS_ < FRAGMENTS ? IN_REGISTERS_ : FRAGMENTS;
  static constexpr int ELSEWHERE = FRAGMENTS - KEPT_HERE;
  u32 here[KEPT_HERE > 0 ? KEPT_HERE : 1][4];
  u32 elsewhere; // address of the lane's first

  static constexpr int elsewhere_before(int f) { return f * ELSEWHERE / (FRAGMENTS > 0 ? FRAGMENTS : 1); }
  static constexpr bool is_elsewhere(int f) { return elsewhere_before(f + 1) != elsewhere_before(f); }

  // From `packed`, where a warp's fragments stand behind each other, each lane's 16 bytes side by side.
  inline void load(const char *packed, u32 shared, int lane) {
    elsewhere = shared + lane * 16;
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++) {
      uint4 part = *(const uint4 *)(packed + (f * LANES + lane) * 16);
      const int before = elsewhere_before(f);
      if (is_elsewhere(f)) {
        store_shared(elsewhere + before * LANES * 16, part.x, part.y, part.z, part.w);
      } else {
        u32(&to)[4] = here[f - before < KEPT_HERE ? f - before : 0];
        to[0] = part.x, to[1] = part.y, to[2] = part.z, to[3] = part.w;
      }
    }
  }

  inline void operand(u32 (&a)[4], int f) const {
    const int before = elsewhere_before(f);
    if (is_elsewhere(f)) {
      load_shared(a, elsewhere + before * LANES * 16);
    } else {
#pragma unroll
      for (int k = 0; k < 4; k++) a[k] = here[f - before < KEPT_HERE ? f - before : 0][k];
    }
  }

  // sum[rows][set][tile] += this times 8 rows of shared memory each; `row` is the lane's address for load_matrices, and
  // the next 8 rows are rows_bytes behind.
  template <int ROW_TILES, int SETS>
  inline void multiply_rows(float (&sum)[ROW_TILES][SETS][TILES_][4], u32 row, u32 rows_bytes) const {
#pragma unroll
    for (int k = 0; k < DEPTH_; k += 2) {
      u32 b[ROW_TILES][4];
#pragma unroll
      for (int rows = 0; rows < ROW_TILES; rows++) {
        if (k + 1 < DEPTH_)
          load_matrices(b[rows], row + rows * rows_bytes + k * TILE_BYTES);
        else
          load_two_matrices(b[rows], row + rows * rows_bytes + k * TILE_BYTES);
      }
#pragma unroll
      for (int e = 0; e < 2 && k + e < DEPTH_; e++)
#pragma unroll
        for (int tile = 0; tile < TILES_; tile++) {
          u32 a[4];
          operand(a, (k + e) * TILES_ + tile);
#pragma unroll
          for (int rows = 0; rows < ROW_TILES; rows++)
            multiply(sum[rows][(k + e) % SETS][tile], a, b[rows][2 * e], b[rows][2 * e + 1]);
        }
    }
  }

  // The same from registers: word[k * ROW_TILES + rows][0] and [2] are those words of tile k of 8 rows.
  template <int ROW_TILES, int SETS>
  inline void multiply_words(float (&sum)[ROW_TILES][SETS][TILES_][4], const u32 (&word)[DEPTH_ * ROW_TILES][4]) const {
#pragma unroll
    for (int k = 0; k < DEPTH_; k++)
#pragma unroll
      for (int tile = 0; tile < TILES_; tile++) {
        u32 a[4];
        operand(a, k * TILES_ + tile);
#pragma unroll
        for (int rows = 0; rows < ROW_TILES; rows++)
          multiply(sum[rows][k % SETS][tile], a, word[k * ROW_TILES + rows][0], word[k * ROW_TILES + rows][2]);
      }
  }
};

// ---- sums that the warps of a team have parts of --------------------------------------------------------------------

// part[item] are this warp's parts of N sums for each item of the team: those of other warps' slots are given away
// through shared memory, and whole[slot] are the sums of this thread's, always added in the same order.
template <int N>
inline void share_sums(float (&whole)[SLOTS][N], const float (&part)[ITEMS][N], const thread_place &at, char *shared) {
  constexpr int part_bytes = N * LANES * 4;
  char *of_team = shared + at.team * (SPLITS * ITEMS * part_bytes);
#pragma unroll
  for (int i = 0; i < SLOTS; i++)
#pragma unroll
    for (int n = 0; n < N; n++) whole[i][n] = 0;
#pragma unroll
  for (int item = 0; item < ITEMS; item++) {
    if (item % SPLITS == at.part) {
#pragma unroll
      for (int n = 0; n < N; n++) whole[item / SPLITS][n] = part[item][n];
    } else {
      u32 word[N];
#pragma unroll
      for (int n = 0; n < N; n++) word[n] = __float_as_uint(part[item][n]);
      store_words(of_team + (item * SPLITS + at.part) * part_bytes, at.lane, word);
    }
  }
  synchronize_team(at.team);
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    if (!owns(at, i)) continue;
#pragma unroll
    for (int other = 1; other < SPLITS; other++) {
      u32 word[N];
      load_words(word, of_team + ((at.part + i * SPLITS) * SPLITS + (at.part + other) % SPLITS) * part_bytes, at.lane);
#pragma unroll
      for (int n = 0; n < N; n++) whole[i][n] += __uint_as_float(word[n]);
    }
  }
}

// The lane's address for load_matrices in rows of `row_bytes` from `rows` on.
inline u32 matrix_row(u32 rows, u32 row_bytes, int lane) { return rows + line_row(lane) * row_bytes + lane / 8 * 16; }

template <int SETS, int TILES> inline void empty_sums(float (&sum)[SETS][TILES][4]) {
#pragma unroll
  for (int set = 0; set < SETS; set++)
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
      for (int k = 0; k < 4; k++) sum[set][tile][k] = 0;
}

template <int SETS, int TILES> inline void join_sets(float (&sum)[SETS][TILES][4]) {
#pragma unroll
  for (int set = 1; set < SETS; set++)
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
      for (int k = 0; k < 4; k++) sum[0][tile][k] += sum[set][tile][k];
}

inline int carrying_thread() { return WRITERS > 0 ? threadIdx.x - MULTIPLYING : threadIdx.x; }
// Pieces of each thread that carries, of `count`.
inline constexpr int share_of(int count) { return (count + WRITING - 1) / WRITING; }

// Independent sums, so that about four products are on their way at once.
inline constexpr int sets_of(int tiles, int depth) {
  int sets = tiles >= 4 ? 1 : tiles >= 2 ? 2 : 4;
  return sets < depth ? sets : depth > 0 ? depth : 1;
}
