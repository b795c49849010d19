/* Many prompts and many texts, each in one call: `lists [MODEL]`. */
#include "common.h"

#define COUNT 4
#define TEXTS 3

static const char *COUNTRIES[COUNT] = {"France", "Japan", "Italy", "Kenya"};
static const char *WORDS[TEXTS] = {"A cat sat on the mat.", "The kitten lay on the rug.", "Interest rates rose again."};

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b");
    RealmRequest *requests[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char question[128];
        snprintf(question, sizeof question, "What is the capital of %s? One word.", COUNTRIES[i]);
        requests[i] = realm_request_chat();
        realm_request_add_message(requests[i], "user", question, &error);
        check(error);
        realm_request_set_temperature(requests[i], 0);
        realm_request_set_max_tokens(requests[i], 8);
    }
    RealmCompletion *answers[COUNT];
    realm_model_generate_many(model, (const RealmRequest *const *)requests, COUNT, answers, NULL, &error);
    check(error);
    for (int i = 0; i < COUNT; i++) {
        printf("%s: %s\n", COUNTRIES[i], realm_completion_text(answers[i], NULL));
        realm_completion_free(answers[i]);
        realm_request_free(requests[i]);
    }

    /* Their vectors have length 1, so that a product is the cosine. */
    size_t width;
    float *vectors = realm_model_embed_many(model, WORDS, TEXTS, REALM_POOLING_DEFAULT, true, &width, &error);
    check(error);
    for (int i = 1; i < TEXTS; i++) {
        float similarity = 0;
        for (size_t at = 0; at < width; at++) similarity += vectors[at] * vectors[i * width + at];
        printf("%.2f  %s\n", similarity, WORDS[i]);
    }
    realm_free(vectors);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
