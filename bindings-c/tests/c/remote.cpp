// A program that uses the models of a server, `realm serve smollm2-135m`: `remote URL KEY TENANT`.
#include "handles.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            std::fprintf(stderr, "%s:%d: it is not so: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                       \
        }                                                                                       \
    } while (false)

static const char *const ANSWER = "The capital of France is Paris.";

static Owned<RealmRequest> question() {
    Outcome outcome;
    auto request = own(realm_request_chat());
    const char *text = "What is the capital of France? Answer in one sentence.";
    TRY(outcome, realm_request_add_message(request.get(), "user", text, &outcome.error));
    realm_request_set_temperature(request.get(), 0);
    realm_request_set_max_tokens(request.get(), 16);
    return request;
}

template <class Call>
static void refused(RealmErrorCode code, Call call) {
    RealmError *error = nullptr;
    CHECK(!call(&error));
    CHECK(error != nullptr);
    if (realm_error_code(error) != code) std::fprintf(stderr, "%s: %s\n", realm_error_name(error), realm_error_message(error));
    CHECK(realm_error_code(error) == code);
    realm_error_free(error);
}

static void answers(const RealmModel *model) {
    Outcome outcome;
    auto request = question();
    auto answer = own(TRY(outcome, realm_model_generate(model, request.get(), &outcome.error)));
    CHECK(std::strcmp(realm_completion_text(answer.get(), nullptr), ANSWER) == 0);
}

static void streams_and_is_cancelled(const RealmModel *model) {
    Outcome outcome;
    auto request = question();
    auto generation = own(TRY(outcome, realm_model_stream(model, request.get(), &outcome.error)));
    std::string text;
    for (;;) {
        RealmChunk *next = nullptr;
        TRY(outcome, realm_generation_next(generation.get(), &next, &outcome.error));
        if (next == nullptr) break;
        auto chunk = own(next);
        text += realm_chunk_text(chunk.get(), nullptr);
    }
    CHECK(text == ANSWER);
    auto story = own(TRY(outcome, realm_request_text("Once upon a time", &outcome.error)));
    realm_request_set_max_tokens(story.get(), 4000);
    realm_request_set_ignore_eos(story.get(), true);
    auto endless = own(TRY(outcome, realm_model_stream(model, story.get(), &outcome.error)));
    RealmChunk *first = nullptr;
    TRY(outcome, realm_generation_next(endless.get(), &first, &outcome.error));
    CHECK(first != nullptr);
    realm_chunk_free(first);
    realm_generation_cancel(endless.get());
    CHECK(realm_generation_is_cancelled(endless.get()));
    refused(REALM_ERROR_CODE_CANCELLED, [&](RealmError **e) { return realm_generation_finish(endless.get(), e); });
}

static void drives_a_sequence(const RealmModel *model) {
    Outcome outcome;
    size_t len = 0;
    auto tokens = own(TRY(outcome, realm_model_encode(model, "The capital of France is", false, true, &len, &outcome.error)));
    auto sequence = own(TRY(outcome, realm_model_sequence(model, &outcome.error)));
    TRY(outcome, realm_sequence_append(sequence.get(), tokens.get(), len, &outcome.error));
    auto forwarded = own(TRY(outcome, realm_sequence_forward(sequence.get(), REALM_OUTPUT_LAST_LOGITS, &outcome.error)));
    RealmModelInfo info;
    CHECK(realm_model_info(model, &info));
    size_t rows = 0, width = 0;
    CHECK(realm_forwarded_values(forwarded.get(), &rows, &width) != nullptr && rows == 1 && width == info.vocabulary);
    auto fork = own(TRY(outcome, realm_sequence_fork(sequence.get(), &outcome.error)));
    size_t forked = 0;
    realm_sequence_tokens(fork.get(), &forked);
    CHECK(forked == len);
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    const char *url = argv[1], *key = argv[2], *name = argv[3];
    Outcome outcome;
    refused(REALM_ERROR_CODE_DENIED, [&](RealmError **e) { return realm_runtime_connect(url, "rk_wrong", e); });
    refused(REALM_ERROR_CODE_DENIED, [&](RealmError **e) { return realm_runtime_connect(url, nullptr, e); });
    refused(REALM_ERROR_CODE_IO, [&](RealmError **e) { return realm_runtime_connect("http://127.0.0.1:1", key, e); });
    auto runtime = own(TRY(outcome, realm_runtime_connect(url, key, &outcome.error)));
    CHECK(realm_runtime_is_remote(runtime.get()));
    refused(REALM_ERROR_CODE_NOT_FOUND, [&](RealmError **e) { return realm_runtime_load_model(runtime.get(), "absent", nullptr, e); });
    auto model = own(TRY(outcome, realm_runtime_load_model(runtime.get(), "smollm2-135m", nullptr, &outcome.error)));
    answers(model.get());
    streams_and_is_cancelled(model.get());
    drives_a_sequence(model.get());
    auto tenant = own(TRY(outcome, realm_runtime_tenant(runtime.get(), name, nullptr, &outcome.error)));
    auto seen = own(TRY(outcome, realm_tenant_model(tenant.get(), model.get(), &outcome.error)));
    answers(seen.get());
    refused(REALM_ERROR_CODE_DENIED, [&](RealmError **e) { return realm_runtime_tenant(runtime.get(), "other", nullptr, e); });
    return 0;
}
