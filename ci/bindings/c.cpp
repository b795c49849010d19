// What `core/realm/examples/streams.rs` does, through the C interface.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "handles.hpp"

using Clock = std::chrono::steady_clock;

static double us(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

struct Bench {
    Owned<RealmRuntime> runtime;
    Owned<RealmTenant> tenant;
    Owned<RealmModel> model;

    explicit Bench(size_t threads) {
        Outcome out;
        runtime = own(TRY(out, realm_runtime_new(threads, "cpu", nullptr, &out.error)));
        auto options = own(realm_load_options_new());
        realm_load_options_set_kv_tokens(options.get(), 16 * 1024);
        auto loaded = own(TRY(out, realm_runtime_load_model(runtime.get(), "smollm2-135m", options.get(), &out.error)));
        tenant = own(TRY(out, realm_runtime_tenant(runtime.get(), "bench", nullptr, &out.error)));
        model = own(TRY(out, realm_tenant_model(tenant.get(), loaded.get(), &out.error)));
    }

    Owned<RealmGeneration> start(size_t tokens) const {
        Outcome out;
        const uint32_t prompt[] = {504, 3575, 282, 4649, 314};
        auto request = own(TRY(out, realm_request_tokens(prompt, 5, &out.error)));
        realm_request_set_temperature(request.get(), 0);
        realm_request_set_max_tokens(request.get(), tokens);
        realm_request_set_ignore_eos(request.get(), true);
        realm_request_set_speculation(request.get(), REALM_SPECULATION_OFF);
        return own(TRY(out, realm_model_stream(model.get(), request.get(), &out.error)));
    }

    static size_t read(RealmGeneration *generation) {
        Outcome out;
        size_t chunks = 0;
        RealmChunk *chunk = nullptr;
        while (TRY(out, realm_generation_next(generation, &chunk, &out.error)), chunk != nullptr) {
            chunks += realm_chunk_text(chunk, nullptr) != nullptr;
            realm_chunk_free(chunk);
        }
        return chunks;
    }

    void stream(size_t streams, size_t tokens) const {
        std::vector<double> times(streams);
        std::vector<std::thread> readers;
        auto began = Clock::now();
        for (double &time : times) {
            readers.emplace_back([&time, tokens, this] {
                read(start(tokens).get());
                timespec cpu;
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
                time = static_cast<double>(cpu.tv_sec) * 1e6 + static_cast<double>(cpu.tv_nsec) / 1e3;
            });
        }
        for (auto &reader : readers) reader.join();
        double took = us(Clock::now() - began), reading = 0, all = static_cast<double>(streams * tokens);
        for (double time : times) reading += time;
        std::printf("{\"rate\": %f, \"reader_us\": %f}\n", all / took * 1e6, reading / all);
    }

    void queued(size_t streams, size_t tokens) const {
        std::vector<Owned<RealmGeneration>> ready;
        for (size_t i = 0; i < streams; i++) ready.push_back(start(tokens));
        while (realm_tenant_running(tenant.get()) + realm_tenant_waiting(tenant.get()) > 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        auto began = Clock::now();
        size_t chunks = 0;
        for (auto &generation : ready) chunks += read(generation.get());
        std::printf("{\"us\": %f}\n", us(Clock::now() - began) / static_cast<double>(chunks));
    }

    void call(size_t count) const {
        std::vector<double> times;
        for (size_t i = 0; i < count; i++) {
            Outcome out;
            auto began = Clock::now();
            auto generation = start(1);
            RealmChunk *chunk = nullptr;
            TRY(out, realm_generation_next(generation.get(), &chunk, &out.error));
            double took = us(Clock::now() - began);
            RealmFinish finish;
            realm_chunk_finish(chunk, &finish);
            realm_chunk_free(chunk);
            times.push_back(took - (finish.queued_seconds + finish.prefill_seconds + finish.decode_seconds) * 1e6);
        }
        std::sort(times.begin(), times.end());
        std::printf("{\"us\": %f}\n", times[count / 2]);
    }
};

int main(int, char **arguments) {
    Bench bench(std::strtoul(arguments[1], nullptr, 10));
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    // The first run touches memory for the first time.
    Bench::read(bench.start(10).get());
    std::puts("{}");
    std::string what;
    size_t first = 0, second = 0;
    while (std::cin >> what >> first) {
        if (what == "call") {
            bench.call(first);
            continue;
        }
        std::cin >> second;
        what == "stream" ? bench.stream(first, second) : bench.queued(first, second);
    }
}
