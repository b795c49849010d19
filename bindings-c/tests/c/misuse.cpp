// What callers do wrong, and what they do to memory: `misuse MODEL PROGRAMS CYCLES [LARGE_CYCLES]`, with the
// folder tests/conformance/programs.
// `misuse MODEL exit` ends in the middle of a stream; `misuse MODEL wait` goes on until a signal ends it.

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <thread>
#include <vector>

#include "abandon.hpp"
#include "handles.hpp"

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << " is false\n"; \
            std::exit(1);                                                                   \
        }                                                                                   \
    } while (false)

static Outcome out;
static Owned<RealmRuntime> runtime;
static Owned<RealmModel> model;

static Owned<RealmRequest> story(size_t tokens) {
    auto request = own(TRY(out, realm_request_text("Once upon a time", &out.error)));
    realm_request_set_temperature(request.get(), 0);
    realm_request_set_max_tokens(request.get(), tokens);
    realm_request_set_ignore_eos(request.get(), true);
    return request;
}

static RealmKvPages pages() {
    RealmKvPages kv;
    auto metrics = own(realm_model_metrics(model.get()));
    realm_metrics_kv(metrics.get(), &kv);
    return kv;
}

static void wait_until(const std::function<bool()> &holds) {
    for (int i = 0; i < 1000 && !holds(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(holds());
}

// Expects a call to fail with `invalid-argument`.
template <class Call>
static void refused(Call call) {
    RealmError *error = nullptr;
    CHECK(!call(&error));
    CHECK(error != nullptr && realm_error_code(error) == REALM_ERROR_CODE_INVALID_ARGUMENT);
    CHECK(std::strcmp(realm_error_name(error), "invalid-argument") == 0 && std::strlen(realm_error_message(error)) > 0);
    realm_error_free(error);
    // And without anywhere to put the error.
    CHECK(!call(nullptr));
}

// A number that is no variant of an enum.
template <class Enum>
static Enum none_of() {
    int number = 99;
    Enum value;
    std::memcpy(&value, &number, sizeof value);
    return value;
}

// Every number of a request that may be none, or beyond what it means.
static void numbers_that_are_none() {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    struct Option {
        const char *name;
        std::function<void(RealmRequest *, float)> set;
    };
    const Option options[] = {
        {"temperature", realm_request_set_temperature},
        {"top_p", realm_request_set_top_p},
        {"min_p", realm_request_set_min_p},
        {"typical_p", realm_request_set_typical_p},
        {"repetition_penalty", [](RealmRequest *q, float value) { realm_request_set_repetition_penalty(q, value, 64); }},
        {"frequency_penalty", realm_request_set_frequency_penalty},
        {"presence_penalty", realm_request_set_presence_penalty},
        {"adapter_scale", [](RealmRequest *q, float value) { realm_request_set_adapter(q, nullptr, value); }},
        {"logit_bias", [](RealmRequest *q, float value) { realm_request_set_logit_bias(q, 5, value); }},
    };
    for (const auto &option : options) {
        for (float value : {nan, infinity, -infinity}) {
            // A bias of minus infinity bans the token.
            if (std::strcmp(option.name, "logit_bias") == 0 && value < 0) continue;
            auto request = story(1);
            option.set(request.get(), value);
            RealmError *error = nullptr;
            CHECK(realm_model_generate(model.get(), request.get(), &error) == nullptr);
            CHECK(error != nullptr && realm_error_code(error) == REALM_ERROR_CODE_INVALID_ARGUMENT);
            CHECK(std::strstr(realm_error_message(error), option.name) != nullptr);
            realm_error_free(error);
        }
    }
}

static void nothing_where_something_is_needed() {
    RealmRuntime *r = runtime.get();
    RealmModel *m = model.get();
    auto request = story(1);
    RealmRequest *q = request.get();
    auto sequence = own(TRY(out, realm_model_sequence(m, &out.error)));
    auto tenant = own(TRY(out, realm_runtime_tenant(r, "t", nullptr, &out.error)));
    size_t len = 7;
    refused([](RealmError **e) { return realm_runtime_load_model(nullptr, "x", nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_load_model(r, nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_load_model(r, "\xff\xfe", nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_pull(r, nullptr, nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_models(nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_load_program(r, nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_compile_program(r, nullptr, 100, e); });
    refused([&](RealmError **e) { return realm_tenant_compile_program(nullptr, nullptr, 0, e); });
    refused([&](RealmError **e) { return realm_tenant_compile_program(tenant.get(), nullptr, 100, e); });
    refused([&](RealmError **e) { return realm_runtime_load_tokenizer(nullptr, "x", e); });
    refused([&](RealmError **e) { return realm_runtime_tenant(r, nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_inspect(nullptr, e); });
    refused([&](RealmError **e) { return realm_model_generate(nullptr, q, e); });
    refused([&](RealmError **e) { return realm_model_generate(m, nullptr, e); });
    refused([&](RealmError **e) { return realm_model_stream(m, nullptr, e); });
    refused([&](RealmError **e) { return realm_model_each(m, q, nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_model_encode(m, nullptr, false, true, &len, e); });
    refused([&](RealmError **e) { return realm_model_decode(m, nullptr, 3, &len, e); });
    refused([&](RealmError **e) { return realm_model_render(m, q, e); });
    refused([&](RealmError **e) { return realm_model_score(m, nullptr, 1, 0, e); });
    refused([&](RealmError **e) { return realm_model_embed(m, nullptr, &len, e); });
    refused([&](RealmError **e) { return realm_model_sequence(nullptr, e); });
    refused([&](RealmError **e) { return realm_model_restore_sequence(m, nullptr, 10, e); });
    refused([&](RealmError **e) { return realm_model_restore_foreign_sequence(m, nullptr, 10, e); });
    refused([&](RealmError **e) { return realm_runtime_new_keyed(1, "cpu", nullptr, nullptr, 32, e); });
    refused([&](RealmError **e) { return realm_runtime_connect(nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_connect("localhost", nullptr, e); });
    refused([&](RealmError **e) { return realm_runtime_connect("http://localhost", "\xff\xfe", e); });
    CHECK(!realm_runtime_is_remote(r) && !realm_runtime_is_remote(nullptr));
    refused([&](RealmError **e) { return realm_model_load_adapter(m, nullptr, e); });
    refused([&](RealmError **e) { return realm_generation_next(nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_generation_finish(nullptr, e); });
    refused([&](RealmError **e) { return realm_sequence_append(sequence.get(), nullptr, 1, e); });
    refused([&](RealmError **e) { return realm_sequence_forward(sequence.get(), REALM_OUTPUT_NOTHING, e); });
    refused([&](RealmError **e) { return realm_sequence_fork(nullptr, e); });
    refused([&](RealmError **e) { return realm_tenant_set_limits(tenant.get(), nullptr, e); });
    refused([&](RealmError **e) { return realm_tenant_model(tenant.get(), nullptr, e); });
    refused([&](RealmError **e) { return realm_tenant_add_program(tenant.get(), "x", nullptr, e); });
    refused([&](RealmError **e) { return realm_grants_allow_tool(nullptr, "x", nullptr, nullptr, nullptr, e); });
    refused([&](RealmError **e) { return realm_request_text(nullptr, e); });
    refused([&](RealmError **e) { return realm_request_add_message(q, "user", "x", e); });
    refused([&](RealmError **e) { return realm_request_set_json_schema(q, "{", e); });
    refused([&](RealmError **e) { return realm_request_set_input(nullptr, "{}", e); });
    CHECK(len == 7);

    // What a newer header may have.
    refused([&](RealmError **e) { return realm_sequence_forward(sequence.get(), none_of<RealmOutput>(), e); });
    refused([&](RealmError **e) { return realm_set_log(none_of<RealmLevel>(), nullptr, nullptr, nullptr, e); });
    const uint32_t tokens[] = {4};
    refused([&](RealmError **e) { return realm_model_embed_tokens(m, tokens, 1, none_of<RealmPooling>(), true, &len, e); });
    auto limits = own(realm_limits_new());
    refused([&](RealmError **e) { return realm_limits_set_names(limits.get(), none_of<RealmNameLimit>(), nullptr, 0, e); });
    realm_limits_set(limits.get(), none_of<RealmLimit>(), 1);
    CHECK(realm_limits_get(limits.get(), none_of<RealmLimit>()) == REALM_NONE);
    CHECK(realm_limits_names(limits.get(), none_of<RealmNameLimit>()) == REALM_NONE);
    realm_request_set_speculation(q, none_of<RealmSpeculation>());
    auto metrics = own(realm_model_metrics(m));
    CHECK(std::isnan(realm_metrics_quantile(metrics.get(), none_of<RealmHistogram>(), 0.5)));

    realm_runtime_free(nullptr);
    realm_model_free(nullptr);
    realm_generation_free(nullptr);
    realm_generation_cancel(nullptr);
    realm_error_free(nullptr);
    realm_request_set_temperature(nullptr, 1);
    realm_tenant_set_program(nullptr, nullptr);
    realm_tenant_set_grants(nullptr, nullptr);
    realm_tool_call_answer(nullptr, "x");
    realm_free(nullptr);
    CHECK(realm_model_clone(nullptr) == nullptr && realm_model_metrics(nullptr) == nullptr);
    CHECK(!realm_model_info(nullptr, nullptr) && realm_model_info(m, nullptr));
    CHECK(std::string(realm_chunk_text(nullptr, &len)).empty() && len == 0);
    CHECK(realm_completion_tokens(nullptr) == 0 && !realm_completion_token(nullptr, 0, nullptr));
    CHECK(realm_limits_get(nullptr, REALM_LIMIT_KV_TOKENS) == REALM_NONE);
    CHECK(realm_forwarded_values(nullptr, nullptr, nullptr) == nullptr && realm_tenant_running(nullptr) == 0);
}

static void a_callback_that_throws_ends_the_request() {
    auto request = story(1000);
    int chunks = 0;
    RealmOnChunk throws = [](void *data, const RealmChunk *chunk) -> bool {
        CHECK(realm_chunk_tokens(chunk) == 1);
        if (++*static_cast<int *>(data) == 3) throw std::runtime_error("enough");
        return true;
    };
    bool caught = false;
    try {
        realm_model_each(model.get(), request.get(), throws, &chunks, &out.error);
    } catch (const std::runtime_error &error) {
        caught = std::string(error.what()) == "enough";
    }
    CHECK(caught && chunks == 3 && out.error == nullptr);
    wait_until([] { return pages().used == 0; });

    RealmOnChunk stops = [](void *data, const RealmChunk *) -> bool { return ++*static_cast<int *>(data) < 3; };
    chunks = 0;
    CHECK(realm_model_each(model.get(), request.get(), stops, &chunks, &out.error) && chunks == 3);
    wait_until([] { return pages().used == 0; });
}

static void threads_wait_and_another_one_cancels() {
    auto request = story(1500);
    auto generation = own(TRY(out, realm_model_stream(model.get(), request.get(), &out.error)));
    std::atomic<int> chunks{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 4; i++) {
        readers.emplace_back([&] {
            for (;;) {
                RealmChunk *chunk = nullptr;
                CHECK(realm_generation_next(generation.get(), &chunk, nullptr));
                if (chunk == nullptr) return;
                chunks++;
                realm_chunk_free(chunk);
            }
        });
    }
    wait_until([&] { return chunks > 8; });
    realm_generation_cancel(generation.get());
    for (std::thread &reader : readers) reader.join();
    CHECK(realm_generation_is_cancelled(generation.get()) && chunks < 1500);
    RealmError *error = nullptr;
    CHECK(realm_generation_finish(generation.get(), &error) == nullptr);
    CHECK(realm_error_code(error) == REALM_ERROR_CODE_CANCELLED);
    realm_error_free(error);
    wait_until([] { return pages().used == 0; });
}

static volatile std::sig_atomic_t interrupted = 0;

static void a_signal_ends_a_request() {
    std::signal(SIGINT, [](int) { interrupted = 1; });
    auto request = story(1500);
    int chunks = 0;
    RealmOnChunk until_interrupted = [](void *data, const RealmChunk *) -> bool {
        if (++*static_cast<int *>(data) == 3) std::raise(SIGINT);
        return !interrupted;
    };
    CHECK(realm_model_each(model.get(), request.get(), until_interrupted, &chunks, &out.error) && chunks == 3);
    // And where it comes to a thread that waits in Realm.
    auto generation = own(TRY(out, realm_model_stream(model.get(), request.get(), &out.error)));
    interrupted = 0;
    std::thread waits([&] {
        while (!interrupted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        realm_generation_cancel(generation.get());
    });
    std::thread sends([main = pthread_self()] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        pthread_kill(main, SIGINT);
    });
    RealmError *error = nullptr;
    CHECK(realm_generation_finish(generation.get(), &error) == nullptr);
    CHECK(realm_error_code(error) == REALM_ERROR_CODE_CANCELLED);
    realm_error_free(error);
    waits.join();
    sends.join();
    std::signal(SIGINT, SIG_DFL);
    wait_until([] { return pages().used == 0; });
}

// `REALM_STRESS_SECONDS` says for how long; without it, it is a moment.
static void whatever_readers_do_the_model_answers() {
    const char *seconds = std::getenv("REALM_STRESS_SECONDS");
    auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds ? std::atof(seconds) : 1);
    std::vector<std::thread> threads;
    for (unsigned seed = 1; seed <= 6; seed++) {
        threads.emplace_back([seed, end] {
            std::minstd_rand luck(seed);
            while (std::chrono::steady_clock::now() < end) leave_somewhere(model.get(), luck, 200);
        });
    }
    for (std::thread &thread : threads) thread.join();
    wait_until([] { return pages().used == 0; });
    auto request = story(2);
    CHECK(own(TRY(out, realm_model_generate(model.get(), request.get(), &out.error))));
}

static void dropping_a_generation_frees_its_pages() {
    auto request = story(1500);
    auto generation = own(TRY(out, realm_model_stream(model.get(), request.get(), &out.error)));
    CHECK(realm_generation_next(generation.get(), nullptr, nullptr));
    wait_until([] { return pages().used > 0; });
    generation.reset();
    wait_until([] { return pages().used == 0; });
}

static std::atomic<int> dropped{0};
static std::atomic<int> lines{0};

static void what_callbacks_are_given_is_given_back_once(const std::string &programs) {
    RealmDrop drop = [](void *) REALM_NOEXCEPT { dropped++; };
    RealmOnLog log = [](void *, RealmLevel, const char *, const char *) REALM_NOEXCEPT { lines++; };
    RealmTool never = [](void *, const char *, RealmToolCall *call) REALM_NOEXCEPT { realm_tool_call_fail(call, nullptr); };
    auto program = own(TRY(out, realm_runtime_load_program(runtime.get(), (programs + "/call-tool.wasm").c_str(), &out.error)));
    auto tenant = own(TRY(out, realm_runtime_tenant(runtime.get(), "t", nullptr, &out.error)));
    auto seen = own(TRY(out, realm_tenant_model(tenant.get(), model.get(), &out.error)));
    {
        auto grants = own(realm_grants_new());
        realm_grants_allow_log_to(grants.get(), log, nullptr, drop);
        TRY(out, realm_grants_allow_tool(grants.get(), "weather", never, nullptr, drop, &out.error));
        realm_tenant_set_grants(tenant.get(), grants.get());
    }
    realm_tenant_set_program(tenant.get(), program.get());
    CHECK(dropped == 0);
    auto request = story(1);
    RealmError *error = nullptr;
    CHECK(realm_model_generate(seen.get(), request.get(), &error) == nullptr);
    CHECK(realm_error_code(error) == REALM_ERROR_CODE_FAILED);
    wait_until([] { return lines == 1; });
    realm_error_free(error);
    realm_tenant_set_grants(tenant.get(), nullptr);
    wait_until([] { return dropped == 2; });
    // Given back also where a call fails.
    CHECK(!realm_grants_allow_tool(nullptr, "x", never, nullptr, drop, nullptr) && dropped == 3);

    CHECK(realm_set_log(REALM_LEVEL_TRACE, log, nullptr, drop, nullptr));
    CHECK(realm_set_log(REALM_LEVEL_TRACE, nullptr, nullptr, nullptr, nullptr));
    wait_until([] { return dropped == 4; });
}

static std::atomic<bool> asleep{false}, told{false}, awake{false};

// Which threads they run on is Realm's choice; whatever they do there, others go on.
static void callbacks_that_sleep_or_ask_the_model_hold_nobody_up(const std::string &programs) {
    asleep = told = awake = false;
    // A log that sleeps, and then asks.
    RealmOnLog slow = [](void *, RealmLevel, const char *, const char *) REALM_NOEXCEPT {
        if (asleep.exchange(true)) return;
        while (!awake) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        auto request = story(2);
        auto answer = own(realm_model_generate(model.get(), request.get(), nullptr));
        CHECK(answer && realm_completion_tokens(answer.get()) == 2);
        told = true;
    };
    CHECK(realm_set_log(REALM_LEVEL_TRACE, slow, nullptr, nullptr, nullptr));
    // Tools that sleep until the other requests have ended, more of them than programs have threads.
    RealmTool sleeps = [](void *, const char *, RealmToolCall *call) REALM_NOEXCEPT {
        while (!awake) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        auto request = story(2);
        auto answer = own(realm_model_generate(model.get(), request.get(), nullptr));
        CHECK(answer);
        realm_tool_call_answer(call, "{}");
    };
    auto program = own(TRY(out, realm_runtime_load_program(runtime.get(), (programs + "/call-tool.wasm").c_str(), &out.error)));
    auto other = own(TRY(out, realm_runtime_load_program(runtime.get(), (programs + "/hello.wasm").c_str(), &out.error)));
    auto grants = own(realm_grants_new());
    realm_grants_allow_log_to(grants.get(), slow, nullptr, nullptr);
    TRY(out, realm_grants_allow_tool(grants.get(), "weather", sleeps, nullptr, nullptr, &out.error));
    auto tenant = own(TRY(out, realm_runtime_tenant(runtime.get(), "slow", nullptr, &out.error)));
    realm_tenant_set_grants(tenant.get(), grants.get());
    realm_tenant_set_program(tenant.get(), program.get());
    auto seen = own(TRY(out, realm_tenant_model(tenant.get(), model.get(), &out.error)));
    auto request = story(1);
    std::vector<std::thread> waiting;
    for (int i = 0; i < 8; i++) {
        waiting.emplace_back([&] { CHECK(own(realm_model_generate(seen.get(), request.get(), nullptr))); });
    }
    wait_until([] { return asleep.load(); });
    // Others: plain requests, programs, and a load whose progress asks a model.
    CHECK(own(TRY(out, realm_model_generate(model.get(), story(8).get(), &out.error))));
    auto quick = own(TRY(out, realm_runtime_tenant(runtime.get(), "quick", nullptr, &out.error)));
    realm_tenant_set_program(quick.get(), other.get());
    auto quickly = own(TRY(out, realm_tenant_model(quick.get(), model.get(), &out.error)));
    for (int i = 0; i < 4; i++) CHECK(own(TRY(out, realm_model_generate(quickly.get(), request.get(), &out.error))));
    RealmModelInfo info;
    realm_model_info(model.get(), &info);
    auto options = own(realm_load_options_new());
    realm_load_options_set_kv_tokens(options.get(), 256);
    RealmOnProgress asks = [](void *, const char *, const char *, uint64_t, uint64_t) REALM_NOEXCEPT {
        CHECK(own(realm_model_generate(model.get(), story(1).get(), nullptr)));
    };
    realm_load_options_set_progress(options.get(), asks, nullptr, nullptr);
    CHECK(own(TRY(out, realm_runtime_load_model(runtime.get(), info.reference, options.get(), &out.error))));
    awake = true;
    for (auto &thread : waiting) thread.join();
    wait_until([] { return told.load(); });
    CHECK(realm_set_log(REALM_LEVEL_TRACE, nullptr, nullptr, nullptr, nullptr));
    wait_until([] { return pages().used == 0; });
}

// KiB that are resident.
static long resident() {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line)) {
        if (line.rfind("VmRSS:", 0) == 0) return std::stol(line.substr(6));
    }
    return 0;
}

static void cycle(RealmProgram *program) {
    auto limits = own(realm_limits_new());
    RealmModelInfo info;
    realm_model_info(model.get(), &info);
    const char *names[] = {info.reference, "another"};
    TRY(out, realm_limits_set_names(limits.get(), REALM_NAME_LIMIT_MODELS, names, 2, &out.error));
    auto tenant = own(TRY(out, realm_runtime_tenant(runtime.get(), "cycle", limits.get(), &out.error)));
    auto seen = own(TRY(out, realm_tenant_model(tenant.get(), model.get(), &out.error)));
    auto clone = own(realm_model_clone(seen.get()));
    auto request = story(1);
    auto answer = own(TRY(out, realm_model_generate(clone.get(), request.get(), &out.error)));
    auto dropped = own(TRY(out, realm_model_stream(seen.get(), story(1000).get(), &out.error)));
    auto sequence = own(TRY(out, realm_model_sequence(seen.get(), &out.error)));
    uint32_t tokens[] = {4, 5};
    TRY(out, realm_sequence_append(sequence.get(), tokens, 2, &out.error));
    auto forwarded = own(TRY(out, realm_sequence_forward(sequence.get(), REALM_OUTPUT_LAST_LOGITS, &out.error)));
    auto fork = own(TRY(out, realm_sequence_fork(sequence.get(), &out.error)));
    auto tokenizer = own(realm_model_tokenizer(seen.get()));
    size_t len = 0;
    auto ids = own(TRY(out, realm_tokenizer_encode(tokenizer.get(), "Hello", false, true, &len, &out.error)));
    auto grants = own(realm_grants_new());
    realm_tenant_set_grants(tenant.get(), grants.get());
    realm_tenant_set_program(tenant.get(), program);
    auto sandboxed = own(TRY(out, realm_model_generate(seen.get(), request.get(), &out.error)));
    auto metrics = own(realm_model_metrics(seen.get()));
    RealmError *error = nullptr;
    CHECK(realm_runtime_load_model(runtime.get(), "no-such-model", nullptr, &error) == nullptr);
    realm_error_free(error);
}

// What is large: a runtime, a model, a tokenizer, a program.
static void large_cycle(const std::string &programs) {
    RealmModelInfo info;
    realm_model_info(model.get(), &info);
    auto another = own(TRY(out, realm_runtime_new(2, "cpu", nullptr, &out.error)));
    auto options = own(realm_load_options_new());
    realm_load_options_set_kv_tokens(options.get(), 256);
    auto loaded = own(TRY(out, realm_runtime_load_model(another.get(), info.reference, options.get(), &out.error)));
    auto tokenizer = own(TRY(out, realm_runtime_load_tokenizer(another.get(), info.reference, &out.error)));
    auto program = own(TRY(out, realm_runtime_load_program(another.get(), (programs + "/hello.wasm").c_str(), &out.error)));
    auto tenant = own(TRY(out, realm_runtime_tenant(another.get(), "t", nullptr, &out.error)));
    realm_tenant_set_program(tenant.get(), program.get());
    auto seen = own(TRY(out, realm_tenant_model(tenant.get(), loaded.get(), &out.error)));
    auto request = story(1);
    auto answer = own(TRY(out, realm_model_generate(seen.get(), request.get(), &out.error)));
    auto plain = own(TRY(out, realm_model_generate(loaded.get(), request.get(), &out.error)));
}

static void stays_flat(const char *what, int cycles, const std::function<void()> &once) {
    for (int i = 0; i < cycles / 5; i++) once();
    long before = resident();
    for (int i = 0; i < cycles; i++) once();
    long after = resident();
    std::printf("%d cycles, %s: from %ld to %ld KiB resident\n", cycles, what, before, after);
#ifndef SANITIZED
    // Less than 4 bytes of every KiB in each of a thousand cycles.
    CHECK(after - before < 4096);
#endif
}

int main(int argc, char **argv) {
    CHECK(argc >= 3);
    std::string programs = argv[2];
    auto options = own(realm_load_options_new());
    realm_load_options_set_kv_tokens(options.get(), 4096);
    runtime = own(TRY(out, realm_runtime_new(2, "cpu", nullptr, &out.error)));
    model = own(TRY(out, realm_runtime_load_model(runtime.get(), argv[1], options.get(), &out.error)));
    CHECK(realm_abi_version() >> 16 == REALM_ABI_MAJOR && (realm_abi_version() & 0xFFFF) >= REALM_ABI_MINOR);
    if (programs == "wait") {
        auto request = story(SIZE_MAX);
        std::puts("ready");
        std::fflush(stdout);
        for (;;) realm_model_each(model.get(), request.get(), [](void *, const RealmChunk *) { return true; }, nullptr, nullptr);
    }
    if (programs == "exit") {
        auto request = story(1500);
        RealmGeneration *generation = TRY(out, realm_model_stream(model.get(), request.get(), &out.error));
        CHECK(realm_generation_next(generation, nullptr, nullptr));
        std::thread([generation] {
            RealmChunk *chunk = nullptr;
            while (realm_generation_next(generation, &chunk, nullptr) && chunk != nullptr) realm_chunk_free(chunk);
        }).detach();
        // Nothing is freed; threads of Realm's and our own are in the middle of things.
        (void)model.release();
        (void)runtime.release();
        std::exit(0);
    }
    nothing_where_something_is_needed();
    numbers_that_are_none();
    a_callback_that_throws_ends_the_request();
    threads_wait_and_another_one_cancels();
    a_signal_ends_a_request();
    whatever_readers_do_the_model_answers();
    dropping_a_generation_frees_its_pages();
    what_callbacks_are_given_is_given_back_once(programs);
    callbacks_that_sleep_or_ask_the_model_hold_nobody_up(programs);
    int cycles = argc > 3 ? std::atoi(argv[3]) : 1000;
    auto program = own(TRY(out, realm_runtime_load_program(runtime.get(), (programs + "/hello.wasm").c_str(), &out.error)));
    stays_flat("small objects", cycles, [&] { cycle(program.get()); });
    wait_until([] { return pages().used == 0; });
    stays_flat("runtimes and models", argc > 4 ? std::atoi(argv[4]) : cycles, [&] { large_cycle(programs); });
    program.reset();
    model.reset();
    runtime.reset();
    std::puts("ok");
}
