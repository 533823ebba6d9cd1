// How the fused kernels bring h (forward), and the gradients of gates and of h (backward), from step to step.
// Block: one block holds a head, and shared memory is enough. Cluster: the blocks of a head send into each other's
// shared memory, whose barriers count the bytes. Grid: they write to memory, every 4 bytes beside the number of the
// step that is to read them; readers poll, and no fence, counter or barrier of the grid is needed. Backward, the blocks
// of a head stand in GATHERS sets of PARTS. A block gathers the gates' gradients of the blocks that have its place in
// every set, and what it makes of them is its part of the gradient of h of its own set, whose blocks add up the parts:
// CLUSTERED, as a cluster, else through memory. One set, one part where that is all. Two buffers in turn are enough: a
// block sends step t + 2 only after it has all of t + 1, which the others sent after they had read t. Every wait is
// bounded: one that fails is reported, and the launch ends with invalid results.
#pragma once
#include "fused.cuh"

enum {
  COMPLAINT_WAIT = 4,
  HALVES = PARTS * UNITS / 8 / WARPS, // groups of 8 units of h whose gradients a warp multiplies for, backward
  FED = RECURRENTS * UNITS,           // gates of a block that R feeds
  GATES_DEPTH = (GATHERS * FED + TILE_UNITS - 1) / TILE_UNITS,
  GATES_ROW = GATES_DEPTH * TILE_BYTES + PADDING, // their gradients in shared memory, of one batch row
};

struct meeting {
  char *slots; // grid: memory for what is sent, zeros at first
  complaints complaint;
};

// ---- clusters -------------------------------------------------------------------------------------------------------

#if CLUSTERED
enum { CLUSTER_PATIENCE = 1 << 22 }; // polls, each of which the hardware may stretch

inline void synchronize_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
inline void expect_bytes(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
inline bool has_arrived(u32 barrier, u32 parity) {
  u32 yes;
  asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
               "selp.u32 %0, 1, 0, p;\n\t}"
               : "=r"(yes)
               : "r"(barrier), "r"(parity)
               : "memory");
  return yes;
}
inline u32 address_in(u32 address, int rank) {
  u32 there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
inline void send_two(u32 to, u32 a, u32 b, u32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::"r"(to),
               "r"(a), "r"(b), "r"(barrier)
               : "memory");
}
inline void send_to(u32 to, const u32 (&word)[4], u32 barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]), "r"(barrier)
      : "memory");
}

// By all threads of all blocks, before anything is sent: two barriers at the start of shared memory, each of which
// opens when `bytes` have come.
inline void enter_cluster(u32 base, u32 bytes) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(base + i * 8) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int i = 0; i < 2; i++) expect_bytes(base + i * 8, bytes);
  }
  __syncwarp();
  synchronize_cluster();
}
// No block leaves while another may still send to it.
inline void leave_cluster() { synchronize_cluster(); }

// The barriers of a cluster as one thread waits at them.
struct cluster_meeting {
  u32 base, bytes;
  complaints complaint;
  bool given_up;

  // Until all that `step`, at least 1, reads is there; then the barrier is made ready for the step after the next.
  inline void await(int step) {
    const u32 barrier = base + (step & 1) * 8;
    for (int polls = 0; !given_up && !has_arrived(barrier, (step - 1) >> 1 & 1); polls++)
      if (polls == CLUSTER_PATIENCE) {
        given_up = true;
        complain(complaint, COMPLAINT_WAIT, blockIdx.x, step, PARTS);
      }
    if (threadIdx.x == 0) expect_bytes(barrier, bytes);
    __syncwarp();
  }
};
#else
inline void enter_cluster(u32, u32) {}
inline void leave_cluster() {}
#endif

// ---- memory ---------------------------------------------------------------------------------------------------------

enum { PATIENCE = 1 << 21 }; // polls of memory

// Two words, each with its number; a reader sees both of a pair or neither.
inline void put_words(char *to, u32 a, u32 b, u32 number) {
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %2};" ::"l"(to), "r"(a), "r"(number), "r"(b)
               : "memory");
}
inline void look(u32 (&word)[4], const char *from, bool wanted) {
  asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %5, 0;\n\t"
               "@p ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];\n\t}"
               : "+r"(word[0]), "+r"(word[1]), "+r"(word[2]), "+r"(word[3])
               : "l"(from), "r"((u32)wanted)
               : "memory");
}

// What has just been sent for is not there yet, and looking for it is in the way of what is being written: 0.1 us less
// a step at 1x768, but not where 16 rows take longer to look at.
enum { PAUSE = ROWS > 8 ? 0 : 200 }; // cycles

inline u32 clock_now() {
  u32 now;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
  return now;
}
inline void pause() {
  if (PAUSE > 0) {
    const u32 began = clock_now();
    while (clock_now() - began < PAUSE) {
    }
  }
}

// A thread's waits for words that other blocks write.
struct memory_meeting {
  complaints complaint;
  bool given_up;

  // Until what lies at place(i), for each i below N, is of `number`; nothing is awaited where place(i) is null.
  template <int N, class PLACE> inline void await(u32 (&word)[N][4], u32 number, int step, PLACE place) {
    pause();
#pragma unroll
    for (int i = 0; i < N; i++) {
      const bool there = place(i) != nullptr;
      word[i][0] = word[i][2] = 0, word[i][1] = word[i][3] = there ? 0 : number;
      look(word[i], place(i), there);
    }
    for (int polls = 0; !given_up; polls++) {
      u32 missing[N], any = 0;
#pragma unroll
      for (int i = 0; i < N; i++) any |= missing[i] = (word[i][1] ^ number) | (word[i][3] ^ number);
      if (!any) break;
#pragma unroll
      for (int i = 0; i < N; i++) look(word[i], place(i), missing[i] != 0);
      if (polls == PATIENCE) {
        given_up = true;
        complain(complaint, COMPLAINT_WAIT, blockIdx.x, step, BLOCKS);
      }
    }
    __syncwarp();
  }
};

// ---- h, forward -----------------------------------------------------------------------------------------------------

#if SCOPE == SCOPE_BLOCK
struct rows_exchange {
  static constexpr int BYTES = 0;
  inline void begin(u32, const thread_place &, const meeting &) {}
  template <class MATRIX, class SUMS>
  inline void multiply_rows(const MATRIX &part, SUMS &sum, const thread_place &, u32 row, int) {
    part.multiply_rows(sum, row, 0);
  }
  inline void send_rows(const thread_place &, u32, u32, u32, u32, int) {}
};
#elif SCOPE == SCOPE_CLUSTER
struct rows_exchange {
  static constexpr int BYTES = ROWS * PADDED * MULTIPLIED; // of a step
  static constexpr int AT_ONCE = LANES / (4 * WIDTH);      // peers that a warp sends to in one instruction
  static constexpr int TURNS = (BLOCKS + AT_ONCE - 1) / AT_ONCE;
  cluster_meeting meeting_place;
  u32 peer[TURNS];

  inline void begin(u32 shared, const thread_place &at, const meeting &m) {
    meeting_place = {shared, BYTES, m.complaint, false};
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
      const int rank = at.lane / (4 * WIDTH) + i * AT_ONCE;
      peer[i] = address_in(shared, rank < BLOCKS ? rank : 0);
    }
  }

  template <class MATRIX, class SUMS>
  inline void multiply_rows(const MATRIX &part, SUMS &sum, const thread_place &, u32 row, int step) {
    if (step > 0) meeting_place.await(step);
    part.multiply_rows(sum, row, 0);
  }

  // Sends what this warp wrote, 8 units of each row of each slot, to every block: from rows of `own_row` bytes at `own`
  // to rows of `to_row` bytes at `to` (counted from the start of shared memory), for `step` to read.
  inline void send_rows(const thread_place &at, u32 own, u32 own_row, u32 to, u32 to_row, int step) {
    __syncwarp();
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
      const int line = at.lane % (4 * WIDTH), row = WIDTH == COLUMNS ? line : 2 * line + slot_column(at, slot);
      const u32 unit = slot_group(at, slot) * 8 * MULTIPLIED;
#pragma unroll
      for (int k = 0; k < MULTIPLIED / 2; k++) {
        u32 word[4];
        load_shared(word, own + row * own_row + unit + k * 16);
#pragma unroll
        for (int i = 0; i < TURNS; i++)
          if (BLOCKS % AT_ONCE == 0 || at.lane / (4 * WIDTH) + i * AT_ONCE < BLOCKS)
            send_to(peer[i] + to + row * to_row + at.rank * UNITS * MULTIPLIED + unit + k * 16, word,
                    peer[i] + (step & 1) * 8);
      }
    }
  }
};
#else
struct rows_exchange {
  static constexpr int LINES = ROWS < 8 ? ROWS : 8;
  static constexpr int BYTES = PADDED / TILE_UNITS * COLUMN_TILES * LINES * 64; // of a step
  memory_meeting meeting_place;
  char *slots;

  inline void begin(u32, const thread_place &at, const meeting &m) {
    meeting_place = {m.complaint, false};
    slots = m.slots + at.block / BLOCKS * (2 * BYTES);
  }

  // Words of h straight into the operands of the products: those of tile k of units lie in 16 bytes for each lane.
  template <class MATRIX, class SUMS>
  inline void multiply_rows(const MATRIX &part, SUMS &sum, const thread_place &at, u32, int step) {
    constexpr int DEPTH = MATRIX::ALONG;
    const int line = COLUMNS == 1 ? at.group / 2 : at.group;
    const char *from =
        slots + (step & 1) * BYTES + at.part * (DEPTH * COLUMN_TILES * LINES * 64) + line * 64 + at.quarter * 16;
    u32 word[DEPTH * COLUMN_TILES][4];
    meeting_place.await(word, step + 1, step, [&](int i) { return from + i * (LINES * 64); });
    part.multiply_words(sum, word);
  }

  // Sends what this warp wrote, 8 units of each row of each slot, from rows of `own_row` bytes at `own`.
  inline void send_rows(const thread_place &at, u32 own, u32 own_row, u32, u32, int step) {
    constexpr int AT_ONCE = 2 * PER_WORD, PIECES = 8 / AT_ONCE; // units of two words
    __syncwarp();
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
      const int column = slot_column(at, slot), line = at.lane % 4, piece = at.lane / 4;
      const int row = COLUMNS == 1 ? line : column / 2 * 8 + 2 * line + column % 2;
      if (!owns(at, slot) || piece >= PIECES) continue;
      const int within = slot_group(at, slot) * 8 + piece * AT_ONCE, unit = at.rank * UNITS + within;
      const u32 from = own + row * own_row + within * MULTIPLIED;
      put_words(slots + (step & 1) * BYTES + ((unit / TILE_UNITS * COLUMN_TILES + row / 8) * LINES + row % 8) * 64 +
                    unit % TILE_UNITS / AT_ONCE * 16,
                load_shared_word(from), load_shared_word(from + 4), step + 1);
    }
  }
};
#endif

// ---- the gates' gradients, backward ---------------------------------------------------------------------------------

#if GATHERS == 1
struct gates_exchange {
  static constexpr int BYTES = 0;
  inline void begin(const thread_place &, const meeting &) {}
  inline void send(const thread_place &, u32, int) {}
  inline void gather(const thread_place &, u32, int) {}
};
#else
struct gates_exchange {
  static constexpr int AT_ONCE = 2 * PER_WORD, PIECES = UNITS / AT_ONCE; // units of two words
  static constexpr int SET_CHUNKS = RECURRENTS * PIECES * ROWS;          // of two words, of one block
  static constexpr int PLACE_BYTES = GATHERS * SET_CHUNKS * 16;
  static constexpr int BYTES = PARTS * PLACE_BYTES; // of a step
  static constexpr int CHUNKS = (GATHERS - 1) * SET_CHUNKS, SHARE = (CHUNKS + MULTIPLYING - 1) / MULTIPLYING;
  memory_meeting meeting_place;
  char *slots;

  inline void begin(const thread_place &at, const meeting &m) {
    meeting_place = {m.complaint, false};
    slots = m.slots + at.block / BLOCKS * (2 * BYTES) + at.rank % PARTS * PLACE_BYTES;
  }

  // Sends what this warp wrote of the gates' gradients of `step`, in rows from `gates` on.
  inline void send(const thread_place &at, u32 gates, int step) {
    constexpr int EIGHTH = 8 / AT_ONCE, LINES = 4 * WIDTH, COUNT = RECURRENTS * EIGHTH * LINES;
    const int set = at.rank / PARTS;
    __syncwarp();
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
      if (!owns(at, slot)) continue;
#pragma unroll
      for (int i = 0; i < COUNT; i += LANES) {
        const int m = i + at.lane, line = m % 4, piece = m / 4 % EIGHTH, gate = m / 4 / EIGHTH % RECURRENTS;
        if (COUNT % LANES != 0 && m >= COUNT) continue;
        const int column = slot_column(at, slot), row = COLUMNS == 1 ? line : column / 2 * 8 + 2 * line + column % 2;
        const int unit = slot_group(at, slot) * 8 + piece * AT_ONCE;
        const u32 from = gates + row * GATES_ROW + (set * FED + gate * UNITS + unit) * MULTIPLIED;
        put_words(slots + (step & 1) * BYTES +
                      (((set * RECURRENTS + gate) * PIECES + unit / AT_ONCE) * ROWS + row) * 16,
                  load_shared_word(from), load_shared_word(from + 4), step + 1);
      }
    }
  }

  // Brings those of the blocks at this block's place in the other sets into the rows.
  inline void gather(const thread_place &at, u32 gates, int step) {
    const char *from = slots + (step & 1) * BYTES;
    const int own = at.rank / PARTS;
    auto chunk_of = [&](int i) {
      const int chunk = threadIdx.x + i * MULTIPLYING;
      return chunk < own * SET_CHUNKS ? chunk : chunk + SET_CHUNKS; // the own set's are there
    };
    u32 word[SHARE][4];
    meeting_place.await(word, step + 1, step, [&](int i) {
      return threadIdx.x + i * MULTIPLYING < CHUNKS ? from + chunk_of(i) * 16 : nullptr;
    });
#pragma unroll
    for (int i = 0; i < SHARE; i++) {
      if (threadIdx.x + i * MULTIPLYING >= CHUNKS) continue;
      const int chunk = chunk_of(i), row = chunk % ROWS, unit = chunk / ROWS % PIECES * AT_ONCE,
                line = chunk / ROWS / PIECES;
      store_two(gates + row * GATES_ROW + (line * UNITS + unit) * MULTIPLIED, word[i][0], word[i][2]);
    }
  }
};
#endif

// ---- the parts of the gradient of h, backward -----------------------------------------------------------------------

#if PARTS == 1
struct parts_exchange {
  static constexpr int BYTES = 0, CLUSTER_BYTES = 0;
  inline void begin(u32, const thread_place &, const meeting &) {}
  // The thread's own sums are whole.
  template <class SUMS>
  inline void add_up(float (&whole)[SLOTS][WIDTH], const SUMS &sum, const thread_place &, char *, int) {
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
#pragma unroll
      for (int c = 0; c < WIDTH; c++) whole[i][c] = sum[0][0][0][i % 2 * 2 + c];
  }
};
#elif CLUSTERED
struct parts_exchange {
  static constexpr bool PAIRED = UNITS % 16 == 0 && HALVES % 2 == 0; // both halves of a tile go to one block
  static constexpr int ROWS_BYTES = UNITS / 8 * LANES * 8, PART_BYTES = COLUMN_TILES * ROWS_BYTES;
  static constexpr int BYTES = 0, CLUSTER_BYTES = PARTS * PART_BYTES; // of a step
  cluster_meeting meeting_place;

  inline void begin(u32 shared, const thread_place &, const meeting &m) {
    meeting_place = {shared, CLUSTER_BYTES, m.complaint, false};
  }

  static inline int place(int group, int lane) {
    return PAIRED ? (group / 2 * LANES + lane) * 16 + group % 2 * 8 : (group * LANES + lane) * 8;
  }

  // Sends each sum to the block whose unit it is, and adds up what came for the thread's own, in the blocks' order.
  template <class SUMS>
  inline void add_up(float (&whole)[SLOTS][WIDTH], const SUMS &sum, const thread_place &at, char *shared, int step) {
    const int buffer = AT_SLOTS + (step & 1) * CLUSTER_BYTES, place_in_set = at.rank % PARTS;
#pragma unroll
    for (int half = 0; half < HALVES; half += PAIRED ? 2 : 1) {
      const int all = at.warp * HALVES + half, part = all / (UNITS / 8), group = all % (UNITS / 8);
      const u32 there = address_in(meeting_place.base, part), barrier = there + (step & 1) * 8;
#pragma unroll
      for (int rows = 0; rows < COLUMN_TILES; rows++) {
        const u32 to = there + buffer + place_in_set * PART_BYTES + rows * ROWS_BYTES + place(group, at.lane);
        const float(&four)[4] = sum[rows][0][half / 2];
        if (PAIRED) {
          const u32 word[4] = {__float_as_uint(four[0]), __float_as_uint(four[1]), __float_as_uint(four[2]),
                               __float_as_uint(four[3])};
          send_to(to, word, barrier);
        } else {
          send_two(to, __float_as_uint(four[half % 2 * 2]), __float_as_uint(four[half % 2 * 2 + 1]), barrier);
        }
      }
    }
    meeting_place.await(step);
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
#pragma unroll
      for (int c = 0; c < WIDTH; c++) {
        const int column = slot_column(at, i) + c;
        const char *from =
            shared + buffer + column / 2 * ROWS_BYTES + place(slot_group(at, i), at.lane) + column % 2 * 4;
        float total = 0;
#pragma unroll
        for (int part = 0; part < PARTS; part++) total += *(const float *)(from + part * PART_BYTES);
        whole[i][c] = total;
      }
  }
};
#else
struct parts_exchange {
  // What is sent in 16 bytes: the sums for two columns of 8 units, as floats or, for two groups of units, as bf16.
  static constexpr bool NARROW = PRODUCT == PRODUCT_BF16, PAIRED = NARROW && GROUPS % 2 == 0 && HALVES % 2 == 0;
  static constexpr int PIECES = (PAIRED ? GROUPS / 2 : GROUPS) * COLUMN_TILES; // of one block's part
  static constexpr int SHARE = (PARTS + WARPS - 1) / WARPS;
  static constexpr int BLOCK_BYTES = PIECES * PARTS * LANES * 16;
  static constexpr int BYTES = BLOCKS * BLOCK_BYTES, CLUSTER_BYTES = 0; // of a step
  memory_meeting meeting_place;
  char *slots;

  inline void begin(u32, const thread_place &at, const meeting &m) {
    meeting_place = {m.complaint, false};
    slots = m.slots + (long long)(at.block / BLOCKS) * (2 * BYTES);
  }

  // Sends each sum to the block whose unit it is. Each warp adds up what came from some of the blocks, in their order,
  // and the warps share these sums.
  template <class SUMS>
  inline void add_up(float (&whole)[SLOTS][WIDTH], const SUMS &sum, const thread_place &at, char *shared, int step) {
    char *buffer = slots + (step & 1) * BYTES;
    const int set = at.rank / PARTS, sender = at.rank % PARTS;
#pragma unroll
    for (int half = 0; half < HALVES; half += PAIRED ? 2 : 1) {
      const int all = at.warp * HALVES + half, to_rank = set * PARTS + all / GROUPS;
      const int group = all % GROUPS / (PAIRED ? 2 : 1);
#pragma unroll
      for (int rows = 0; rows < COLUMN_TILES; rows++) {
        char *to =
            buffer + to_rank * BLOCK_BYTES + (((group * COLUMN_TILES + rows) * PARTS + sender) * LANES + at.lane) * 16;
        const float(&four)[4] = sum[rows][0][half / 2];
        const float low = four[half % 2 * 2], high = four[half % 2 * 2 + 1];
        if (PAIRED)
          put_words(to, pack_two(bf16(), four[0], four[1]), pack_two(bf16(), four[2], four[3]), step);
        else if (NARROW)
          put_words(to, pack_two(bf16(), low, high), 0, step);
        else
          put_words(to, __float_as_uint(low), __float_as_uint(high), step);
      }
    }
    u32 word[PIECES * SHARE][4];
    const char *mine = buffer + at.rank * BLOCK_BYTES + at.lane * 16;
    meeting_place.await(word, step, step, [&](int i) {
      const int part = at.warp + i % SHARE * WARPS;
      return part < PARTS ? mine + (i / SHARE * PARTS + part) * (LANES * 16) : nullptr;
    });
    float part[ITEMS][1];
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) {
      const int group = piece / COLUMN_TILES * (PAIRED ? 2 : 1), rows = piece % COLUMN_TILES;
#pragma unroll
      for (int k = 0; k < (PAIRED ? 2 : 1); k++) {
        float low = 0, high = 0;
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
          const u32(&w)[4] = word[piece * SHARE + i];
          low += NARROW ? unpack(bf16(), w[2 * k], 0) : __uint_as_float(w[0]);
          high += NARROW ? unpack(bf16(), w[2 * k], 1) : __uint_as_float(w[2]);
        }
        part[(group + k) * COLUMNS + rows * 2][0] = low;
        if (COLUMNS > 1) part[(group + k) * COLUMNS + rows * 2 + (COLUMNS > 1)][0] = high;
      }
    }
    share_sums<1>(*(float(*)[SLOTS][1])whole, part, at, shared + AT_SUMS);
  }
};
#endif
