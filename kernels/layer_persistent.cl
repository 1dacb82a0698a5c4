/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_persistent.cl: what layer_group.cl needs besides for a launch of many steps whose work-groups divide the units: all
 * of them have to be resident, keep their part of the weights in registers, and wait for each other after each phase, so
 * that the h or the gates that one has written to global memory are there for all.
 *
 * OpenCL promises neither that groups run at the same time nor that they wait fairly. So a wait has an end: who has spun
 * too often says so, and everybody leaves. The host looks for that before it goes on, and has another way to the result.
 */
#ifndef HELD_DEPTHS /* of how many DEPTHs of k the weights are held, in the first phase and the second; the rest streams */
#define HELD_DEPTHS 0
#endif
#ifndef HELD_NEXT
#define HELD_NEXT 0
#endif
#define HELD(phase) ((phase) == 0 ? HELD_DEPTHS : HELD_NEXT)
#define PART (DEPTH / SPLITS) /* a split's of DEPTH: a multiple of 4 */
#define MEETING_ARGS , __global uint *meeting, long meeting_at, uint spins

#if HALVES /* two in a register */
typedef uint held;
#define HELD_SIZE(n) ((n) / 2)
#else
typedef real held;
#define HELD_SIZE(n) (n)
#endif
#define HELD_VALUES(phase) (HELD_SIZE(PART * HELD(phase) * COLUMNS_OF(phase)) + 1)

/*
 * Fences over the device: mem_fence is, as some compilers have it, for the own group alone. What others wrote is read by
 * volatile loads, which bypass a cache that is not coherent; AMD's fence empties that cache, and its compiler would wait
 * for each volatile load. STAYS keeps what is made of a held value in the loop: made before it, it would fill registers.
 */
#if defined(__AMDGCN__)
#define STAYS(x) __asm__ volatile("" : "+v"(x));
#define RELEASE() __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent")
#define ACQUIRE() __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent")
#define FRESH
#else
#if defined(__NV_CL_C_VERSION) || defined(__NVPTX__)
#define STAYS(x) __asm__ volatile("" : "+r"(x));
#define RELEASE() __asm__ volatile("membar.gl;" ::: "memory")
#else
#define STAYS(x)
#define RELEASE() mem_fence(CLK_GLOBAL_MEM_FENCE)
#endif
#define ACQUIRE() RELEASE()
#define FRESH volatile
#endif

/*
 * All groups meet. False, for every item of this group, where some have not come, or have left: then nothing may be
 * taken for done. Of the word, bit 31 turns over at each meeting, bits 1 to 30 count who is there, and bit 0 says that
 * somebody gave up. After a meeting the count is 0 again, so the next launch needs nothing of the host. Barriers stand in no
 * condition: kernels go on to the end of a step whatever meet says, and meet again after the last.
 */
static bool meet(volatile __global uint *word, uint spins, __local int *told) {
  RELEASE();
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  if (get_local_id(0) == 0) {
    const uint others = (uint)get_num_groups(0) - 1, mine = get_group_id(0) == 0 ? 0x80000000u - 2 * others : 2;
    const uint before = atomic_add(word, mine);
    uint now = before + mine;
    for (; spins > 0 && !(((before ^ now) & 0x80000000u) | (now & 1)); spins--)
      now = atomic_or(word, 0);
    if (!((before ^ now) & 0x80000000u))
      now = atomic_or(word, 1) | 1;
    *told = !(now & 1);
  }
  barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
  ACQUIRE();
  return *told != 0;
}

/*
 * Before a plan relies on it: groups write numbers, meet, and read those of all, some times over. words: the word of
 * meetings, and from REHEARSAL on a place for each group.
 */
static void rehearse(volatile __global uint *words, uint spins, __local int *told) {
  enum { REHEARSAL = 32, ROUNDS = 4 };
  const uint groups = (uint)get_num_groups(0);
  __global uint *places = (__global uint *)words + REHEARSAL;
  bool on = true, fresh = true;
  for (uint round = 1; round <= ROUNDS && on; round++) {
    if (get_local_id(0) == 0)
      places[get_group_id(0)] = round * groups + (uint)get_group_id(0);
    on = meet(words, spins, told);
    const FRESH __global uint *all = places;
    for (uint i = (uint)get_local_id(0); i < groups; i += ITEMS)
      fresh &= all[i] == round * groups + i;
    if (on)
      on = meet(words, spins, told);
  }
  if (!fresh)
    atomic_or(words, 1);
}

/*
 * As stage, of what other groups wrote during this launch; up to DEPTH the rest is 0. PoCL 3.1 gets it wrong where it is
 * told to unroll the loop.
 */
static void stage_fresh(__local real *to, const __global real *from, long from_row, int rows, int n) {
  const FRESH __global real *fresh = from;
  for (int i = (int)get_local_id(0); i < ROWS * DEPTH; i += ITEMS) {
    const int row = i / DEPTH, k = i - row * DEPTH;
    to[row * A_ROW * 4 + k] = row < rows && k < n ? fresh[row * from_row + k] : (real)0;
  }
}

/*
 * Loops over what is held run to bounds that are macros, and conditions take off what a phase has less. Its columns and
 * DEPTHs are arguments, constants only after inlining, and by then some compilers have made of a loop to such a bound what
 * they don't unroll: one index that isn't a constant, and the whole array lies in memory.
 */
#define MOST_HELD (HELD_DEPTHS > HELD_NEXT ? HELD_DEPTHS : HELD_NEXT)

/*
 * This split's weights of the first DEPTHs of K values of k. b: of the item's unit. One pointer that walks: addresses of
 * all loads at once would fill the registers.
 */
INLINE void hold(const int columns, const int depths, held *to, const __global panel *b, int split, int K) {
  const __global panel *from = b;
#pragma unroll
  for (int at = 0; at < MOST_HELD * PART * COLUMNS; at++) { /* one loop: of nested ones compilers leave some a loop */
    const int i = at / COLUMNS, c = at % COLUMNS, k = i / PART * DEPTH + split * PART + i % PART;
    if (i < depths * PART && c < columns) {
      if (i % PART == 0 && c == 0)
        from = b + (long)min(k, K - 1) * columns * LANES;
#if HALVES
      const uint bits = k < K ? ((const __global ushort *)from)[c * LANES] : 0;
      if (i % 2 == 0)
        to[i / 2 * columns + c] = bits;
      else
        to[i / 2 * columns + c] |= bits << 16;
#else
      const real w = from[c * LANES];
      to[i * columns + c] = k < K ? w : (real)0;
#endif
      if (c == columns - 1)
        from += k + 1 < K ? columns * LANES : 0;
    }
  }
}

/* part += a·b over this split's part of DEPTH values of k. */
INLINE void multiply_held(const int columns, real *part, const __local real4 *a, const held *b) {
#pragma unroll
  for (int i = 0; i < PART; i += 4) {
    real w[4 * COLUMNS];
#pragma unroll
    for (int at = 0; at < 4 * COLUMNS; at++) {
      const int k = i + at / COLUMNS, c = at % COLUMNS;
      if (c < columns) {
#if HALVES
        uint pair = b[k / 2 * columns + c];
        STAYS(pair)
        w[at] = vload_half(k % 2, (const half *)&pair);
#else
        w[at] = b[k * columns + c];
#endif
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const real4 x = a[r * A_ROW + i / 4];
#pragma unroll
      for (int at = 0; at < 4 * COLUMNS; at++) {
        const int k = at / COLUMNS, c = at % COLUMNS;
        if (c < columns)
          part[r * columns + c] = fma(LANE_OF(x, k), w[at], part[r * columns + c]);
      }
    }
  }
}
