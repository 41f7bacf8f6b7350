// Working memory of one thread for one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace lite_detr {
namespace cpu {

// Memory in cache lines of its own, without initial values.
class AlignedMemory {
 public:
  explicit AlignedMemory(size_t bytes) : memory_(::operator new(bytes, std::align_val_t(kLine))) {}
  ~AlignedMemory() {
    if (memory_ != nullptr) ::operator delete(memory_, std::align_val_t(kLine));
  }
  AlignedMemory(AlignedMemory&& other) noexcept : memory_(other.memory_) { other.memory_ = nullptr; }
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  void* get() const { return memory_; }

  static constexpr size_t kLine = 64;

 private:
  void* memory_;
};

// Hands out pieces of blocks and allocates a block when one is full, so nobody has to say in advance how much it will
// be. All is freed together.
class Scratch {
 public:
  template <typename T>
  T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + AlignedMemory::kLine - 1) / AlignedMemory::kLine *
                         AlignedMemory::kLine;
    if (bytes > left_) {
      left_ = bytes > kBlock ? bytes : kBlock;
      blocks_.emplace_back(left_);
      next_ = static_cast<char*>(blocks_.back().get());
    }
    T* taken = reinterpret_cast<T*>(next_);
    next_ += bytes;
    left_ -= bytes;
    return taken;
  }

 private:
  static constexpr size_t kBlock = 32 * 1024;
  std::vector<AlignedMemory> blocks_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace cpu
}  // namespace lite_detr
