/* An answer that fits a JSON schema, whatever the model would like to say: `guided [MODEL]`. */
#include "common.h"

static const char *SCHEMA =
    "{\"type\": \"object\", \"required\": [\"city\", \"country\", \"population\"], \"additionalProperties\": false,"
    " \"properties\": {\"city\": {\"type\": \"string\", \"maxLength\": 30}, \"country\": {\"type\": \"string\", \"maxLength\": 30},"
    " \"population\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 100000000}}}";

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b");
    RealmRequest *request = realm_request_chat();
    realm_request_add_message(request, "user", "Tell me about the capital of France, as JSON.", &error);
    check(error);
    realm_request_set_temperature(request, 0);
    realm_request_set_max_tokens(request, 200);
    realm_request_set_json_schema(request, SCHEMA, &error);
    check(error);
    RealmCompletion *answer = realm_model_generate(model, request, &error);
    check(error);
    puts(realm_completion_text(answer, NULL));
    realm_completion_free(answer);
    realm_request_free(request);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
