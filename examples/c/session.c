/* A conversation that remembers, and a tool that the model may call: `session [MODEL]`. */
#include "common.h"

#include <string.h>

static const char *WEATHER =
    "{\"name\": \"weather\", \"description\": \"Tells the weather in a city.\","
    " \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}";

/* Called on a thread of its own. A real one would read the city with a parser of JSON. */
static void weather(void *user_data, const char *arguments, RealmToolCall *call) {
    (void)user_data;
    realm_tool_call_answer(call, strstr(arguments, "Paris") != NULL ? "\"snow\"" : "\"fog\"");
}

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b");
    /* How the conversation begins, and how each answer is made. */
    RealmRequest *request = realm_request_chat();
    realm_request_add_message(request, "system", "You are a helpful assistant.", &error);
    check(error);
    realm_request_set_temperature(request, 0);
    realm_request_set_max_tokens(request, 200);
    RealmChatOptions *options = realm_chat_options_new();
    realm_chat_options_add_tool(options, WEATHER, weather, NULL, NULL, &error);
    check(error);
    RealmChatSession *chat = realm_chat_new(model, request, options, &error);
    check(error);

    const char *questions[] = {"What is the capital of France?", "What is the weather there?"};
    for (int i = 0; i < 2; i++) {
        printf("> %s\n", questions[i]);
        RealmGeneration *generation = realm_chat_stream(chat, questions[i], &error);
        check(error);
        RealmChunk *chunk;
        while (realm_generation_next(generation, &chunk, &error) && chunk != NULL) {
            printf("%s", realm_chunk_text(chunk, NULL));
            fflush(stdout);
            realm_chunk_free(chunk);
        }
        check(error);
        puts("");
        realm_generation_free(generation);
    }
    printf("(%d dropped)\n", (int)realm_chat_dropped_messages(chat));
    realm_chat_free(chat);
    realm_chat_options_free(options);
    realm_request_free(request);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
