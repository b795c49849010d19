/* A tenant with a program of its own, which calls a tool of this application: `program [PROGRAM.wasm [MODEL]]`.
 * PROGRAM is a WebAssembly component; `ci/build-programs` builds `agent.wasm`, which calls tools, and nine others. */
#include "common.h"

static void get_weather(void *user_data, const char *arguments, RealmToolCall *call) {
    (void)user_data;
    printf("(the program asks for the weather: %s)\n", arguments);
    realm_tool_call_answer(call, "{\"weather\": \"heavy snow, -7 degrees\"}");
}

static const char *TOOL =
    "{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"The weather in a city.\","
    " \"parameters\": {\"type\": \"object\", \"required\": [\"city\"], \"additionalProperties\": false,"
    " \"properties\": {\"city\": {\"enum\": [\"Paris\", \"Rome\"]}}}}}";

static bool on_chunk(void *user_data, const RealmChunk *chunk) {
    (void)user_data;
    printf("%s", realm_chunk_text(chunk, NULL));
    return fflush(stdout) == 0;
}

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 2 ? argv[2] : "qwen2.5-coder-0.5b");
    RealmLimits *limits = realm_limits_new();
    realm_limits_set(limits, REALM_LIMIT_PROGRAM_CPU_TIME_MS, 30000);
    RealmTenant *tenant = realm_runtime_tenant(runtime, "acme", limits, &error);
    check(error);
    RealmProgram *program =
        realm_runtime_load_program(runtime, argc > 1 ? argv[1] : "target/programs/agent.wasm", &error);
    check(error);
    realm_tenant_set_program(tenant, program);

    /* Nothing but this is granted. */
    RealmGrants *grants = realm_grants_new();
    realm_grants_allow_log(grants);
    realm_grants_allow_tool(grants, "get_weather", get_weather, NULL, NULL, &error);
    check(error);
    realm_tenant_set_grants(tenant, grants);

    RealmModel *seen = realm_tenant_model(tenant, model, &error);
    check(error);
    RealmRequest *request = realm_request_chat();
    realm_request_add_message(request, "user", "What is the weather in Paris?", &error);
    check(error);
    realm_request_add_tool(request, TOOL, &error);
    check(error);
    realm_request_set_input(request, "{\"tool_choice\": \"required\"}", &error);
    check(error);
    realm_request_set_temperature(request, 0);
    realm_request_set_max_tokens(request, 64);
    realm_model_each(seen, request, on_chunk, NULL, &error);
    check(error);
    puts("");

    realm_request_free(request);
    realm_model_free(seen);
    realm_grants_free(grants);
    realm_program_free(program);
    realm_tenant_free(tenant);
    realm_limits_free(limits);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
