// Runs the kernels of ../cuda on the CPU, as device.hpp describes. The entry point is emulator_launch.
#include "../cuda/intentd.cu"

#include <csetjmp>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <unordered_map>
#include <utility>
#include <vector>

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emulator {

thread_local Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 128 * 1024;
constexpr unsigned LANES = 32;

enum class State { READY, IN_COLLECTIVE, IN_BARRIER, IN_WAIT, DONE };

struct Fiber {
  std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK_BYTES]};
  ucontext_t start;
  jmp_buf context;
  bool started, waited;
  State state;
  Index index;
};

struct Warp {
  // Two sets of slots, because a lane can be one collective ahead of another lane, but never two.
  Words slots[2][LANES];
  unsigned generation, arrived;
  const char* kind;
};

using Call = void (*)(const void* kernel, void** arguments);

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  jmp_buf scheduler;
  ucontext_t home;
  Fiber* current = nullptr;
  Call call;
  const void* kernel;
  std::vector<uint64_t> words;
  std::vector<void*> arguments;
  unsigned blocks, threads;
  size_t shared_bytes;
  // Whether threads pause at the wait for the preceding kernel.
  bool early;
  std::string fault;
};

// The first one is for kernels that run without interruption, the others are for kernels that have begun.
constexpr unsigned BLOCKS = 5;
thread_local Block all[BLOCKS];
thread_local Block* now = all;

void fail(const std::string& what) {
  if (now->fault.empty()) now->fault = what;
}

// Returns to the scheduler. The fiber continues here when it is resumed.
void pause() {
  Fiber* self = now->current;
  if (_setjmp(self->context) == 0) _longjmp(now->scheduler, 1);
  thread_index = self->index;
}

void run_fiber() {
  now->call(now->kernel, now->arguments.data());
  if (!now->current->waited) fail("a thread that ends without waiting for the kernel before");
  now->current->state = State::DONE;
  _longjmp(now->scheduler, 1);
}

void resume(Fiber& fiber) {
  now->current = &fiber;
  thread_index = fiber.index;
  fiber.state = State::READY;
  if (_setjmp(now->scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

// Runs a warp until each lane has reached a barrier or has ended.
void run_warp(unsigned number, unsigned threads) {
  unsigned first = number * LANES, last = std::min(first + LANES, threads);
  for (bool again = true; again && now->fault.empty();) {
    again = false;
    unsigned waiting = 0, generation = now->warps[number].generation;
    for (unsigned i = first; i < last; i++) {
      Fiber& fiber = now->fibers[i];
      if (fiber.state == State::READY || fiber.state == State::IN_COLLECTIVE) resume(fiber);
      if (fiber.state == State::IN_COLLECTIVE) waiting++;
    }
    again = waiting > 0;
    if (waiting > 0 && generation == now->warps[number].generation && waiting < LANES)
      fail(std::string("a warp where only some lanes reach ") + now->warps[number].kind);
  }
}

void prepare() {
  unsigned threads = now->threads;
  if (now->fibers.size() < threads) now->fibers = std::vector<Fiber>(threads);
  now->warps.assign((threads + LANES - 1) / LANES, Warp{});
  // On a GPU, shared memory is uninitialized. Here every f32 and f16 in it is NaN, so that reads show.
  now->shared.assign(now->shared_bytes + 16, 0xff);
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = now->fibers[i];
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
    fiber.started = fiber.waited = false;
    fiber.state = State::READY;
    fiber.index = {i, 0, 0};
  }
}

// Runs one block with its warps in a random order: a result that depends on the order lacks a barrier.
void run_block(uint64_t& seed) {
  unsigned threads = now->threads;
  std::vector<unsigned> order(now->warps.size());
  for (unsigned i = 0; i < order.size(); i++) order[i] = i;
  for (size_t i = order.size(); i > 1; i--) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[(seed >> 33) % i]);
  }
  for (bool running = true; running && now->fault.empty();) {
    for (unsigned warp : order) run_warp(warp, threads);
    unsigned done = 0, in_barrier = 0;
    for (unsigned i = 0; i < threads; i++) {
      done += now->fibers[i].state == State::DONE;
      in_barrier += now->fibers[i].state == State::IN_BARRIER;
    }
    running = done < threads;
    if (done > 0 && in_barrier > 0) fail("a block where only some threads reach a barrier");
    for (unsigned i = 0; i < threads; i++)
      if (now->fibers[i].state == State::IN_BARRIER) now->fibers[i].state = State::READY;
  }
}

template <class... Arguments, size_t... I>
void spread(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<Arguments>*>(arguments[I])...);
}

template <class... Arguments> Call caller(void (*)(Arguments...)) {
  return [](const void* kernel, void** arguments) {
    auto typed = reinterpret_cast<void (*)(Arguments...)>(const_cast<void*>(kernel));
    spread(typed, arguments, std::index_sequence_for<Arguments...>());
  };
}

struct Entry {
  const void* kernel;
  Call call;
  unsigned arguments;
};

template <class... Arguments> Entry entry(void (*kernel)(Arguments...)) {
  return {reinterpret_cast<const void*>(kernel), caller(kernel), unsigned(sizeof...(Arguments))};
}

#define ENTRY(name) {#name, entry(name)}
#define ENTRIES_OF(suffix)                                                                                        \
  ENTRY(embed_norm_##suffix##_1), ENTRY(embed_norm_##suffix##_3), ENTRY(embed_norm_##suffix##_4),                 \
      ENTRY(embed_norm_##suffix##_8), ENTRY(norm_##suffix##_1), ENTRY(norm_##suffix##_3),                 \
      ENTRY(norm_##suffix##_4), ENTRY(norm_##suffix##_8), ENTRY(bias_activation_##suffix),                \
      ENTRY(gather_rows_##suffix), ENTRY(classify_##suffix), ENTRY(convert_f32_##suffix),                         \
      ENTRY(convert_f16_##suffix), ENTRY(convert_bf16_##suffix), ENTRY(attention_rows_##suffix)
#define SKINNY_ENTRIES(suffix, rows, columns) \
  ENTRY(skinny_plain_##suffix##_##rows##_##columns), ENTRY(skinny_norm_##suffix##_##rows##_##columns)
#define MATRIX_ENTRIES(suffix)                                                                                    \
  ENTRY(attention_tiles_##suffix##_32), ENTRY(attention_tiles_##suffix##_64), SKINNY_ENTRIES(suffix, 1, 1),       \
      SKINNY_ENTRIES(suffix, 1, 2), SKINNY_ENTRIES(suffix, 1, 3), SKINNY_ENTRIES(suffix, 1, 4),                   \
      SKINNY_ENTRIES(suffix, 2, 1), SKINNY_ENTRIES(suffix, 2, 2), SKINNY_ENTRIES(suffix, 2, 3)

const std::unordered_map<std::string, Entry>& entries() {
  static const std::unordered_map<std::string, Entry> all = {ENTRIES_OF(f32), ENTRIES_OF(f16), ENTRIES_OF(bf16),
                                                             MATRIX_ENTRIES(f16), MATRIX_ENTRIES(bf16)};
  return all;
}

}  // namespace

const Words* exchange(const char* kind, const Words& mine) {
  Warp& warp = now->warps[thread_index.x / LANES];
  unsigned generation = warp.generation;
  if (warp.arrived > 0 && std::strcmp(warp.kind, kind) != 0)
    fail(std::string("a warp whose lanes meet in ") + warp.kind + " and " + kind);
  warp.kind = kind;
  warp.slots[generation % 2][lane()] = mine;
  if (++warp.arrived == LANES) {
    warp.arrived = 0;
    warp.generation++;
  }
  while (warp.generation == generation) {
    now->current->state = State::IN_COLLECTIVE;
    pause();
  }
  return warp.slots[generation % 2];
}

void block_barrier() {
  if (now->early) fail("a barrier before the wait for the kernel before");
  now->current->state = State::IN_BARRIER;
  pause();
}

void wait_for_kernel_before() {
  now->current->waited = true;
  if (!now->early) return;
  now->current->state = State::IN_WAIT;
  pause();
}

unsigned char* shared_memory() {
  auto address = reinterpret_cast<uintptr_t>(now->shared.data());
  return reinterpret_cast<unsigned char*>((address + 15) / 16 * 16);
}

}  // namespace emulator

// The number of arguments of the kernel `name`; 0 if there is no such kernel.
extern "C" unsigned emulator_arguments(const char* name) {
  auto found = emulator::entries().find(name);
  return found == emulator::entries().end() ? 0 : found->second.arguments;
}

namespace emulator {
namespace {

// Prepares `slot` for a kernel. Returns false if there is no kernel of that name.
bool set(unsigned slot, const char* name, unsigned blocks, unsigned threads, size_t shared_bytes,
         const uint64_t* words) {
  now = &all[slot];
  now->fault.clear();
  auto found = entries().find(name);
  if (found == entries().end()) {
    fail("no kernel of that name");
    return false;
  }
  now->kernel = found->second.kernel;
  now->call = found->second.call;
  now->words.assign(words, words + found->second.arguments);
  now->arguments.clear();
  for (uint64_t& word : now->words) now->arguments.push_back(&word);
  now->blocks = blocks;
  now->threads = threads;
  now->shared_bytes = shared_bytes;
  return true;
}

void place(unsigned number) {
  block_index = {number, 0, 0};
  block_size = {now->threads, 1, 1};
  grid_size = {now->blocks, 1, 1};
}

// Returns 1 and writes the reason to `text` if the kernel failed, otherwise 0.
int report(char* text, size_t bytes) {
  if (now->fault.empty()) return 0;
  std::snprintf(text, bytes, "%s", now->fault.c_str());
  return 1;
}

}  // namespace
}  // namespace emulator

// Runs the kernel `name` on a one-dimensional grid. Each argument is at the start of one of `words`. `seed`
// determines the order of warps. Returns 0, or 1 with the reason in `fault`.
//
// With `only_begin`, runs only the first block up to its wait for the preceding kernel, and keeps it in
// `slot`, 1 to 4. A later call with the same `slot` continues from there. Slot 0 is for a kernel that has not
// begun.
extern "C" int emulator_launch(bool only_begin, unsigned slot, const char* name, unsigned blocks, unsigned threads,
                               size_t shared_bytes, const uint64_t* words, uint64_t seed, char* fault,
                               size_t fault_bytes) {
  using namespace emulator;
  bool begun = slot != 0 && !only_begin;
  if (begun) {
    now = &all[slot];
    for (unsigned i = 0; i < threads; i++)
      if (now->fibers[i].state == State::IN_WAIT) now->fibers[i].state = State::READY;
  } else if (!set(slot, name, blocks, threads, shared_bytes, words)) {
    return report(fault, fault_bytes);
  }
  now->early = only_begin;
  if (only_begin) {
    prepare();
    place(0);
    for (unsigned warp = 0; warp < now->warps.size() && now->fault.empty(); warp++) run_warp(warp, threads);
    return report(fault, fault_bytes);
  }
  for (unsigned i = 0; i < blocks && now->fault.empty(); i++) {
    if (i > 0 || !begun) prepare();
    place(i);
    run_block(seed);
  }
  return report(fault, fault_bytes);
}
