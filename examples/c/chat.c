/* A conversation whose answers come in pieces: `chat [MODEL]`. The end of the input ends it. */
#include "common.h"

#include <string.h>

/* What was said so far of an answer. */
typedef struct {
    char *text;
    size_t len;
} Answer;

static bool on_chunk(void *user_data, const RealmChunk *chunk) {
    Answer *answer = user_data;
    size_t len;
    const char *text = realm_chunk_text(chunk, &len);
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    answer->text = realloc(answer->text, answer->len + len + 1);
    memcpy(answer->text + answer->len, text, len + 1);
    answer->len += len;
    return true; /* false would end the answer here */
}

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b");
    RealmRequest *conversation = realm_request_chat();
    realm_request_set_temperature(conversation, 0);
    realm_request_set_max_tokens(conversation, 256);

    char line[4096];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        realm_request_add_message(conversation, "user", line, &error);
        check(error);
        Answer answer = {NULL, 0};
        realm_model_each(model, conversation, on_chunk, &answer, &error);
        check(error);
        puts("");
        realm_request_add_message(conversation, "assistant", answer.text != NULL ? answer.text : "", &error);
        check(error);
        free(answer.text);
    }
    realm_request_free(conversation);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
