/* The whole answer to one question: `hello [MODEL]`. */
#include <realm.h>
#include <stdio.h>

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmModel *model = NULL;
    RealmRequest *request = realm_request_chat();
    RealmCompletion *answer = NULL;
    RealmRuntime *runtime = realm_runtime_new(0, NULL, NULL, &error);
    if (runtime != NULL) {
        model = realm_runtime_load_model(runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b", NULL, &error);
    }
    if (model != NULL && realm_request_add_message(request, "user", "What is the capital of France?", &error)) {
        realm_request_set_temperature(request, 0);
        realm_request_set_max_tokens(request, 64);
        answer = realm_model_generate(model, request, &error);
    }
    if (answer != NULL) {
        puts(realm_completion_text(answer, NULL));
    } else {
        fprintf(stderr, "%s: %s\n", realm_error_name(error), realm_error_message(error));
    }
    int failed = answer == NULL;
    realm_completion_free(answer);
    realm_request_free(request);
    realm_model_free(model);
    realm_runtime_free(runtime);
    realm_error_free(error);
    return failed;
}
