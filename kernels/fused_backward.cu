// The fused recurrence, backward: one launch for all time steps, from the last to the first. A block holds the rows of
// R of its own units; the gradients of its gates times them are its part of the gradient of h, which within a cluster
// is summed from the parts of all blocks, in their order. dR is a product of its own afterwards.
#include "fused_frame.cuh"

enum {
  TILES = RECURRENTS > 0 ? (HALVES + 1) / 2 : 0, // of 16 units of h each
  DEPTH = GATES_DEPTH,
  SETS = sets_of(TILES, DEPTH),
  OTHER_ROW = UNITS * STORED + PADDING,                // of another gate, or of one in the type of Wx
  DIRECT = SAME_TYPES ? HAS_INPUT & HAS_RECURRENT : 0, // gates whose gradient is that of their input as it is
  OTHER = WANT_INPUT ? HAS_INPUT & ~DIRECT : 0,        // OTHERS of them
  STEP_BYTES = GIVEN * ROWS * UNITS * STORED,
  CHUNKS_RECORD = RECORDS * RECORD_BYTES / 16,
  CHUNKS_IN = GIVEN * ROWS * (UNITS / 8),
  CHUNKS_OUT = WANT_INPUT ? INPUTS * ROWS * (UNITS / 8) : 0,
  CHUNKS_EXTRA = EXTRAS * ROWS * (UNITS / 8), // of the gates whose gradient dR needs in a place of its own
  SUMS = BIASES + PARAMS,
  // What the next step reads comes while the products are on their way; where warps share sums, as in the grid scope,
  // waits are long enough, and registers are few.
  READS_AHEAD = SPLITS == 1,
};

typedef matrix<(TILES > 0 ? TILES : 1), DEPTH, IN_REGISTERS> weights;
typedef float sums[COLUMN_TILES][SETS][TILES > 0 ? TILES : 1][4];

// ---- the warps that multiply ----------------------------------------------------------------------------------------

// What a step reads: its record, and the gradients of the states given out.
struct step_input {
  u32 record[SAVED > 0 ? RECORD_WORDS : 1];
  tile_words<GIVEN> given[SLOTS];
};

struct cell_gradient {
  float leaving[STATES][SLOTS][WIDTH]; // gradients of the states between two steps
  float after[STATES][SLOTS][WIDTH];   // states after the step, where the cell reads them
  float param[PARAMS + 1][SLOTS], total[SUMS + 1][SLOTS];
  int length[SLOTS][WIDTH];
  step_input in;
};

inline element_place place_element(const pl_backward &p, const thread_place &at, int slot, int c) {
  return place_element_of(p.batch, at, slot, c);
}

// State s in the record at hand.
inline float kept_state(const cell_gradient &x, int s, int slot, int c) {
  return KEPT >> s & 1 ? record_value(x.in.record, (SAVES + place_in(KEPT, s)) * ELEMENTS + slot * WIDTH + c) : 0.0f;
}

inline void begin(cell_gradient &x, const pl_backward &p, const thread_place &at) {
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    const element_place first = place_element(p, at, i, 0);
#pragma unroll
    for (int k = 0; k < PARAMS; k++)
      x.param[k][i] = first.d < DIM ? ((const float *)p.param[k].data)[offset(p.param[k], at.head, first.d)] : 0.0f;
#pragma unroll
    for (int k = 0; k < SUMS; k++) x.total[k][i] = 0;
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      const element_place e = place_element(p, at, i, c);
      x.length[i][c] =
          e.b < p.batch ? length_of(p.lengths, e.b, p.steps, {(complaint *)p.complaint, (int *)p.lock}) : p.steps;
#pragma unroll
      for (int s = 0; s < STATES; s++) {
        x.leaving[s][i][c] = 0;
        if (p.last.data && e.inside)
          x.leaving[s][i][c] = ((const float *)p.last.data)[offset(p.last, s, e.b, 0, at.head, e.d)];
        x.after[s][i][c] = kept_state(x, s, i, c);
      }
    }
  }
}

// The record of a step from shared memory or memory, where a warp's lies at `from`.
inline void read_record(step_input &in, const char *from, int lane) {
  if constexpr (SAVED > 0) load_words(in.record, from, lane);
}

inline void read_step(step_input &in, const char *records, u32 ring, const thread_place &at, int step) {
  read_record(in, records + step % RING * (RECORDS * RECORD_BYTES), at.lane);
  if constexpr (GIVEN > 0)
#pragma unroll
    for (int i = 0; i < SLOTS; i++)
      in.given[i].load(ring + step % RING * STEP_BYTES + slot_group(at, i) * (GIVEN * ROWS * EIGHT), at, i);
}

// This block's part of the gradient of h that comes through R from the step behind, whose gates' gradients lie in rows
// of shared memory.
inline void multiply_through(sums &sum, const weights &part, u32 row) {
#pragma unroll
  for (int rows = 0; rows < COLUMN_TILES; rows++) empty_sums<SETS, (TILES > 0 ? TILES : 1)>(sum[rows]);
  part.multiply_rows(sum, row, 8 * GATES_ROW);
}

// The whole gradient, from the parts of all blocks.
inline void add_up(float (&through)[SLOTS][WIDTH], sums &sum, parts_exchange &peers, const thread_place &at,
                   char *shared, int step) {
#pragma unroll
  for (int rows = 0; rows < COLUMN_TILES; rows++) join_sets<SETS, (TILES > 0 ? TILES : 1)>(sum[rows]);
  peers.add_up(through, sum, at, shared, step);
  if (PARTS > 1) return;
#pragma unroll
  for (int i = 0; i < SLOTS; i++) // not even what an infinity in R makes of zeros
#pragma unroll
    for (int c = 0; c < WIDTH; c++) through[i][c] = step > 0 ? through[i][c] : 0.0f;
}

// The gradients of one step: from those that arrive to those of the gates, into shared memory, and of the states
// before.
inline void run_cell(cell_gradient &x, const pl_backward &p, const float (&through)[SLOTS][WIDTH],
                     const thread_place &at, u32 gates, u32 others, int t) {
  float gradient[GATES][SLOTS][WIDTH];
  const float clip = (float)p.clip;
#pragma unroll
  for (int i = 0; i < SLOTS; i++) {
    if (!owns(at, i)) continue;
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      float in[SAVES + 3 * STATES + PARAMS], out[GATES + STATES + PARAMS], arriving[STATES];
#pragma unroll
      for (int v = 0; v < SAVES; v++) in[v] = record_value(x.in.record, v * ELEMENTS + i * WIDTH + c);
#pragma unroll
      for (int s = 0; s < STATES; s++) {
        in[SAVES + s] = kept_state(x, s, i, c);
        in[SAVES + STATES + s] = x.after[s][i][c];
        x.after[s][i][c] = in[SAVES + s];
        arriving[s] = x.leaving[s][i][c];
        if (s < GIVEN) arriving[s] += x.in.given[i].value(at, i, s < GIVEN ? s : 0, c);
      }
      float more = through[i][c];
      if (CLIP) more = more > clip ? clip : more < -clip ? -clip : more;
      arriving[0] += more;
#pragma unroll
      for (int k = 0; k < PARAMS; k++) in[SAVES + 2 * STATES + k] = x.param[k][i];
#pragma unroll
      for (int s = 0; s < STATES; s++) in[SAVES + 2 * STATES + PARAMS + s] = arriving[s];
      cell_backward(in, out);
      const bool past = LENGTHS && t >= x.length[i][c];
#pragma unroll
      for (int g = 0; g < GATES; g++) {
        gradient[g][i][c] = past ? 0.0f : out[g];
        if (HAS_BIAS >> g & 1) x.total[place_in(HAS_BIAS, g)][i] += gradient[g][i][c];
      }
#pragma unroll
      for (int s = 0; s < STATES; s++) x.leaving[s][i][c] = past ? arriving[s] : out[GATES + s];
#pragma unroll
      for (int k = 0; k < PARAMS; k++) x.total[BIASES + k][i] += past ? 0.0f : out[GATES + STATES + k];
    }
  }
#pragma unroll
  for (int g = 0; g < GATES; g++)
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      if (!owns(at, i)) continue;
      const int group = slot_group(at, i);
      if (HAS_RECURRENT >> g & 1)
        store_slot<P>(gates + (place_in(HAS_RECURRENT, g) * UNITS + group * 8) * MULTIPLIED, GATES_ROW, at, i,
                      gradient[g][i]);
      if (OTHER >> g & 1)
        store_slot<S>(others + place_in(OTHER, g) * (ROWS * OTHER_ROW) + group * EIGHT, OTHER_ROW, at, i,
                      gradient[g][i]);
    }
}

// Sums over the block's batch rows, for the kernel that adds those of all tiles.
inline void give_totals(const cell_gradient &x, const pl_backward &p, const thread_place &at) {
#pragma unroll
  for (int k = 0; k < SUMS; k++)
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      float total = x.total[k][i];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const element_place e = place_element(p, at, i, 0);
      const int column = slot_column(at, i); // columns of one unit may lie in two warps
      if (at.quarter == 0 && e.d < DIM && owns(at, i))
        ((float *)
             p.totals)[((((long long)at.tile * TOTAL_PARTS + column) * SUMS + k) * p.heads + at.head) * DIM + e.d] =
            total;
    }
}

inline void give_initial(const cell_gradient &x, const float (&through)[SLOTS][WIDTH], const pl_backward &p,
                         const thread_place &at) {
  const float clip = (float)p.clip;
#pragma unroll
  for (int i = 0; i < SLOTS; i++)
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
      const element_place e = place_element(p, at, i, c);
      if (!e.inside) continue;
      float more = through[i][c];
      if (CLIP) more = more > clip ? clip : more < -clip ? -clip : more;
#pragma unroll
      for (int s = 0; s < STATES; s++)
        ((float *)p.initial.data)[offset(p.initial, s, e.b, 0, at.head, e.d)] =
            s == 0 ? x.leaving[s][i][c] + more : x.leaving[s][i][c];
    }
}

// ---- bringing records and gradients, carrying the gates' out: by warps of their own, or between the steps -----------

struct carrier {
  static constexpr int SHARE_RECORD = share_of(CHUNKS_RECORD), SHARE_IN = share_of(CHUNKS_IN),
                       SHARE_OUT = share_of(CHUNKS_OUT), SHARE_EXTRA = share_of(CHUNKS_EXTRA);
  const char *record;
  long long record_step;
  u32 base;
  int thread, first;

  inline void begin(const pl_backward &p, const thread_place &at, u32 shared) {
    base = shared, thread = carrying_thread(), first = at.rank * UNITS;
    record = p.records + at.block * RECORDS * RECORD_BYTES + thread * 16;
    record_step = (long long)p.tiles * p.heads * BLOCKS * RECORDS * RECORD_BYTES;
#pragma unroll
    for (int s = 0; s < RING - 1; s++) bring(p, at, s);
    await_fetches<RING - 3>();
  }

  inline void bring(const pl_backward &p, const thread_place &at, int s) {
    const long long t = p.steps - 1 - s;
    if (t >= 0) {
#pragma unroll
      for (int i = 0; i < SHARE_RECORD; i++)
        if (thread + i * WRITING < CHUNKS_RECORD)
          fetch(base + AT_RECORDS + s % RING * (RECORDS * RECORD_BYTES) + (thread + i * WRITING) * 16,
                record + t * record_step + i * WRITING * 16, true);
#pragma unroll
      for (int i = 0; i < SHARE_IN; i++) {
        const int chunk = thread + i * WRITING, row = chunk % ROWS, state = chunk / ROWS % (GIVEN > 0 ? GIVEN : 1),
                  group = chunk / ROWS / (GIVEN > 0 ? GIVEN : 1), b = at.tile * ROWS + row, d = first + group * 8;
        if (chunk >= CHUNKS_IN) continue;
        const bool there = b < p.batch && d < DIM;
        const char *from = p.states.data + (there ? offset(p.states, state, b, t, at.head, d) * STORED : 0);
#pragma unroll
        for (int k = 0; k < EIGHT / 16; k++)
          fetch(base + AT_RING + s % RING * STEP_BYTES + chunk * EIGHT + k * 16, from + k * 16, there);
      }
    }
    end_fetches();
  }

  inline void carry(const pl_backward &p, const thread_place &at, int s) {
    const int buffer = s & 1;
    const long long t = p.steps - 1 - s;
    const u32 gates = base + AT_GATES + buffer * (ROWS * GATES_ROW) + at.rank / PARTS * FED * MULTIPLIED,
              others = base + AT_OTHERS + buffer * (OTHERS * ROWS * OTHER_ROW);
#pragma unroll
    for (int i = 0; i < SHARE_OUT; i++) {
      const int chunk = thread + i * WRITING, row = chunk % ROWS, group = chunk / ROWS % (UNITS / 8),
                input = chunk / ROWS / (UNITS / 8), b = at.tile * ROWS + row, d = first + group * 8;
      if (chunk >= CHUNKS_OUT || b >= p.batch || d >= DIM) continue;
      char *to = p.input.data + offset(p.input, b, t, input, at.head, d) * STORED;
#pragma unroll
      for (int g = 0; g < GATES; g++) {
        if (!(HAS_INPUT >> g & 1) || place_in(HAS_INPUT, g) != input) continue;
        if (DIRECT >> g & 1)
          carry_out<P, S>(to, gates + row * GATES_ROW + (place_in(HAS_RECURRENT, g) * UNITS + group * 8) * MULTIPLIED);
        else
          carry_out<S, S>(to, others + place_in(OTHER, g) * (ROWS * OTHER_ROW) + row * OTHER_ROW + group * EIGHT);
      }
    }
#pragma unroll
    for (int i = 0; i < SHARE_EXTRA; i++) {
      const int chunk = thread + i * WRITING, row = chunk % ROWS, group = chunk / ROWS % (UNITS / 8),
                extra = chunk / ROWS / (UNITS / 8), b = at.tile * ROWS + row, d = first + group * 8;
      if (chunk >= CHUNKS_EXTRA || b >= p.batch || d >= DIM) continue;
      char *to =
          p.extra + ((((b * (long long)p.steps + t) * EXTRAS + extra) * p.heads + at.head) * DIM + d) * MULTIPLIED;
#pragma unroll
      for (int g = 0; g < GATES; g++)
        if ((EXTRA >> g & 1) && place_in(EXTRA, g) == extra)
          carry_out<P, P>(to, gates + row * GATES_ROW + (place_in(HAS_RECURRENT, g) * UNITS + group * 8) * MULTIPLIED);
    }
  }
};

// ---- the steps ------------------------------------------------------------------------------------------------------

inline void compute(const pl_backward &p, const thread_place &at, char *shared) {
  const u32 base = shared_address(shared), gates = base + AT_GATES, others = base + AT_OTHERS;
  const int recorder = at.team * OWNERS + (at.part < OWNERS ? at.part : 0);
  const char *records = shared + AT_RECORDS + recorder * RECORD_BYTES;
  weights part;
  if (THROUGH)
    part.load(p.packed + ((long long)(at.head * BLOCKS + at.rank) * WARPS + at.warp) * weights::FRAGMENTS * LANES * 16,
              base + AT_WEIGHTS + at.warp * weights::ELSEWHERE * LANES * 16, at.lane);
  // What lies behind the gates' gradients meets zeros of R.
  for (int i = threadIdx.x; i < 2 * ROWS * GATES_ROW / 16; i += MULTIPLYING) store_shared(gates + i * 16, 0, 0, 0, 0);
  cell_gradient x;
  // The states after the last step stand in a record of their own behind those of the steps.
  read_record(
      x.in, p.records + (((long long)p.steps * p.tiles * p.heads * BLOCKS + at.block) * RECORDS + recorder) * RECORD_BYTES,
      at.lane);
  begin(x, p, at);
  const meeting where = {p.slots, {(complaint *)p.complaint, (int *)p.lock}};
  gates_exchange others_gates;
  parts_exchange parts;
  others_gates.begin(at, where);
  parts.begin(base, at, {p.slots + (long long)p.tiles * p.heads * 2 * gates_exchange::BYTES, where.complaint});
  carrier between;
  if (WRITERS == 0) between.begin(p, at, base);
  synchronize_block();
  read_step(x.in, records, base + AT_RING, at, 0);

  const u32 row = matrix_row(gates, GATES_ROW, at.lane), own = at.rank / PARTS * FED * MULTIPLIED;
  turns made = {gates, gates + ROWS * GATES_ROW}, read = {row + ROWS * GATES_ROW, row};
  float through[SLOTS][WIDTH] = {};
  // Step s is time T - 1 - s; one more brings the gradient of the initial states.
  for (int s = 0; s < p.steps; s++) {
    step_input next; // behind the last step, of whatever is there
    sums sum;
    // Of one block, step 0 multiplies zeros for nothing: without a branch the compiler can spread the cell over it.
    if constexpr (THROUGH)
      if (PARTS == 1 || s > 0) multiply_through(sum, part, read.now);
    if (READS_AHEAD) read_step(next, records, base + AT_RING, at, s + 1);
    if constexpr (THROUGH)
      if (PARTS == 1 || s > 0) add_up(through, sum, parts, at, shared, s);
    run_cell(x, p, through, at, made.now + own, others + (s & 1) * (OTHERS * ROWS * OTHER_ROW), p.steps - 1 - s);
    const bool more = THROUGH && (TO_INITIAL || s + 1 < p.steps);
    if (more) others_gates.send(at, made.now, s);
    if (!READS_AHEAD) read_step(next, records, base + AT_RING, at, s + 1);
    x.in = next;
    if (WRITERS == 0) {
      between.bring(p, at, s + RING - 1);
      await_fetches<RING - 3>();
    }
    if (more) others_gates.gather(at, made.now, s);
    made.turn(), read.turn();
    synchronize_block();
    if (WRITERS == 0) between.carry(p, at, s);
  }
  await_fetches<0>();
  if (TO_INITIAL) {
    if constexpr (THROUGH) {
      sums sum;
      multiply_through(sum, part, read.now);
      add_up(through, sum, parts, at, shared, p.steps);
    }
    give_initial(x, through, p, at);
  }
  give_totals(x, p, at);
}

extern "C" __global__ void __launch_bounds__(MULTIPLYING + WRITERS * LANES, BLOCKS_PER_PROCESSOR)
    fused_backward(const __grid_constant__ pl_backward p) {
  run_block<carrier>(p, parts_exchange::CLUSTER_BYTES,
                     [&](const thread_place &at, char *shared) { compute(p, at, shared); });
}

// Gradients of biases and params: a thread per unit adds the parts of all batch tiles, in order.
extern "C" __global__ void sum_parts(const __grid_constant__ pl_backward p) {
  const int unit = blockIdx.x * blockDim.x + threadIdx.x, units = p.heads * DIM, k = blockIdx.y;
  if (unit >= units) return;
  float total = 0;
  for (int part = 0; part < p.tiles * TOTAL_PARTS; part++)
    total += ((const float *)p.totals)[((long long)part * SUMS + k) * units + unit];
  const pl_view &to = k < BIASES ? p.bias : p.param_gradient[k - BIASES];
  const int n = unit / DIM, d = unit % DIM;
  if (to.data) ((float *)to.data)[k < BIASES ? offset(to, k, n, d) : offset(to, n, d)] = total;
}

// Where the factors and the results of the products for dR of every gate and head lie: first those of gates whose
// gradients stand in the gradient of Wx, then the others.
extern "C" __global__ void place_weights(const __grid_constant__ pl_backward p, char *h) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, count = RECURRENTS * p.heads, head = i % p.heads;
  if (i >= count) return;
  int before = 0;
  for (int kind = 0; kind < 2; kind++)
    for (int g = 0; g < GATES; g++) {
      const bool apart = EXTRA >> g & 1;
      if (!(HAS_RECURRENT >> g & 1) || apart != (kind == 1) || before++ != i / p.heads) continue;
      const long long line = (long long)(apart ? place_in(EXTRA, g) : place_in(HAS_INPUT, g)) * p.heads + head;
      p.places[i] = (apart ? p.extra : p.input.data) + line * DIM * MULTIPLIED;
      p.places[count + i] = h + (long long)head * DIM * MULTIPLIED;
      p.places[2 * count + i] =
          p.weights + ((long long)place_in(HAS_RECURRENT, g) * p.heads + head) * DIM * DIM * sizeof(float);
    }
}

// dR from [Gr][N][D][D] of float to its view and type.
extern "C" __global__ void spread_weights(const __grid_constant__ pl_backward p) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (long long)RECURRENTS * p.heads * DIM * DIM) return;
  const long long previous = i % DIM, unit = i / DIM % DIM, n = i / DIM / DIM % p.heads, g = i / DIM / DIM / p.heads;
  store_typed(p.recurrent.data, p.recurrent_type, offset(p.recurrent, g, n, unit, previous),
              ((const float *)p.weights)[i]);
}
