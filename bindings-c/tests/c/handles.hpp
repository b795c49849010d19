// Owners of Realm's objects, and its errors as exceptions: what these tests need of a C++ layer.
#pragma once

#include <realm.h>

#include <memory>
#include <stdexcept>
#include <string>

struct Failure : std::runtime_error {
    std::string code;
    RealmErrorCode number;

    explicit Failure(RealmError *error)
        : std::runtime_error(realm_error_message(error)), code(realm_error_name(error)), number(realm_error_code(error)) {
        realm_error_free(error);
    }
};

// Passed as the last argument of a call; `check` throws what the call failed with.
struct Outcome {
    RealmError *error = nullptr;

    template <class T>
    T check(T result) {
        if (error != nullptr) {
            RealmError *taken = error;
            error = nullptr;
            throw Failure(taken);
        }
        if (!result) throw std::logic_error("a call failed without an error");
        return result;
    }
};

#define TRY(outcome, call) (outcome).check(call)

template <class T>
struct Deleter;

#define OWNED(Type, free_function)                                   \
    template <>                                                      \
    struct Deleter<Type> {                                           \
        void operator()(Type *object) const { free_function(object); } \
    };

OWNED(RealmRuntime, realm_runtime_free)
OWNED(RealmModel, realm_model_free)
OWNED(RealmLoadOptions, realm_load_options_free)
OWNED(RealmModelList, realm_model_list_free)
OWNED(RealmFileInfo, realm_file_info_free)
OWNED(RealmTokenizer, realm_tokenizer_free)
OWNED(RealmRequest, realm_request_free)
OWNED(RealmGeneration, realm_generation_free)
OWNED(RealmChunk, realm_chunk_free)
OWNED(RealmCompletion, realm_completion_free)
OWNED(RealmScores, realm_scores_free)
OWNED(RealmSequence, realm_sequence_free)
OWNED(RealmForwarded, realm_forwarded_free)
OWNED(RealmAdapter, realm_adapter_free)
OWNED(RealmTenant, realm_tenant_free)
OWNED(RealmLimits, realm_limits_free)
OWNED(RealmProgram, realm_program_free)
OWNED(RealmGrants, realm_grants_free)
OWNED(RealmChatOptions, realm_chat_options_free)
OWNED(RealmChatSession, realm_chat_free)
OWNED(RealmError, realm_error_free)
OWNED(RealmMetrics, realm_metrics_free)
OWNED(char, realm_free)
OWNED(uint8_t, realm_free)
OWNED(uint32_t, realm_free)
OWNED(float, realm_free)

template <class T>
using Owned = std::unique_ptr<T, Deleter<T>>;

// Gives ownership a name at the call: `own(realm_limits_new())`.
template <class T>
Owned<T> own(T *object) {
    return Owned<T>(object);
}
