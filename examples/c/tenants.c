/* Many tenants, one model: each has its own limits, and their requests share every forward pass: `tenants [MODEL]`. */
#include "common.h"

#include <ctype.h>

#define TENANTS 8

static const char *CAPITALS[TENANTS] = {"France", "Italy", "Spain", "Germany", "Japan", "Egypt", "Norway", "Greece"};

int main(int argc, char **argv) {
    RealmError *error = NULL;
    RealmRuntime *runtime;
    RealmModel *model = load(&runtime, argc > 1 ? argv[1] : "qwen2.5-coder-0.5b");
    RealmLimits *limits = realm_limits_new();
    realm_limits_set(limits, REALM_LIMIT_MAX_CONCURRENT, 1);
    realm_limits_set(limits, REALM_LIMIT_REQUEST_TIMEOUT_MS, 60000);

    RealmTenant *tenants[TENANTS];
    RealmGeneration *generations[TENANTS];
    for (int i = 0; i < TENANTS; i++) {
        char name[32], question[128];
        snprintf(name, sizeof name, "%s", CAPITALS[i]);
        name[0] = (char)tolower((unsigned char)name[0]);
        tenants[i] = realm_runtime_tenant(runtime, name, limits, &error);
        check(error);
        RealmModel *seen = realm_tenant_model(tenants[i], model, &error);
        check(error);
        RealmRequest *request = realm_request_chat();
        snprintf(question, sizeof question, "What is the capital of %s? Answer in one sentence.", CAPITALS[i]);
        realm_request_add_message(request, "user", question, &error);
        check(error);
        realm_request_set_temperature(request, 0);
        realm_request_set_max_tokens(request, 24);
        /* Starts; all of them run at once from now on. */
        generations[i] = realm_model_stream(seen, request, &error);
        check(error);
        realm_request_free(request);
        realm_model_free(seen);
    }
    for (int i = 0; i < TENANTS; i++) {
        RealmCompletion *answer = realm_generation_finish(generations[i], &error);
        check(error);
        RealmServed served;
        realm_tenant_metrics(tenants[i], &served);
        printf("%s: %s (%d tokens)\n", realm_tenant_name(tenants[i]), realm_completion_text(answer, NULL),
               (int)served.generated_tokens);
        realm_completion_free(answer);
        realm_generation_free(generations[i]);
        realm_tenant_free(tenants[i]);
    }
    realm_limits_free(limits);
    realm_model_free(model);
    realm_runtime_free(runtime);
    return 0;
}
