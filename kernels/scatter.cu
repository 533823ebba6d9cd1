// Additions along one axis at 1-based indices, in the order of the source, so that results repeat bit for bit: no float
// is ever added atomically. The text before this file defines
//   TYPE        f32, f64 or i64, in which sums are taken
//   STORED      the arrays' type: TYPE, or a type of 16 bits where whole slices are added
//   V           neighbours that a thread takes at once, where whole slices are added
//   TYPE_INDEX  i64, i32, u8, ...
//   RANK        axes of a line's place after merging
#include "layout.cuh"

// ---- one index per element: a thread for each line along the axis ----

struct line_job {
  TYPE *out;
  const TYPE *in;
  const TYPE_INDEX *index;
  i64 lines, length;       // elements of one line in the source
  axes shape;              // of the lines
  i64 stride[3][RANK_MAX]; // of out, in, index
  i64 step[3];             // along the axis
  i64 limit;               // of out along the axis
  complaints complaint;
};

extern "C" __global__ void __launch_bounds__(256) scatter_lines(const __grid_constant__ line_job j) {
  i64 line = (i64)blockIdx.x * 256 + threadIdx.x, offset[3];
  if (line >= j.lines) return;
  locate<RANK, 3, i64>(j.shape, j.stride, line, offset);
  for (i64 i = 0; i < j.length; i++) {
    i64 place = (i64)read<i64>(j.index[offset[2] + i * j.step[2]]) - 1;
    if (place < 0 || place >= j.limit)
      complain(j.complaint, COMPLAINT_INDEX, place + 1, offset[2] + i * j.step[2] + 1, j.limit);
    else
      j.out[offset[0] + place * j.step[0]] += j.in[offset[1] + i * j.step[1]];
  }
}

// ---- one index per slice: positions sorted by index, then the runs of equals added up, a thread per line and piece
// ----

struct sort_job {
  const TYPE_INDEX *index; // read in the first pass
  i64 step, limit;
  const u32 *key_in, *position_in; // read in later passes
  u32 *key_out, *position_out;
  u32 *counts; // [256, tiles]
  u32 count, tiles, shift;
  complaints complaint;
};

enum { TILE = 1024, DIGITS = 256 };

inline u32 key_of(const sort_job &j, u32 i) {
  if (!j.index) return j.key_in[i];
  i64 place = (i64)read<i64>(j.index[i * j.step]) - 1;
  return place < 0 || place >= j.limit ? (u32)j.limit : (u32)place; // what is out of range sorts behind all
}

// How often each digit occurs in each tile. One warp per tile.
extern "C" __global__ void __launch_bounds__(32) sort_count(const __grid_constant__ sort_job j) {
  __shared__ u32 seen[DIGITS];
  for (int d = threadIdx.x; d < DIGITS; d += 32) seen[d] = 0;
  __syncwarp();
  for (u32 i = blockIdx.x * TILE + threadIdx.x; i < (blockIdx.x + 1) * TILE && i < j.count; i += 32) {
    u32 key = key_of(j, i);
    if (j.index && key == j.limit)
      complain(j.complaint, COMPLAINT_INDEX, (i64)read<i64>(j.index[i * j.step]), (i64)i + 1, j.limit);
    atomicAdd(&seen[key >> j.shift & (DIGITS - 1)], 1); // whole numbers: any order gives the same
  }
  __syncwarp();
  for (int d = threadIdx.x; d < DIGITS; d += 32) j.counts[(u32)d * j.tiles + blockIdx.x] = seen[d];
}

// Running sums of counts, digit by digit and tile by tile. One block.
extern "C" __global__ void __launch_bounds__(1024) sort_scan(const __grid_constant__ sort_job j) {
  __shared__ u32 part[1024];
  const u32 total = DIGITS * j.tiles, each = (total + 1023) / 1024;
  const u32 first = threadIdx.x * each, end = first + each < total ? first + each : total;
  u32 sum = 0;
  for (u32 i = first; i < end; i++) sum += j.counts[i];
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int reach = 1; reach < 1024; reach *= 2) {
    u32 before = threadIdx.x >= reach ? part[threadIdx.x - reach] : 0;
    __syncthreads();
    part[threadIdx.x] += before;
    __syncthreads();
  }
  u32 running = part[threadIdx.x] - sum;
  for (u32 i = first; i < end; i++) {
    u32 count = j.counts[i];
    j.counts[i] = running;
    running += count;
  }
}

// Moves keys and positions to their places by this digit; equals keep their order. One warp per tile.
extern "C" __global__ void __launch_bounds__(32) sort_move(const __grid_constant__ sort_job j) {
  __shared__ u32 next[DIGITS];
  for (int d = threadIdx.x; d < DIGITS; d += 32) next[d] = j.counts[(u32)d * j.tiles + blockIdx.x];
  __syncwarp();
  for (u32 start = blockIdx.x * TILE; start < (blockIdx.x + 1) * TILE && start < j.count; start += 32) {
    u32 i = start + threadIdx.x;
    bool here = i < j.count;
    u32 key = here ? key_of(j, i) : 0, position = !here ? 0 : j.index ? i : j.position_in[i];
    u32 digit = here ? key >> j.shift & (DIGITS - 1) : DIGITS; // lanes past the end are equals of nobody else
    u32 equals = __match_any_sync(0xFFFFFFFF, digit);
    u32 rank = __popc(equals & ((1u << threadIdx.x) - 1));
    u32 place = here ? next[digit] + rank : 0;
    __syncwarp();
    if (here && rank == 0) next[digit] += __popc(equals);
    __syncwarp();
    if (here) {
      j.key_out[place] = key;
      j.position_out[place] = position;
    }
  }
}

// Where the run of equal keys begins to which each position belongs.
struct start_job {
  const u32 *key;
  u32 *start;
  u32 count;
};

extern "C" __global__ void __launch_bounds__(256) run_starts(const __grid_constant__ start_job j) {
  const u32 at = blockIdx.x * 256 + threadIdx.x;
  if (at >= j.count) return;
  const u32 key = j.key[at];
  u32 low = 0, high = at; // the first position with this key is in [low, high]
  while (low < high) {
    const u32 middle = low + (high - low) / 2;
    if (j.key[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  j.start[at] = low;
}

// Runs are cut into pieces of `piece` positions from their start. A run of one piece goes into out at once; of a longer
// one each piece leaves its sum in `partial`, and a second launch adds these up in order.
struct run_job {
  STORED *out;
  const STORED *in;
  const u32 *key, *position, *start;
  TYPE *partial;           // [2 cells, lines, V]: a cell is `piece` positions long
  u32 *longer;             // [cells]: 1 + the position at which a run of several pieces begins there; 0: none does
  i64 count, lines, piece; // slices in the source; vectors of a slice
  axes shape;              // of a slice, the last size in vectors
  i64 stride[2][RANK_MAX]; // of out, in within a slice, from vector to vector
  i64 step[2];             // along the axis
  i64 limit;
};

typedef pack<TYPE, V> sums;

// Within `piece` positions at most one run of several pieces begins, and at most one further piece of an earlier one.
inline TYPE *partial_of(const run_job &j, i64 at, bool first, i64 line) {
  return j.partial + ((at / j.piece * 2 + first) * j.lines + line) * V;
}

template <class S> inline void add(sums &to, const pack<S, V> &what) {
#pragma unroll
  for (int v = 0; v < V; v++) to.at[v] += read<TYPE>(what.at[v]);
}

inline void put(STORED *to, const sums &from) {
  pack<STORED, V> values;
#pragma unroll
  for (int v = 0; v < V; v++) values.at[v] = store_as<STORED>(from.at[v]);
  save<STORED, V>(to, values);
}

extern "C" __global__ void __launch_bounds__(256) scatter_pieces(const __grid_constant__ run_job j) {
  const i64 id = (i64)blockIdx.x * 256 + threadIdx.x, head = id / j.lines, line = id % j.lines;
  if (head >= j.count) return;
  const u32 key = j.key[head];
  const i64 since = head - j.start[head];
  if (key == j.limit || since % j.piece != 0) return;
  i64 offset[2];
  locate<RANK, 2, i64>(j.shape, j.stride, line, offset);
  const i64 end = head + j.piece < j.count ? head + j.piece : j.count;
  const bool goes_on = end < j.count && j.key[end] == key;
  STORED *out = j.out + offset[0] + key * j.step[0];
  const STORED *in = j.in + offset[1];
  sums sum = {};
  if (since == 0) add(sum, load<STORED, V>(out));
  i64 at = head;
  // Four at a time, so that their loads are under way together; the additions stay in order.
  for (; at + 4 <= end && j.key[at + 3] == key; at += 4) {
    pack<STORED, V> value[4];
#pragma unroll
    for (int i = 0; i < 4; i++) value[i] = load<STORED, V>(in + j.position[at + i] * j.step[1]);
#pragma unroll
    for (int i = 0; i < 4; i++) add(sum, value[i]);
  }
  for (; at < end && j.key[at] == key; at++) add(sum, load<STORED, V>(in + j.position[at] * j.step[1]));
  if (since == 0 && !goes_on) {
    put(out, sum);
    return;
  }
  save<TYPE, V>(partial_of(j, head, since == 0, line), sum);
  if (since == 0 && line == 0) j.longer[head / j.piece] = (u32)head + 1;
}

extern "C" __global__ void __launch_bounds__(256) scatter_join(const __grid_constant__ run_job j) {
  const i64 id = (i64)blockIdx.x * 256 + threadIdx.x, cell = id / j.lines, line = id % j.lines;
  if (cell * j.piece >= j.count || j.longer[cell] == 0) return;
  const i64 head = j.longer[cell] - 1;
  const u32 key = j.key[head];
  i64 offset[2];
  locate<RANK, 2, i64>(j.shape, j.stride, line, offset);
  sums sum = load<TYPE, V>(partial_of(j, head, true, line));
#pragma unroll 4
  for (i64 at = head + j.piece; at < j.count && j.key[at] == key; at += j.piece)
    add(sum, load<TYPE, V>(partial_of(j, at, false, line)));
  put(j.out + offset[0] + key * j.step[0], sum);
}
