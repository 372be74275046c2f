// Runs the kernels of ../cuda on the CPU; device.hpp says how. The one entry point is emulator_launch.
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

enum class State { READY, IN_COLLECTIVE, IN_BARRIER, DONE };

struct Fiber {
  std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK_BYTES]};
  ucontext_t start;
  jmp_buf context;
  bool started;
  State state;
  Index index;
};

struct Warp {
  // Two sets of slots: a lane can be one collective ahead of another, never two.
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
  void** arguments;
  std::string fault;
};

thread_local Block block;

void fail(const std::string& what) {
  if (block.fault.empty()) block.fault = what;
}

// Back to the scheduler. The fiber goes on here when it is resumed.
void pause() {
  Fiber* self = block.current;
  if (_setjmp(self->context) == 0) _longjmp(block.scheduler, 1);
  thread_index = self->index;
}

void run_fiber() {
  block.call(block.kernel, block.arguments);
  block.current->state = State::DONE;
  _longjmp(block.scheduler, 1);
}

void resume(Fiber& fiber) {
  block.current = &fiber;
  thread_index = fiber.index;
  fiber.state = State::READY;
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.context, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

// Runs a warp until each of its lanes is at a barrier or done.
void run_warp(unsigned number, unsigned threads) {
  unsigned first = number * LANES, last = std::min(first + LANES, threads);
  for (bool again = true; again && block.fault.empty();) {
    again = false;
    unsigned waiting = 0, generation = block.warps[number].generation;
    for (unsigned i = first; i < last; i++) {
      Fiber& fiber = block.fibers[i];
      if (fiber.state == State::READY || fiber.state == State::IN_COLLECTIVE) resume(fiber);
      if (fiber.state == State::IN_COLLECTIVE) waiting++;
    }
    again = waiting > 0;
    if (waiting > 0 && generation == block.warps[number].generation && waiting < LANES)
      fail(std::string("a warp where only some lanes reach ") + block.warps[number].kind);
  }
}

void prepare(unsigned threads, size_t shared_bytes) {
  if (block.fibers.size() < threads) block.fibers = std::vector<Fiber>(threads);
  block.warps.assign((threads + LANES - 1) / LANES, Warp{});
  // Shared memory starts with whatever was there; here, with what shows: every f32 and f16 is NaN.
  block.shared.assign(shared_bytes + 16, 0xff);
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = block.fibers[i];
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
    fiber.started = false;
    fiber.state = State::READY;
    fiber.index = {i, 0, 0};
  }
}

// One block, its warps in an order of its own: what is right in one order only lacks a barrier.
void run_block(unsigned threads, size_t shared_bytes, uint64_t& seed) {
  prepare(threads, shared_bytes);
  std::vector<unsigned> order(block.warps.size());
  for (unsigned i = 0; i < order.size(); i++) order[i] = i;
  for (size_t i = order.size(); i > 1; i--) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[(seed >> 33) % i]);
  }
  for (bool running = true; running && block.fault.empty();) {
    for (unsigned warp : order) run_warp(warp, threads);
    unsigned done = 0, in_barrier = 0;
    for (unsigned i = 0; i < threads; i++) {
      done += block.fibers[i].state == State::DONE;
      in_barrier += block.fibers[i].state == State::IN_BARRIER;
    }
    running = done < threads;
    if (done > 0 && in_barrier > 0) fail("a block where only some threads reach a barrier");
    for (unsigned i = 0; i < threads; i++)
      if (block.fibers[i].state == State::IN_BARRIER) block.fibers[i].state = State::READY;
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
      ENTRY(embed_norm_##suffix##_8), ENTRY(add_norm_##suffix##_1), ENTRY(add_norm_##suffix##_3),                 \
      ENTRY(add_norm_##suffix##_4), ENTRY(add_norm_##suffix##_8), ENTRY(bias_activation_##suffix),                \
      ENTRY(gather_rows_##suffix), ENTRY(classify_##suffix), ENTRY(convert_f32_##suffix),                         \
      ENTRY(convert_f16_##suffix), ENTRY(convert_bf16_##suffix), ENTRY(attention_rows_##suffix)
#define SKINNY_ENTRIES(suffix, rows, columns) \
  ENTRY(skinny_plain_##suffix##_##rows##_##columns), ENTRY(skinny_norm_##suffix##_##rows##_##columns)
#define MATRIX_ENTRIES(suffix)                                                                                    \
  ENTRY(attention_tiles_##suffix##_32), ENTRY(attention_tiles_##suffix##_64), SKINNY_ENTRIES(suffix, 1, 1),       \
      SKINNY_ENTRIES(suffix, 1, 2), SKINNY_ENTRIES(suffix, 2, 1), SKINNY_ENTRIES(suffix, 2, 2),                   \
      SKINNY_ENTRIES(suffix, 4, 1)

const std::unordered_map<std::string, Entry>& entries() {
  static const std::unordered_map<std::string, Entry> all = {ENTRIES_OF(f32), ENTRIES_OF(f16), ENTRIES_OF(bf16),
                                                             MATRIX_ENTRIES(f16), MATRIX_ENTRIES(bf16)};
  return all;
}

}  // namespace

const Words* exchange(const char* kind, const Words& mine) {
  Warp& warp = block.warps[thread_index.x / LANES];
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
    block.current->state = State::IN_COLLECTIVE;
    pause();
  }
  return warp.slots[generation % 2];
}

void block_barrier() {
  block.current->state = State::IN_BARRIER;
  pause();
}

unsigned char* shared_memory() {
  auto address = reinterpret_cast<uintptr_t>(block.shared.data());
  return reinterpret_cast<unsigned char*>((address + 15) / 16 * 16);
}

}  // namespace emulator

// Whether `name` is a kernel; the number of its arguments then, else 0.
extern "C" unsigned emulator_arguments(const char* name) {
  auto found = emulator::entries().find(name);
  return found == emulator::entries().end() ? 0 : found->second.arguments;
}

// Runs the kernel `name` on a one-dimensional grid; `arguments` point to the arguments' values.
// `seed` decides on the order of warps. 0, or 1 with the reason in `fault`.
extern "C" int emulator_launch(const char* name, unsigned blocks, unsigned threads, size_t shared_bytes,
                               void** arguments, uint64_t seed, char* fault, size_t fault_bytes) {
  using namespace emulator;
  auto found = entries().find(name);
  if (found == entries().end()) {
    std::snprintf(fault, fault_bytes, "no kernel of that name");
    return 1;
  }
  block.kernel = found->second.kernel;
  block.call = found->second.call;
  block.arguments = arguments;
  block.fault.clear();
  block_size = {threads, 1, 1};
  grid_size = {blocks, 1, 1};
  for (unsigned i = 0; i < blocks && block.fault.empty(); i++) {
    block_index = {i, 0, 0};
    run_block(threads, shared_bytes, seed);
  }
  if (block.fault.empty()) return 0;
  std::snprintf(fault, fault_bytes, "%s", block.fault.c_str());
  return 1;
}
