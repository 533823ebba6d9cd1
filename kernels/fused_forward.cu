// The fused recurrence, forward: one launch for all time steps. Blocks hold their part of R in registers (and shared
// memory) and the states other than h in registers of the threads that own them; h goes from step to step through
// shared memory, within a cluster of BLOCKS blocks through that of all of them.
#include "fused_frame.cuh"

enum {
  TILES = (RECURRENTS * GROUPS + 1) / 2, // of 16 rows of R: (gate, group) pairs, two to a tile
  DEPTH = RECURRENTS > 0 ? PADDED *MULTIPLIED / TILE_BYTES / SPLITS : 0,
  SETS = sets_of(TILES, DEPTH),
  H_ROW = PADDED * MULTIPLIED + PADDING,
  OWN_ROW = SCOPE == SCOPE_BLOCK ? H_ROW : UNITS * MULTIPLIED + PADDING, // of the block's own part of h
  EXTRA_ROW = UNITS * STORED + PADDING,                                  // of the block's part of another state
  EXTRAS = STATES_OUT > 1 ? STATES_OUT - 1 : 0,
  STEP_BYTES = INPUTS * ROWS * UNITS * STORED, // of Wx
  CHUNKS_IN = INPUTS * ROWS * (UNITS / 8),
  CHUNKS_OUT = ROWS * (UNITS / 8),
  // Wx + b of the next step while the cell is computed; where warps share sums, as in the grid scope, waits are long
  // enough, and registers are few.
  GATES_AHEAD = SPLITS == 1,
};

typedef matrix<(TILES > 0 ? TILES : 1), DEPTH, IN_REGISTERS> weights;

// ---- the warps that multiply ----------------------------------------------------------------------------------------

inline element_place place_element(const pl_forward &p, const thread_place &at, int slot, int c) {
  return place_element_of(p.batch, at, slot, c);
}

struct cell_state {
  float state[STATES][SLOTS][WIDTH];
  float gate[GATES][SLOTS][WIDTH];
  float bias[GATES][SLOTS], param[PARAMS + 1][SLOTS];
  int length[SLOTS][WIDTH];
  tile_words<INPUTS> input[SLOTS]; // Wx of the step to come
};

inline void begin(cell_state &x, const pl_forward &p, const thread_place &at) {
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    const element_place first = place_element(p, at, i, 0);
    const int unit = first.d < DIM ? first.d : 0;
#pragma unroll
    for (int g = 0; g < GATES; g++) {
      x.bias[g][i] = 0;
      if (HAS_BIAS >> g & 1)
        x.bias[g][i] = ((const float *)p.bias.data)[offset(p.bias, place_in(HAS_BIAS, g), at.head, unit)];
    }
#pragma unroll
    for (int k = 0; k < PARAMS; k++)
      x.param[k][i] = ((const float *)p.param[k].data)[offset(p.param[k], at.head, unit)];
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      const element_place e = place_element(p, at, i, c);
      x.length[i][c] =
          e.b < p.batch ? length_of(p.lengths, e.b, p.steps, {(complaint *)p.complaint, (int *)p.lock}) : p.steps;
#pragma unroll
      for (int s = 0; s < STATES; s++) {
        x.state[s][i][c] = (float)p.initial_value[s];
        if (p.initial.data)
          x.state[s][i][c] =
              e.inside ? ((const float *)p.initial.data)[offset(p.initial, s, e.b, 0, at.head, e.d)] : 0.0f;
      }
    }
  }
}

// The initial h: of all units of the head into the buffer that step 0 reads, or of the block's own units to be sent.
inline void begin_rows(const pl_forward &p, const thread_place &at, u32 h) {
  constexpr int units = SCOPE == SCOPE_GRID ? UNITS : PADDED, row_bytes = SCOPE == SCOPE_GRID ? OWN_ROW : H_ROW;
  const int first = SCOPE == SCOPE_GRID ? at.rank * UNITS : 0;
  for (int i = threadIdx.x; i < ROWS * units; i += MULTIPLYING) {
    const int row = i / units, d = first + i % units, b = at.tile * ROWS + row;
    float value = 0;
    if (b < p.batch && d < DIM) {
      value = (float)p.initial_value[0];
      if (p.initial.data) value = ((const float *)p.initial.data)[offset(p.initial, 0, b, 0, at.head, d)];
    }
    const P rounded = store_as<P>(value);
    store_one(h + row * row_bytes + i % units * MULTIPLIED, rounded);
    if (REMEMBER && RECURRENTS > 0 && (SCOPE == SCOPE_GRID || at.rank == 0) && b < p.batch && d < DIM)
      ((P *)p.h_before)[((long long)b * p.steps * p.heads + at.head) * DIM + d] = rounded;
  }
}

inline void read_input(cell_state &x, const thread_place &at, u32 ring, int t) {
  if constexpr (INPUTS > 0)
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
      x.input[i].load(ring + t % RING * STEP_BYTES + slot_group(at, i) * (INPUTS * ROWS * EIGHT), at, i);
}

// Wx + b.
inline void begin_gates(cell_state &x, const thread_place &at) {
#pragma unroll
  for (int g = 0; g < GATES; g++)
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
#pragma unroll
      for (int c = 0; c < WIDTH; c++)
        x.gate[g][i][c] =
            (HAS_INPUT >> g & 1 ? x.input[i].value(at, i, place_in(HAS_INPUT, g), c) : 0.0f) + x.bias[g][i];
}

typedef float sums[COLUMN_TILES][SETS][TILES > 0 ? TILES : 1][4];

// Half tile `half` of the sums: gate half / GROUPS of those that R feeds, group half % GROUPS; of 8 batch rows, column
// c.
#define SUM(set, rows, half, c) sum[rows][set][(half) / 2][(half) % 2 * 2 + (c)]

// Where a warp has whole sums, they start at what they are added to.
inline void begin_sums(sums &sum, const cell_state &x) {
#pragma unroll
  for (int rows = 0; rows < COLUMN_TILES; rows++) empty_sums<SETS, (TILES > 0 ? TILES : 1)>(sum[rows]);
  if constexpr (SPLITS == 1)
#pragma unroll
    for (int g = 0; g < GATES; g++)
      if (HAS_RECURRENT >> g & 1)
#pragma unroll
        for (int i = 0; i < SLOTS; i++)
#pragma unroll
          for (int c = 0; c < WIDTH; c++) SUM(0, 0, place_in(HAS_RECURRENT, g) * GROUPS + i, c) = x.gate[g][i][c];
}

inline void join(sums &sum) {
#pragma unroll
  for (int rows = 0; rows < COLUMN_TILES; rows++) join_sets<SETS, (TILES > 0 ? TILES : 1)>(sum[rows]);
}

// Adds to the gates what R h brings.
inline void end_sums(cell_state &x, sums &sum, const thread_place &at, char *shared) {
  if constexpr (RECURRENTS == 0) return;
  join(sum);
  if constexpr (SPLITS == 1) {
#pragma unroll
    for (int g = 0; g < GATES; g++)
      if (HAS_RECURRENT >> g & 1)
#pragma unroll
        for (int i = 0; i < SLOTS; i++)
#pragma unroll
          for (int c = 0; c < WIDTH; c++) x.gate[g][i][c] = SUM(0, 0, place_in(HAS_RECURRENT, g) * GROUPS + i, c);
  } else {
    constexpr int N = RECURRENTS > 0 ? RECURRENTS : 1;
    float part[ITEMS][N], whole[SLOTS][N];
#pragma unroll
    for (int item = 0; item < ITEMS; item++)
#pragma unroll
      for (int r = 0; r < RECURRENTS; r++) {
        const int column = item % COLUMNS;
        part[item][r] = SUM(0, column / 2, r * GROUPS + item / COLUMNS, column % 2);
      }
    share_sums<N>(whole, part, at, shared + AT_SUMS);
#pragma unroll
    for (int g = 0; g < GATES; g++)
      if (HAS_RECURRENT >> g & 1)
#pragma unroll
        for (int i = 0; i < SLOTS; i++) x.gate[g][i][0] += whole[i][place_in(HAS_RECURRENT, g)];
  }
}

// Values of a record: the cell's saves and the states before the step that backward reads.
struct record {
  float value[SAVED + 1][SLOTS][WIDTH];
};

typedef u32 record_words[RECORD_WORDS > 0 ? RECORD_WORDS : 1];

inline void pack_record(record_words &word, const record &r) {
#pragma unroll
  for (int w = 0; w < RECORD_WORDS; w++) {
    float two[2] = {0, 0};
#pragma unroll
    for (int k = 0; k < 4 / STORED; k++) {
      const int i = w * (4 / STORED) + k, v = i / ELEMENTS, e = i % ELEMENTS;
      if (v < SAVED) two[k] = r.value[v][e / WIDTH][e % WIDTH];
    }
    word[w] = pack_two(S(), two[0], two[1]);
  }
}

inline void keep_states(record &r, const cell_state &x) {
  int v = SAVES;
#pragma unroll
  for (int s = 0; s < STATES; s++)
    if (KEPT >> s & 1) {
#pragma unroll
      for (int i = 0; i < SLOTS; i++)
#pragma unroll
        for (int c = 0; c < WIDTH; c++) r.value[v][i][c] = x.state[s][i][c];
      v++;
    }
}

inline void run_cell(cell_state &x, record &r, const thread_place &at, int t) {
  keep_states(r, x);
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    if (!owns(at, i)) continue;
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      float in[GATES + STATES + PARAMS], out[STATES + SAVES];
#pragma unroll
      for (int g = 0; g < GATES; g++) in[g] = x.gate[g][i][c];
#pragma unroll
      for (int s = 0; s < STATES; s++) in[GATES + s] = x.state[s][i][c];
#pragma unroll
      for (int k = 0; k < PARAMS; k++) in[GATES + STATES + k] = x.param[k][i];
      cell_forward(in, out);
      const bool past = LENGTHS && t >= x.length[i][c];
#pragma unroll
      for (int s = 0; s < STATES; s++) x.state[s][i][c] = past ? x.state[s][i][c] : out[s];
#pragma unroll
      for (int v = 0; v < SAVES; v++) r.value[v][i][c] = out[STATES + v];
    }
  }
}

// The last states, from the threads that own them.
inline void give_last(const cell_state &x, const pl_forward &p, const thread_place &at) {
#pragma unroll
  for (int i = 0; i < SLOTS; i++)
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      const element_place e = place_element(p, at, i, c);
      if (!e.inside) continue;
#pragma unroll
      for (int s = 0; s < STATES; s++)
        ((float *)p.last.data)[offset(p.last, s, e.b, 0, at.head, e.d)] = x.state[s][i][c];
    }
}

// ---- bringing Wx, carrying the states out: by warps of their own, or between the steps ------------------------------

struct carrier {
  static constexpr int SHARE_IN = share_of(CHUNKS_IN), SHARE_OUT = share_of(CHUNKS_OUT);
  const char *from[SHARE_IN + 1];
  u32 base, to[SHARE_IN + 1];
  bool there[SHARE_IN + 1];
  long long step_in;
  int thread, first;

  inline void begin(const pl_forward &p, const thread_place &at, u32 shared) {
    base = shared, thread = carrying_thread(), first = at.rank * UNITS, step_in = p.input.stride[1] * STORED;
#pragma unroll
    for (int i = 0; i < SHARE_IN; i++) {
      const int chunk = thread + i * WRITING, row = chunk % ROWS, input = chunk / ROWS % (INPUTS > 0 ? INPUTS : 1),
                group = chunk / ROWS / (INPUTS > 0 ? INPUTS : 1), b = at.tile * ROWS + row;
      there[i] = chunk < CHUNKS_IN && b < p.batch && first + group * 8 < DIM;
      from[i] = p.input.data;
      if (there[i]) from[i] += offset(p.input, b, 0, input, at.head, first + group * 8) * STORED;
      to[i] = base + AT_RING + chunk * EIGHT;
    }
#pragma unroll
    for (int t = 0; t < RING - 1; t++) bring(p, at, t);
    await_fetches<RING - 3>();
  }

  inline void bring(const pl_forward &p, const thread_place &, int t) {
    if (t < p.steps)
#pragma unroll
      for (int i = 0; i < SHARE_IN; i++)
        if (thread + i * WRITING < CHUNKS_IN) {
#pragma unroll
          for (int k = 0; k < EIGHT / 16; k++)
            fetch(to[i] + t % RING * STEP_BYTES + k * 16, from[i] + t * (there[i] ? step_in : 0) + k * 16, there[i]);
        }
    end_fetches();
  }

  // The states after step t, which lie in the buffer that step t + 1 reads.
  inline void carry(const pl_forward &p, const thread_place &at, int t) {
    const int buffer = (t + 1) & 1;
#pragma unroll
    for (int i = 0; i < SHARE_OUT; i++) {
      const int chunk = thread + i * WRITING, row = chunk % ROWS, group = chunk / ROWS, b = at.tile * ROWS + row,
                d = first + group * 8;
      if (chunk >= CHUNKS_OUT || b >= p.batch || d >= DIM) continue;
      const u32 h = base + AT_OWN + buffer * (ROWS * OWN_ROW) + row * OWN_ROW + group * 8 * MULTIPLIED;
      if (STATES_OUT > 0) carry_out<P, S>(p.states.data + offset(p.states, 0, b, t, at.head, d) * STORED, h);
      if (REMEMBER && RECURRENTS > 0 && t + 1 < p.steps)
        carry_out<P, P>(p.h_before + ((((long long)b * p.steps + t + 1) * p.heads + at.head) * DIM + d) * MULTIPLIED,
                        h);
#pragma unroll
      for (int s = 0; s < EXTRAS; s++)
        carry_out<S, S>(p.states.data + offset(p.states, 1 + s, b, t, at.head, d) * STORED,
                        base + AT_EXTRA + (buffer * EXTRAS + s) * (ROWS * EXTRA_ROW) + row * EXTRA_ROW + group * EIGHT);
    }
  }
};

// ---- the steps ------------------------------------------------------------------------------------------------------

inline void compute(const pl_forward &p, const thread_place &at, char *shared) {
  const u32 base = shared_address(shared), h = base + AT_H, own = base + AT_OWN;
  weights part;
  part.load(p.packed + ((long long)(at.head * BLOCKS + at.rank) * WARPS + at.warp) * weights::FRAGMENTS * LANES * 16,
            base + AT_WEIGHTS + at.warp * weights::ELSEWHERE * LANES * 16, at.lane);
  cell_state x;
  begin(x, p, at);
  begin_rows(p, at, SCOPE == SCOPE_GRID ? own : h);
  rows_exchange peers;
  peers.begin(base, at, {p.slots, {(complaint *)p.complaint, (int *)p.lock}});
  carrier between;
  if (WRITERS == 0) between.begin(p, at, base);
  synchronize_block();
  read_input(x, at, base + AT_RING, 0);
  if (SCOPE == SCOPE_GRID) peers.send_rows(at, own, OWN_ROW, AT_H, H_ROW, 0);

  const long long record_step = (long long)p.tiles * p.heads * BLOCKS * RECORDS * RECORD_BYTES;
  char *to = p.records + (at.block * RECORDS + at.team * OWNERS + at.part) * RECORD_BYTES;
  const bool records = REMEMBER && at.part < OWNERS;
  const u32 row = matrix_row(h + at.part * DEPTH * TILE_BYTES, H_ROW, at.lane);
  turns rows = {row, row + ROWS * H_ROW}, owned = {own, own + ROWS * OWN_ROW};
  record_words words = {};
  if (GATES_AHEAD) begin_gates(x, at);
  // What a step does stands without branches of its own, so that the compiler can spread it over the waits of others.
  for (int t = 0; t < p.steps; t++) {
    const int next = (t & 1) ^ 1;
    if (!GATES_AHEAD) begin_gates(x, at);
    sums sum;
    begin_sums(sum, x);
    if constexpr (DEPTH > 0) peers.multiply_rows(part, sum, at, rows.now, t);
    // While the products are on their way: what is not on the path from h to h. Step 0 writes where step 1 will.
    if (records) {
      store_words(to, at.lane, words);
      to += t > 0 ? record_step : 0;
    }
    read_input(x, at, base + AT_RING, t + 1); // behind the last step, of whatever is there
    end_sums(x, sum, at, shared);
    record r;
    run_cell(x, r, at, t);
    if (GATES_AHEAD) begin_gates(x, at);
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      float value[WIDTH];
#pragma unroll
      for (int c = 0; c < WIDTH; c++) // what lies behind the units meets zeros of R, and must not be an infinity
        value[c] = PADDED == DIM || place_element(p, at, i, c).d < DIM ? x.state[0][i][c] : 0.0f;
      if (owns(at, i))
        store_slot<P>(owned.next + slot_group(at, i) * 8 * MULTIPLIED, OWN_ROW, at, i, value);
    }
    if (DEPTH > 0 && t + 1 < p.steps)
      peers.send_rows(at, owned.next, OWN_ROW, AT_H + next * (ROWS * H_ROW), H_ROW, t + 1);
#pragma unroll
    for (int s = 0; s < EXTRAS; s++)
#pragma unroll
      for (int i = 0; i < SLOTS; i++)
        if (owns(at, i))
          store_slot<S>(base + AT_EXTRA + (next * EXTRAS + s) * (ROWS * EXTRA_ROW) + slot_group(at, i) * EIGHT,
                        EXTRA_ROW, at, i, x.state[1 + s][i]);
    if (REMEMBER) pack_record(words, r);
    rows.turn(), owned.turn();
    if (WRITERS == 0) {
      between.bring(p, at, t + RING - 1);
      await_fetches<RING - 3>();
    }
    synchronize_block();
    if (WRITERS == 0) between.carry(p, at, t);
  }
  await_fetches<0>();
  if (records) {
    store_words(to, at.lane, words);
    record r = {};
    keep_states(r, x);
    pack_record(words, r);
    store_words(to + record_step, at.lane, words);
  }
  give_last(x, p, at);
}

extern "C" __global__ void __launch_bounds__(MULTIPLYING + WRITERS * LANES, BLOCKS_PER_PROCESSOR)
    fused_forward(const __grid_constant__ pl_forward p) {
  run_block<carrier>(p, rows_exchange::BYTES, [&](const thread_place &at, char *shared) { compute(p, at, shared); });
}
