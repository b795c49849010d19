// core/realm/examples/streams.rs with the C interface: `streams MODEL STREAMS TOKENS` prints tokens a second. With CPU in the
// environment also the microseconds that readers computed for each token, Realm's part of that included: what no other load on
// the machine disturbs.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#include "handles.hpp"

int main(int argc, char **argv) {
    if (argc < 4) return std::puts("usage: streams MODEL STREAMS TOKENS"), 2;
    size_t streams = std::strtoul(argv[2], nullptr, 10);
    size_t tokens = std::strtoul(argv[3], nullptr, 10);
    Outcome out;
    auto runtime = own(TRY(out, realm_runtime_new(2, "cpu", nullptr, &out.error)));
    auto options = own(realm_load_options_new());
    realm_load_options_set_kv_tokens(options.get(), 32 * 1024);
    auto model = own(TRY(out, realm_runtime_load_model(runtime.get(), argv[1], options.get(), &out.error)));
    std::atomic<uint64_t> nanoseconds{0};
    auto read = [&](size_t *count) {
        Outcome out;
        auto request = own(TRY(out, realm_request_text("Once upon a time", &out.error)));
        realm_request_set_temperature(request.get(), 0);
        realm_request_set_max_tokens(request.get(), tokens);
        realm_request_set_ignore_eos(request.get(), true);
        auto generation = own(TRY(out, realm_model_stream(model.get(), request.get(), &out.error)));
        RealmChunk *chunk = nullptr;
        while (TRY(out, realm_generation_next(generation.get(), &chunk, &out.error)), chunk != nullptr) {
            *count += realm_chunk_tokens(chunk);
            realm_chunk_free(chunk);
        }
        timespec cpu;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
        nanoseconds += static_cast<uint64_t>(cpu.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(cpu.tv_nsec);
    };
    size_t first = 0;
    // The first run touches memory for the first time.
    read(&first);
    std::vector<size_t> counts(streams);
    nanoseconds = 0;
    std::vector<std::thread> readers;
    auto began = std::chrono::steady_clock::now();
    for (size_t &count : counts) readers.emplace_back(read, &count);
    size_t all = 0;
    for (size_t i = 0; i < streams; i++) {
        readers[i].join();
        all += counts[i];
    }
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
    std::printf("%.1f\n", static_cast<double>(all) / seconds.count());
    if (std::getenv("CPU") != nullptr) std::printf("%.2f us\n", static_cast<double>(nanoseconds) / 1e3 / static_cast<double>(all));
}
