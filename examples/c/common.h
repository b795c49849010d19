/* What these programs have in common: an error ends them. */
#ifndef COMMON_H
#define COMMON_H

#include <realm.h>
#include <stdio.h>
#include <stdlib.h>

/* Ends the program if there is an error. */
static inline void check(RealmError *error) {
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", realm_error_name(error), realm_error_message(error));
        exit(1);
    }
}

/* A runtime, and the model that the first argument names. */
static inline RealmModel *load(RealmRuntime **runtime, const char *model) {
    RealmError *error = NULL;
    *runtime = realm_runtime_new(0, NULL, NULL, &error);
    check(error);
    RealmModel *loaded = realm_runtime_load_model(*runtime, model, NULL, &error);
    check(error);
    return loaded;
}

#endif
