// An application in C++ whose threads come and go: `abuse MODEL SECONDS`. See README.md.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../bindings-c/tests/c/abandon.hpp"

static long anonymous_kib() {
    long kib = 0;
    char line[256];
    FILE *status = std::fopen("/proc/self/status", "r");
    while (status != nullptr && std::fgets(line, sizeof line, status) != nullptr) std::sscanf(line, "RssAnon: %ld", &kib);
    if (status != nullptr) std::fclose(status);
    return kib;
}

static RealmServed served(RealmModel *model, size_t *pages) {
    RealmServed all;
    RealmKvPages kv;
    auto metrics = own(realm_model_metrics(model));
    realm_metrics_served(metrics.get(), &all);
    realm_metrics_kv(metrics.get(), &kv);
    *pages = kv.used;
    return all;
}

static void fail(const char *why) {
    std::printf("c: FAILED: %s\n", why);
    std::exit(1);
}

// Nothing is left, the model answers, and memory is as it was.
static void report(RealmModel *model, const char *when) {
    size_t pages = 1;
    RealmServed all{};
    for (int i = 0; i < 6000 && (pages > 0 || all.running > 0 || i == 0); i++) {
        if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        all = served(model, &pages);
    }
    if (pages > 0 || all.running > 0) fail("requests are left");
    Outcome out;
    auto request = own(TRY(out, realm_request_text("Once upon a time", &out.error)));
    realm_request_set_max_tokens(request.get(), 2);
    std::atomic<bool> answered = false;
    std::thread asking([&] { answered = own(realm_model_generate(model, request.get(), nullptr)) != nullptr; });
    for (int i = 0; i < 6000 && !answered; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (!answered) fail("the model does not answer");
    asking.join();
    std::printf("c: %s: RssAnon %ld MiB, cancelled %llu, finished %llu\n", when, anonymous_kib() / 1024,
                static_cast<unsigned long long>(all.cancelled), static_cast<unsigned long long>(all.finished));
    std::fflush(stdout);
}

static void abuse(RealmModel *model, double seconds, unsigned seed) {
    auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 6; i++) {
        threads.emplace_back([=] {
            std::minstd_rand luck(seed + i);
            while (std::chrono::steady_clock::now() < end) leave_somewhere(model, luck, 100);
        });
    }
    std::minstd_rand luck(seed + 100);
    while (std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(luck() % 50));
        // A signal interrupts whatever a thread waits in.
        pthread_kill(threads[luck() % threads.size()].native_handle(), SIGUSR1);
        if (luck() % 20 == 0) {
            pid_t child = fork();
            if (child == 0) _exit(0);
            int status = 1;
            while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
            if (status != 0) fail("a forked child failed");
        }
    }
    for (std::thread &thread : threads) thread.join();
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    // Without SA_RESTART, so that calls return early.
    sigaction(SIGUSR1, &action, nullptr);
    Outcome out;
    auto runtime = own(TRY(out, realm_runtime_new(2, "cpu", nullptr, &out.error)));
    auto options = own(realm_load_options_new());
    realm_load_options_set_kv_tokens(options.get(), 2048);
    auto model = own(TRY(out, realm_runtime_load_model(runtime.get(), argv[1], options.get(), &out.error)));
    double seconds = std::atof(argv[2]);
    // Memory is taken as it is needed: the first tenth shows how much.
    abuse(model.get(), seconds * 0.1, 1);
    report(model.get(), "start");
    abuse(model.get(), seconds * 0.45, 1000);
    report(model.get(), "middle");
    long middle = anonymous_kib();
    abuse(model.get(), seconds * 0.45, 2000);
    report(model.get(), "end");
    long grown = (anonymous_kib() - middle) / 1024;
    if (grown > 16) fail("memory grew by more than 16 MiB");
    std::printf("c: ok\n");
}
